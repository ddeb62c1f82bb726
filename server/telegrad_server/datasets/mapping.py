"""Columns in files as others write them, mapped: npy, npz, safetensors, text. Nothing in them is ever unpickled."""

from __future__ import annotations

import ast
import math
import mmap
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from telegrad.errors import DataCorrupt, DTypeError
from telegrad.wire import safetensors
from telegrad.wire.arrays import from_numpy_dtype

from telegrad_server.datasets.dataset import Array
from telegrad_server.datasets.disk import storage
from telegrad_server.datasets.roots import Root

HEADER_BYTES = 16 << 10
_STORED_NAME = 30  # bytes of a local header of zip before the name


def npy_columns(path: Path) -> Mapping[str, Array]:
    """The one column ``x`` of an npy file."""
    return columns_of(path.name, {"x": _npy(map_file(path), path.name)})


def npz_columns(path: Path, cache: Path) -> Mapping[str, Array]:
    """The arrays of an npz file by name; those that are compressed are unpacked into ``cache`` once."""
    data = map_file(path)
    found: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for number, info in enumerate(archive.infolist()):
                source = f"{path.name}/{info.filename}"
                if info.flag_bits & 1:
                    raise DataCorrupt(f"{source} is encrypted")
                if info.compress_type == zipfile.ZIP_STORED:
                    member = _stored(data, info, source)
                else:
                    member = map_file(_unpacked(archive, info, cache / str(number)))
                found[info.filename.removesuffix(".npy")] = _npy(member, source)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise DataCorrupt(f"{path.name} is no npz file: {error}") from None
    return columns_of(path.name, found)


def _stored(data: Array, info: zipfile.ZipInfo, source: str) -> Array:
    """The bytes of a member that is not compressed, where they are."""
    header = bytes(data[info.header_offset : info.header_offset + _STORED_NAME])
    start = info.header_offset + _STORED_NAME
    start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    member = data[start : start + info.file_size]
    if header[:4] != b"PK\x03\x04" or len(member) != info.file_size:
        raise DataCorrupt(f"{source} is not where the file's directory says it is")
    return member


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: Path) -> Path:
    if not place.exists():
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.{os.getpid()}.new")
        with storage(place.parent), archive.open(info) as source, open(part, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        os.replace(part, place)
    return place


def safetensors_columns(path: Path) -> Mapping[str, Array]:
    """The tensors of a safetensors file by name."""
    data = map_file(path)
    length = safetensors.header_length(bytes(data[:8]), len(data), path.name)
    elements = data[8 + length :]
    entries, _ = safetensors.read_header(bytes(data[8 : 8 + length]), len(elements), path.name)
    return columns_of(
        path.name,
        {name: _array(elements[e.start : e.stop], e.dtype.newbyteorder("<"), e.shape) for name, e in entries.items()},
    )


def text_columns(root: Root) -> Mapping[str, Array]:
    """The column ``tokens`` of a text: windows of its bytes, each ``stride`` bytes after the one before."""
    window = root.number("window", 256)
    stride = root.number("stride", window)
    data = map_file(root.path)
    if len(data) < window:
        raise DataCorrupt(f"{root.path.name} has {len(data)} bytes, fewer than a window of {window}")
    return {"tokens": np.lib.stride_tricks.sliding_window_view(data, window)[::stride]}


def map_file(path: Path) -> Array:
    """A file's bytes, mapped."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def columns_of(source: str, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    """The arrays. DataCorrupt unless their first axes are equal, DTypeError for elements that are not offered."""
    rows = {name: array.shape[0] if array.shape else None for name, array in arrays.items()}
    if len(set(rows.values())) != 1 or None in rows.values():
        raise DataCorrupt(f"{source} holds no columns with equal first axes, but arrays with these: {rows}")
    for name, array in arrays.items():
        try:
            from_numpy_dtype(array.dtype)
        except DTypeError as error:
            raise DTypeError(f"column {name!r} of {source}: {error.message}") from None
    return arrays


def _npy(data: Array, source: str) -> Array:
    """The array in the bytes of an npy file. DataCorrupt; DTypeError for what is no number, as Python's objects."""
    start, fields = _npy_header(bytes(data[:HEADER_BYTES]), source)
    descr, is_fortran, shape = (fields.get(key) for key in ("descr", "fortran_order", "shape"))
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**63 for n in cast("tuple[Any]", shape)):
        raise DataCorrupt(f"{source} has the shape {shape!r:.80}, which no array can have")
    try:
        dtype = np.dtype(descr if isinstance(descr, str) else None)
    except (TypeError, ValueError, SyntaxError):
        raise DataCorrupt(f"{source} has elements of {descr!r:.80}, which NumPy does not know") from None
    if not isinstance(descr, str) or dtype.hasobject or dtype.fields is not None:
        raise DTypeError(f"{source} holds {descr!r:.80}, which is no array of numbers; save it as numbers")
    size = cast("tuple[int, ...]", shape)
    if math.prod(size) * dtype.itemsize != len(data) - start:
        raise DataCorrupt(f"{source} says that it has {dtype} {list(size)}, and has another number of bytes")
    return _array(data[start:], dtype, size, order="F" if is_fortran is True else "C")


def _npy_header(head: bytes, source: str) -> tuple[int, dict[str, object]]:
    """Where the elements begin, and what they are. numpy.lib.format has a reader, which guesses where it should refuse.

    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    width = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(head[:8])
    if width is None:
        raise DataCorrupt(f"{source} is no npy file of a version that is read here (1.0 or 2.0)")
    start = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    try:
        if start > len(head):
            raise ValueError("it is cut off, or over 16 KiB")
        fields = ast.literal_eval(head[8 + width : start].decode("latin1"))
        if not isinstance(fields, dict):
            raise ValueError("it is no dictionary")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:  # literal_eval's
        raise DataCorrupt(f"{source} has a header that cannot be read: {error}") from None
    return start, cast("dict[str, object]", fields)


def _array(data: Array, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any = "C") -> Array:
    return np.ndarray(shape, dtype, buffer=data, order=order) if data.size else np.empty(shape, dtype)
