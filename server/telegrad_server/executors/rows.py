"""Rows of a table picked by number, and added up by number, as kernels of the library.

Kernels do not check numbers: `Program` has done so before it calls one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from telegrad.ir.op import Op
from telegrad.ir.types import Type, float32, int32, int64, product
from telegrad.ops.index import Gather, ScatterAdd

from telegrad_server.compiler.layout import Strides, contiguous_strides
from telegrad_server.executors.driver import KernelCall, Layout
from telegrad_server.executors.library import Library

UNIT_BYTES = 32 * 1024
"""A unit of rows that are picked."""

MOST_UNITS = 16
"""Of rows that are added up: each goes through all numbers."""

LEAST_ELEMENTS = 4096
"""That a unit of rows that are added up reads or writes, where there are as many."""


class Rows(ctypes.Structure):
    """``struct tg_rows``."""

    _fields_: ClassVar = [
        *[(name, ctypes.c_void_p) for name in ("from_", "index", "to", "offset")],
        *[(name, ctypes.c_long) for name in ("count", "is_wide", "rows", "bytes", "step", "unit")],
    ]


def pick_calls(op: Op, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """The call of a `Gather` from a table of any dtype whose rows lie together; none for other indices and tables."""
    (x, strides), index = operands
    (out,) = results
    if not isinstance(op, Gather) or not _is_list(index) or not _are_together(x.shape[1:], strides[1:]) or not out.size:
        return []
    size = out.dtype.itemsize
    nbytes, count = product(x.shape[1:]) * size, index[0].size
    unit = max(1, UNIT_BYTES // nbytes)
    arguments = Rows(
        None, None, None, None, count, index[0].dtype is int64, x.shape[0], nbytes, strides[0] * size, unit
    )
    return [KernelCall(library.address("tg_pick_rows"), arguments, -(-count // unit), pointers=_POINTERS)]


def add_calls(op: Op, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """The call of a `ScatterAdd` of float32 rows that lie together each; none for other ones."""
    (x, strides), index = operands
    (out,) = results
    lead = index[0].ndim
    if not isinstance(op, ScatterAdd) or x.dtype is not float32 or not _is_list(index) or not out.size:
        return []
    if not _are_together(x.shape[lead:], strides[lead:]):
        return []
    units = max(1, min(MOST_UNITS, op.rows, max(x.size, out.size) // LEAST_ELEMENTS))
    unit = -(-op.rows // units)
    offsets = _offsets(x.shape[:lead], strides[:lead])
    nbytes = product(out.shape[1:]) * float32.itemsize
    arguments = Rows(
        None, None, None, offsets.ctypes.data, index[0].size, index[0].dtype is int64, op.rows, nbytes, 0, unit
    )
    kernel = library.address("tg_add_rows")
    return [KernelCall(kernel, arguments, -(-op.rows // unit), pointers=_POINTERS, memory=(offsets,))]


_POINTERS = ((0, Rows.from_.offset), (1, Rows.index.offset), (2, Rows.to.offset))


def _is_list(index: Layout) -> bool:
    """Whether the numbers are of a type that kernels read, and lie in C order."""
    type, strides = index
    return type.dtype in (int32, int64) and strides == contiguous_strides(type.shape) and type.size < 2**31


def _are_together(shape: tuple[int, ...], strides: Strides) -> bool:
    own = contiguous_strides(shape)
    return all(size == 1 or a == b for size, a, b in zip(shape, strides, own, strict=True))


def _offsets(shape: tuple[int, ...], strides: Strides) -> np.ndarray:
    """Bytes from the first row to each."""
    found = np.zeros((), np.int64)
    for size, stride in zip(shape, strides, strict=True):
        found = found[..., None] + np.arange(size) * stride * float32.itemsize
    return np.ascontiguousarray(found).reshape(-1)
