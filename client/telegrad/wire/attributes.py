"""An op's attributes as bytes: by name, tagged, little-endian, defaults left out.

Record: u8 count, then for each attribute in the order of its fields: u8 length and UTF-8 of the name,
then a value. Value: one tag byte and its payload (see ``_encode``). Chosen over a protobuf message for
each op because millions of sub-messages amplify memory, and over JSON because floats must keep their bits.
"""

from __future__ import annotations

import struct
from typing import Any

from telegrad.errors import GraphError
from telegrad.ir.op import Op
from telegrad.ir.types import BY_CODE, DType

_NONE, _FALSE, _TRUE, _INT, _FLOAT, _STR, _DTYPE, _TUPLE, _UINT = range(9)
_MAX_DEPTH = 3


def encode_attributes(op: Op) -> bytes:
    """The op's attributes that differ from their defaults."""
    attributes = op.attributes()
    out = bytearray([len(attributes)])
    for name, value in attributes.items():
        raw = name.encode()
        out.append(len(raw))
        out += raw
        _encode(value, out)
    return bytes(out)


def _encode(value: Any, out: bytearray) -> None:
    if value is None:
        out.append(_NONE)
    elif value is False:
        out.append(_FALSE)
    elif value is True:
        out.append(_TRUE)
    elif isinstance(value, int):
        out.append(_INT if value < 2**63 else _UINT)
        out += struct.pack("<q" if value < 2**63 else "<Q", value)
    elif isinstance(value, float):
        out.append(_FLOAT)
        out += struct.pack("<d", value)
    elif isinstance(value, str):
        raw = value.encode()
        out.append(_STR)
        out += struct.pack("<H", len(raw))
        out += raw
    elif isinstance(value, DType):
        out += bytes((_DTYPE, value.code))
    elif isinstance(value, tuple):
        out.append(_TUPLE)
        out += struct.pack("<H", len(value))  # type: ignore[arg-type]
        for item in value:  # type: ignore[union-attr]
            _encode(item, out)
    else:
        raise TypeError(f"attribute {value!r} has a type that is not on the wire")


def decode_attributes(data: bytes) -> dict[str, Any]:
    """The attributes by name. Raises GraphError (ATTRIBUTE_INVALID) for anything but a whole record."""
    try:
        found: dict[str, Any] = {}
        position = 1
        for _ in range(data[0]):
            length = data[position]
            name = data[position + 1 : position + 1 + length].decode()
            if name in found or not name.isidentifier():
                raise ValueError(f"attribute name {name!r}")
            found[name], position = _decode(data, position + 1 + length, 0)
        if position != len(data):
            raise ValueError("bytes after the last attribute")
        return found
    except (IndexError, ValueError, struct.error) as error:
        raise GraphError(f"attributes are malformed: {error}", reason="ATTRIBUTE_INVALID") from error


def _decode(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    tag = data[position]
    position += 1
    if tag == _NONE:
        return None, position
    if tag in (_FALSE, _TRUE):
        return tag == _TRUE, position
    if tag == _INT:
        return struct.unpack_from("<q", data, position)[0], position + 8
    if tag == _UINT:
        return struct.unpack_from("<Q", data, position)[0], position + 8
    if tag == _FLOAT:
        return struct.unpack_from("<d", data, position)[0], position + 8
    if tag == _DTYPE:
        dtype = BY_CODE.get(data[position])
        if dtype is None:
            raise ValueError(f"dtype code {data[position]}")
        return dtype, position + 1
    if tag == _STR:
        end = position + 2 + struct.unpack_from("<H", data, position)[0]
        if end > len(data):
            raise ValueError("a string runs past the end")
        return data[position + 2 : end].decode(), end
    if tag == _TUPLE and depth < _MAX_DEPTH:
        count = struct.unpack_from("<H", data, position)[0]
        position += 2
        items: list[Any] = []
        for _ in range(count):
            item, position = _decode(data, position, depth + 1)
            items.append(item)
        return tuple(items), position
    raise ValueError(f"value tag {tag}")
