"""The safetensors format: which bytes of a file are which tensor. Sans I/O, and strict with what it is given.

A file is the header's length as a little-endian uint64, the header as JSON, and the elements of one tensor after the
other, little-endian in C order. A header comes from anywhere, so all of it is checked before any of it is used: the
tensors must cover the data exactly, without a hole and without a byte that two of them share.
https://huggingface.co/docs/safetensors (format)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ml_dtypes
import numpy as np

from telegrad.errors import DataCorrupt, DTypeError, GraphError

LARGEST_HEADER = 100_000_000
"""Bytes; what the format allows."""

# In the order in which the reference implementation writes them: by size, so that each begins on a multiple of it.
_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F32": np.dtype(np.float32),
    "C64": np.dtype(np.complex64),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ORDER = {dtype: place for place, dtype in enumerate(_DTYPES.values())}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its type, and where its bytes are, counted from the end of the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


def layout(tensors: Mapping[str, tuple[np.dtype[Any], Sequence[int]]]) -> dict[str, Entry]:
    """Where tensors of these dtypes and shapes stand, in the order in which they are written.

    DTypeError for elements that the format does not know, GraphError for a name that it keeps for itself.
    """
    for name, (dtype, _) in tensors.items():
        if name == "__metadata__":
            raise GraphError("safetensors: no tensor may be called '__metadata__'; rename it")
        if dtype.newbyteorder("=") not in _NAMES:
            raise DTypeError(f"safetensors: {name} has elements of {dtype}; the format knows {', '.join(_DTYPES)}")
    entries: dict[str, Entry] = {}
    start = 0
    for name in sorted(tensors, key=lambda n: (-_ORDER[tensors[n][0].newbyteorder("=")], n)):
        dtype, shape = tensors[name][0].newbyteorder("="), tuple(int(n) for n in tensors[name][1])
        stop = start + math.prod(shape) * dtype.itemsize
        entries[name] = Entry(dtype, shape, start, stop)
        start = stop
    return entries


def write_header(entries: Mapping[str, Entry], metadata: Mapping[str, str] | None = None) -> bytes:
    """The length and the header, filled with spaces to a multiple of eight bytes."""
    fields: dict[str, Any] = {}
    if metadata is not None:
        if not all(isinstance(x, str) for pair in metadata.items() for x in pair):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise GraphError("safetensors: metadata maps strings to strings; turn other values into strings")
        fields["__metadata__"] = dict(metadata)
    for name, entry in entries.items():
        fields[name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.stop],
        }
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise GraphError(f"safetensors: a header of {len(text)} bytes is over {LARGEST_HEADER}; use several files")
    return len(text).to_bytes(8, "little") + text


def header_length(first: bytes, size: int, source: str) -> int:
    """The length of the header, from the first eight bytes of a file of ``size`` bytes."""
    if len(first) < 8:
        raise _corrupt(source, f"it has {len(first)} bytes, and eight say how long the header is")
    length = int.from_bytes(first, "little")
    if length > LARGEST_HEADER:
        raise _corrupt(source, f"its header would have {length} bytes, over {LARGEST_HEADER}")
    if 8 + length > size:
        raise _corrupt(source, f"its header has {length} bytes, the file {size}: it was cut off, or is something else")
    return length


def read_header(text: bytes, data_bytes: int, source: str) -> tuple[dict[str, Entry], dict[str, str]]:
    """(the tensors by name, the metadata), once everything in the header fits ``data_bytes`` bytes of elements.

    DataCorrupt, naming ``source`` and what is wrong with it, unless the format allows it to the letter.
    """
    if not text.startswith(b"{"):
        raise _corrupt(source, "its header does not begin with {")
    try:
        fields = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _corrupt(source, f"its header is no JSON: {error}") from None
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in cast("dict[str, Any]", metadata).values()):
        raise _corrupt(source, "its __metadata__ does not map strings to strings")
    entries = {name: _entry(name, fields[name], source) for name in fields}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            what = "shares bytes with another tensor" if entry.start < end else "leaves a hole before it"
            raise _corrupt(source, f"tensor {name!r} begins at byte {entry.start}, where {end} is next: it {what}")
        end = entry.stop
    if end != data_bytes:
        raise _corrupt(source, f"its tensors take {end} bytes, and {data_bytes} are there")
    return entries, cast("dict[str, str]", metadata)


def _entry(name: str, field: Any, source: str) -> Entry:
    if not isinstance(field, dict) or cast("dict[str, Any]", field).keys() != {"dtype", "shape", "data_offsets"}:
        raise _corrupt(source, f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype = _DTYPES.get(field["dtype"]) if isinstance(field["dtype"], str) else None
    if dtype is None:
        raise _corrupt(source, f"tensor {name!r} has the unknown dtype {field['dtype']!r}")
    shape, offsets = _naturals(field["shape"]), _naturals(field["data_offsets"])
    if shape is None or offsets is None or len(offsets) != 2 or len(shape) > 64:
        raise _corrupt(source, f"tensor {name!r} has a shape or offsets that are no list of natural numbers")
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize >= 2**63:  # an empty one may have such axes beside the 0
        raise _corrupt(source, f"tensor {name!r} has the shape {list(shape)}, which no array can have")
    start, stop = offsets
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise _corrupt(source, f"tensor {name!r} of {field['dtype']} {list(shape)} has {stop - start} bytes")
    return Entry(dtype, shape, start, stop)


def _naturals(field: Any) -> tuple[int, ...] | None:
    """The list as natural numbers below 2**63, or None."""
    if not isinstance(field, list):
        return None
    numbers = cast("list[Any]", field)
    is_natural = all(type(n) is int and 0 <= n < 2**63 for n in numbers)
    return tuple(numbers) if is_natural else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r} stands there twice")
        found[name] = value
    return found


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _corrupt(source: str, what: str) -> DataCorrupt:
    return DataCorrupt(f"{source} is no safetensors file: {what}", source=source)
