"""Saving and loading by name in safetensors files, which PyTorch, JAX and others read and write as well.

::

    from telegrad import nn, safetensors

    model = nn.Linear(3, 4)
    safetensors.save_model(model, "model.safetensors")          # or save_file(model.state_dict(), ...)
    safetensors.load_model(model, "model.safetensors")          # or model.load_state_dict(load_file(...))

The functions are those of the package safetensors, whose files are the same to the byte; it is not needed. A file
holds names, numbers and strings and no code. Arrays are NumPy's, as in `nn.Module.state_dict`, and those that are
loaded are views of the mapped file: what is not used is not read.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from telegrad.errors import GraphError
from telegrad.nn.module import Module
from telegrad.tensor import Tensor
from telegrad.wire import safetensors as format
from telegrad.wire.arrays import array_bytes, numpy_dtype
from telegrad.wire.safetensors import Entry

Array = npt.NDArray[Any]
Path = str | os.PathLike[str]

__all__ = ["load", "load_file", "load_model", "safe_open", "save", "save_file", "save_model"]


def save_file(
    tensors: Mapping[str, Tensor | npt.ArrayLike], filename: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors or arrays by name. The file is complete or, whatever happens, the one before.

    Written beside it, synced and renamed. Raises DTypeError for elements that the format does not know, OSError if the
    file cannot be written.
    """
    write_blocks(filename, _blocks(tensors, metadata))


def write_blocks(filename: Path, blocks: Iterator[bytes | memoryview]) -> None:
    """Write a file block by block, each when it comes: as `save_file`, complete or the one before."""
    path = os.fspath(filename)
    part = f"{path}.{secrets.token_hex(4)}.part"
    header = next(blocks)  # before anything is written: it refuses what cannot be saved
    try:
        with open(part, "xb") as file:
            file.write(header)
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
    _sync_folder(os.path.dirname(os.path.abspath(path)))


def save(tensors: Mapping[str, Tensor | npt.ArrayLike], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of the file that `save_file` writes."""
    return b"".join(_blocks(tensors, metadata))


def load_file(filename: Path) -> dict[str, Array]:
    """The arrays of a file by name: read-only views of the mapped file, so that what is not used is not read.

    Raises DataCorrupt, saying what is wrong, for a file that is cut off or otherwise not as it should be.
    """
    with safe_open(filename) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict, as in safetensors)


def load(data: bytes) -> dict[str, Array]:
    """The arrays in the bytes of a file by name, as read-only views."""
    length = format.header_length(data[:8], len(data), "this")
    entries, _ = format.read_header(data[8 : 8 + length], len(data) - 8 - length, "this")
    elements = np.frombuffer(data, np.uint8)[8 + length :]
    return {name: _view(elements, entry) for name, entry in entries.items()}


class safe_open:
    """An open file: the names in it, its metadata, and its arrays one by one.

    ::

        with safe_open("model.safetensors") as file:
            bias = file.get_tensor("bias") if "bias" in file.keys() else None
    """

    def __init__(self, filename: Path, framework: str = "numpy", device: str = "cpu") -> None:
        if framework not in ("np", "numpy") or device != "cpu":
            raise GraphError(f"safe_open: arrays are NumPy's, on the CPU, not {framework!r} on {device!r}")
        path = os.fspath(filename)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = format.header_length(file.read(8), size, path)
            self._entries, self._metadata = format.read_header(file.read(length), size - 8 - length, path)
            has_data = size > 8 + length
            self._data: Array = np.memmap(file, np.uint8, "r", offset=8 + length) if has_data else np.empty(0, np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._data = np.empty(0, np.uint8)  # arrays that were taken keep the mapping

    def keys(self) -> list[str]:
        """The names, in alphabetical order."""
        return sorted(self._entries)

    def metadata(self) -> dict[str, str]:
        """What was given as ``metadata`` when the file was written."""
        return dict(self._metadata)

    def get_tensor(self, name: str) -> Array:
        """The array of a name, as a read-only view of the file."""
        if name not in self._entries:
            raise GraphError(f"get_tensor: the file has no tensor {name!r}; keys() lists what it has")
        return _view(self._data, self._entries[name])


def save_model(model: Module, filename: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a model's parameters and buffers. What is in it under several names is written once.

    The metadata say which name stands for which, as safetensors.torch does it.
    """
    kept: dict[int, str] = {}
    notes = dict(metadata or {})
    tensors: dict[str, Tensor] = {}
    for name, variable in model._state():
        first = kept.setdefault(id(variable), name)
        if first == name:
            tensors[name] = variable
        else:
            notes.setdefault(name, first)
    save_file(tensors, filename, notes or None)


def load_model(model: Module, filename: Path, strict: bool = True) -> tuple[list[str], list[str]]:
    """Assign a model's parameters and buffers from a file; returns (names that it lacks, names of no use).

    A name that it lacks counts as there if what it names has another name that is. Unless ``strict`` is false,
    GraphError if a list is not empty.
    """
    return assign(model, load_file(filename), os.fspath(filename), strict)


def assign(model: Module, found: Mapping[str, Array], source: str, strict: bool) -> tuple[list[str], list[str]]:
    """What `load_model` does with the arrays of a file, which came from ``source``."""
    known = dict(model._state())
    by_variable = {id(known[name]): array for name, array in found.items() if name in known}
    state = {name: by_variable[id(v)] for name, v in known.items() if id(v) in by_variable}
    missing, unexpected = sorted(known.keys() - state.keys()), sorted(found.keys() - known.keys())
    if strict and (missing or unexpected):
        raise GraphError(f"{source} lacks {missing}, and the model has no {unexpected}; strict=False takes what fits")
    model.load_state_dict(state, strict=False)
    return missing, unexpected


def _blocks(
    tensors: Mapping[str, Tensor | npt.ArrayLike], metadata: Mapping[str, str] | None
) -> Iterator[bytes | memoryview]:
    """The header, and the elements of one tensor after the other, each fetched when it is asked for."""
    given = {name: x if isinstance(x, Tensor) else np.asarray(x) for name, x in tensors.items()}
    entries = format.layout(
        {n: (numpy_dtype(x.dtype) if isinstance(x, Tensor) else x.dtype, x.shape) for n, x in given.items()}
    )
    yield format.write_header(entries, metadata)
    for name, entry in entries.items():
        x = given[name]
        array = x.numpy() if isinstance(x, Tensor) else x.astype(entry.dtype, copy=False)
        yield array_bytes(array)


def _view(data: Array, entry: Entry) -> Array:
    array = data[entry.start : entry.stop].view(entry.dtype).reshape(entry.shape)
    if not array.flags.aligned:  # as files of other writers may have it
        array = array.copy()
        array.flags.writeable = False
    return array


def _sync_folder(folder: str) -> None:
    """Let the rename last, where a folder can be opened (not on Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
