"""A checkpoint's weights as one safetensors file, as PyTorch and others load it, and such a file as weights.

In a checkpoint the tensors of the model's ``state_dict`` have its keys behind ``model.``; beside them stands what only
the job needs: the optimiser's state, averages, counters. A file has the keys alone, ``0.weight``, and can be written as
a stream, since a checkpoint holds its tensors in the order of a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from telegrad.errors import NotFound
from telegrad.ir.types import Type
from telegrad.wire import safetensors as format
from telegrad.wire.arrays import from_numpy_dtype

from telegrad_server.checkpoints.manifest import Manifest
from telegrad_server.checkpoints.shards import Named, layout

MODEL = "model."
"""How the names of the model's tensors begin."""


def weights_file(manifest: Manifest, tensors: Iterable[Named], *, prefix: str = MODEL) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file with the tensors whose names begin with ``prefix``, which their keys lack.

    The tensors come as a store reads them. NotFound if none begins so.
    """
    types = {name: type for name, type in manifest.tensors.items() if name.startswith(prefix)}
    if not types:
        raise NotFound(f"the checkpoint of step {manifest.step} has no tensor whose name begins with {prefix!r}")
    entries = layout({name.removeprefix(prefix): type for name, type in types.items()})
    yield format.write_header(entries, {"format": "pt", "step": str(manifest.step)})
    for name, _, data in tensors:
        if name in types:
            yield data


def weights_from(data: memoryview, *, prefix: str = MODEL) -> list[Named]:
    """The tensors of a safetensors file, named as in a checkpoint. DataCorrupt if it is none.

    DTypeError for elements that telegrad has not (complex numbers, 8-bit floats).
    """
    length = format.header_length(bytes(data[:8]), len(data), "the file")
    entries, _ = format.read_header(bytes(data[8 : 8 + length]), len(data) - 8 - length, "the file")
    elements = data[8 + length :]
    return [
        (prefix + name, Type(entry.shape, from_numpy_dtype(entry.dtype)), elements[entry.start : entry.stop])
        for name, entry in entries.items()
    ]
