"""Products of matrices by the library: float32, operands in any layout, stacks of matrices broadcast."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import pairwise

from telegrad.ir.op import Op
from telegrad.ir.types import Shape, Type, float32, product

from telegrad_server.compiler.layout import Strides
from telegrad_server.executors.driver import KernelCall, Layout
from telegrad_server.executors.library import Library
from telegrad_server.executors.recycle import aligned_bytes


class Gemm(ctypes.Structure):
    """``struct tg_gemm``: one product; strides in floats."""

    _fields_ = (
        *[(name, ctypes.c_void_p) for name in ("a", "b", "c")],
        *[
            (name, ctypes.c_long)
            for name in ("m", "n", "k", "a_row", "a_inner", "b_inner", "b_column", "c_row", "accumulate")
        ],
    )


class Matmul(ctypes.Structure):
    """``struct tg_matmul``: a product for each matrix of a batch."""

    _fields_ = (
        ("one", Gemm),
        ("batch", ctypes.c_long),
        *[(name, ctypes.c_void_p) for name in ("a_offset", "b_offset", "c_offset")],
    )


class Packed(ctypes.Structure):
    """``struct tg_packed``: a product whose right operand is packed from elsewhere."""

    _fields_ = (("one", Gemm), ("from_", ctypes.c_void_p))


def matmul_calls(op: Op, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """The call of a product; none for other dtypes, and where there is nothing to do."""
    (x, x_strides), (y, y_strides) = operands
    (out,) = results
    if x.dtype is not float32 or out.size == 0:
        return []
    *lead, m, n = out.shape
    batch = product(lead)
    if product(y.shape[:-2]) == 1 and _is_one_run(x.shape[:-1], x_strides[:-1]):
        m, batch = m * batch, 1  # the rows of all matrices are those of one
    one = Gemm(0, 0, 0, m, n, x.shape[-1], *x_strides[-2:], *y_strides[-2:], n, 0)
    offsets = [
        (ctypes.c_long * batch)(*_offsets(tuple(lead), shape[:-2], strides))
        for shape, strides in (
            (x.shape, x_strides[:-2]),
            (y.shape, y_strides[:-2]),
            (out.shape, _steps(tuple(lead), m * n)),
        )
        if batch > 1
    ]
    arguments = Matmul(one, batch, *[ctypes.addressof(array) for array in offsets])
    units = library.count("tg_matmul_units", m, n, batch)
    by_rows = library.address("tg_matmul_by_rows") if len(out.shape) == 2 else 0
    kernel, memory = library.address("tg_matmul"), tuple(offsets)
    return [KernelCall(kernel, arguments, units, pointers=_POINTERS, memory=memory, by_rows=by_rows)]


def packed_calls(library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """The calls of a product in a loop whose right operand is the same in all trips: one that packs it, once, and one
    for each trip. None where `matmul_calls` must do it."""
    (x, x_strides), (_, y_strides) = operands
    (out,) = results
    if x.dtype is not float32 or out.size == 0 or len(out.shape) != 2:
        return []
    (m, n), k = out.shape, x.shape[-1]
    memory = aligned_bytes(4 * library.count("tg_packed_floats", n, k))
    one = Gemm(0, memory.ctypes.data, 0, m, n, k, *x_strides, *y_strides, n, 0)
    pack, units = library.address("tg_pack"), library.count("tg_pack_units", n)
    right = ((1, Packed.from_.offset),)
    first = KernelCall(pack, Packed(one, 0), units, pointers=right, memory=(memory,), is_once=True)
    kernel, units = library.address("tg_packed_columns"), library.count("tg_packed_units", n)
    by_rows = library.address("tg_packed_rows")
    pointers = (_POINTERS[0], _POINTERS[2])
    return [first, KernelCall(kernel, Packed(one, 0), units, pointers=pointers, memory=(memory,), by_rows=by_rows)]


_POINTERS = tuple([(k, k * ctypes.sizeof(ctypes.c_void_p)) for k in range(3)])
"""Where the operands and the result of a product are in its arguments."""


def _is_one_run(shape: Shape, strides: Strides) -> bool:
    """Whether one stride goes through all the axes."""
    real = [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]
    return all(outer[1] == inner[0] * inner[1] for outer, inner in pairwise(real)) and (not real or shape[-1] != 1)


def _steps(shape: Shape, size: int) -> Strides:
    """The strides of blocks of so many elements in C order."""
    return tuple([size * product(shape[axis + 1 :]) for axis in range(len(shape))])


def _offsets(lead: Shape, shape: Shape, strides: Strides) -> list[int]:
    """Where the matrix for each index of ``lead`` begins, broadcast from ``shape``."""
    found = [0]
    missing = len(lead) - len(shape)
    for axis, size in enumerate(lead):
        is_same = axis < missing or shape[axis - missing] == 1
        step = 0 if is_same else strides[axis - missing]
        found = [offset + i * step for offset in found for i in range(size)]
    return found
