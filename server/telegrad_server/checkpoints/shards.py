"""Tensors into safetensors files of bounded size and back, each file with its digest.

All files of a checkpoint together hold the tensors in the order in which one safetensors file would, so that they can
be written, and turned into one file, as a stream.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from telegrad.errors import DataCorrupt, GraphError
from telegrad.ir.types import Type
from telegrad.wire import safetensors as format
from telegrad.wire.arrays import from_numpy_dtype, numpy_dtype

from telegrad_server.checkpoints.depot import Read
from telegrad_server.checkpoints.files import Output, reading
from telegrad_server.checkpoints.manifest import Manifest, Shard

SHARD_BYTES = 256 << 20
"""Above this many bytes of elements, another file is begun: a reader holds one file in memory."""
_PIECE = 4 << 20

Named = tuple[str, Type, memoryview]
Create = Callable[[str], Output]
"""Begins a file of a checkpoint, by its name."""


def write_order(types: Mapping[str, Type]) -> list[str]:
    """The names in the order of the files: tensors that come in it are written as they come, others wait in memory."""
    return list(layout(types))


def layout(types: Mapping[str, Type]) -> dict[str, format.Entry]:
    """Where tensors of these types stand in a safetensors file."""
    return format.layout({name: (numpy_dtype(type.dtype), type.shape) for name, type in types.items()})


def write_shards(
    create: Create, types: Mapping[str, Type], tensors: Iterable[Named], *, shard_bytes: int
) -> tuple[Shard, ...]:
    """Write the tensors, in whatever order they come, and return once their bytes last.

    GraphError if they are not those of ``types``, OSError from the disk.
    """
    coming = _in_order(types, tensors)
    groups = _groups(types, shard_bytes)
    shards = tuple(
        _write_shard(create, f"shard-{number:05d}-of-{len(groups):05d}.safetensors", group, coming)
        for number, group in enumerate(groups, 1)
    )
    if next(coming, None) is not None:
        raise GraphError("checkpoint: a tensor came that is not among the manifest's; each comes once")
    return shards


def read_shard(read: Read, shard: Shard, manifest: Manifest) -> list[Named]:
    """The tensors of a file, once its length and digest are right. DataCorrupt, saying what was found, if not."""
    if not re.fullmatch(r"shard-\d{5}-of-\d{5}\.safetensors", shard.file):
        raise DataCorrupt(f"a manifest names a file {shard.file!r:.80}, which no checkpoint has", file=shard.file)
    with reading(shard.file):
        data = read(shard.file, shard.bytes + 1)
    if len(data) != shard.bytes:
        found = f"{len(data)} bytes" if len(data) < shard.bytes else "more"
        raise _corrupt(shard, expected=f"{shard.bytes} bytes", found=found)
    digest = hashlib.sha256(data).hexdigest()
    if digest != shard.sha256:
        raise _corrupt(shard, expected=f"SHA-256 {shard.sha256}", found=digest)
    length = format.header_length(bytes(data[:8]), len(data), shard.file)
    entries, _ = format.read_header(bytes(data[8 : 8 + length]), len(data) - 8 - length, shard.file)
    elements = data[8 + length :].toreadonly()
    found = [(name, _type(entry), elements[entry.start : entry.stop]) for name, entry in entries.items()]
    for name, type, _ in found:
        if manifest.tensors.get(name) != type:
            raise _corrupt(shard, expected=f"{name!r} as {manifest.tensors.get(name)}", found=str(type))
    return found


def _groups(types: Mapping[str, Type], shard_bytes: int) -> list[dict[str, Type]]:
    """The tensors of each file, in order; at least one file."""
    groups: list[dict[str, Type]] = [{}]
    filled = 0
    for name in write_order(types):
        if filled and filled + types[name].nbytes > shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = types[name]
        filled += types[name].nbytes
    return groups


def _write_shard(create: Create, file: str, types: Mapping[str, Type], coming: Iterator[memoryview]) -> Shard:
    output = create(file)
    try:
        digest = hashlib.sha256()
        size = _append(output, digest.update, format.write_header(layout(types)))
        for _ in types:
            size += _append(output, digest.update, next(coming))
        output.sync()
    finally:
        output.close()
    return Shard(file, size, digest.hexdigest())


def _append(output: Output, update: Callable[[memoryview], None], data: bytes | memoryview) -> int:
    """Write and digest a piece at a time, while it is in the processor's caches."""
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        piece = view[start : start + _PIECE]
        output.write(piece)
        update(piece)
    return len(view)


def _in_order(types: Mapping[str, Type], tensors: Iterable[Named]) -> Iterator[memoryview]:
    """The elements in the order of the files; those that come before their turn are held."""
    held: dict[str, memoryview] = {}
    source = iter(tensors)
    for wanted in write_order(types):
        while wanted not in held:
            name, type, data = next(source, (None, None, None))
            if name is None or type is None or data is None:
                raise GraphError(f"checkpoint: the tensor {wanted!r} did not come")
            if types.get(name) != type or data.nbytes != type.nbytes or name in held:
                raise GraphError(f"checkpoint: {name!r} came as {type}, {data.nbytes} bytes, for {types.get(name)}")
            held[name] = data.cast("B")
        yield held.pop(wanted)
    for _, _, data in source:
        yield data


def _type(entry: format.Entry) -> Type:
    return Type(entry.shape, from_numpy_dtype(entry.dtype))


def _corrupt(shard: Shard, *, expected: str, found: str) -> DataCorrupt:
    message = f"{shard.file} has changed since it was written: expected {expected}, found {found}"
    return DataCorrupt(message, file=shard.file, expected=expected, found=found)
