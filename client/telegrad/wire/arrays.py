"""Element types and NumPy dtypes, and arrays as raw little-endian bytes."""

from __future__ import annotations

import sys
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from telegrad.errors import DataCorrupt, DTypeError
from telegrad.ir import types as t
from telegrad.ir.types import DType, Type

Array = npt.NDArray[Any]

_TO_NUMPY: dict[DType, np.dtype[Any]] = {
    d: np.dtype(ml_dtypes.bfloat16) if d is t.bfloat16 else np.dtype(d.name) for d in t.DTYPES
}
_FROM_NUMPY: dict[np.dtype[Any], DType] = {v: k for k, v in _TO_NUMPY.items()}


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """The NumPy dtype with the same elements, in native byte order."""
    return _TO_NUMPY[dtype]


def from_numpy_dtype(dtype: np.dtype[Any]) -> DType:
    """The DType of a NumPy dtype; DTypeError for those that are not offered (complex, object, string, …)."""
    found = _FROM_NUMPY.get(dtype) or _FROM_NUMPY.get(dtype.newbyteorder("="))
    if found is None:
        names = ", ".join(d.name for d in t.DTYPES)
        raise DTypeError(f"NumPy dtype {dtype} is not offered; use one of {names}")
    return found


def type_of(array: Array) -> Type:
    """The type of a NumPy array."""
    return Type(tuple(array.shape), from_numpy_dtype(array.dtype))


def array_bytes(array: Array) -> memoryview:
    """The elements in C order, little-endian; a view of the array's own memory where it has that form."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    if sys.byteorder == "big":
        array = array.byteswap()
    return array.reshape(-1).view(np.uint8).data


def array_from(type: Type, data: bytes | bytearray | memoryview) -> Array:
    """The array of this type over ``data``, without a copy; DataCorrupt if the number of bytes is wrong."""
    if len(data) != type.nbytes:
        raise DataCorrupt(
            f"{type} takes {type.nbytes} bytes, got {len(data)}",
            reason="DATA_LENGTH",
            expected=type.nbytes,
            found=len(data),
        )
    array = np.frombuffer(data, dtype=np.uint8).view(_TO_NUMPY[type.dtype])
    if sys.byteorder == "big":
        array = array.byteswap()
    return array.reshape(type.shape)
