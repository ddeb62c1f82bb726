"""Ops on single numbers in float64 by the library: what an optimiser computes for each parameter beside its update.

All are rounded as IEEE 754 says, so they have NumPy's bits, but powers, which are within an ulp of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from telegrad.ir.op import Op
from telegrad.ir.types import Type, float32, float64
from telegrad.ops.elementwise import Cast

from telegrad_server.executors.driver import KernelCall, Layout
from telegrad_server.executors.library import Library


class Number(ctypes.Structure):
    """``struct tg_number``: one or two operands, and the result."""

    _fields_ = (("x", ctypes.c_void_p), ("y", ctypes.c_void_p), ("out", ctypes.c_void_p))


def number_calls(op: Op, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """The call of an op on single numbers; none for other dtypes and for more numbers than one."""
    (out,) = results
    if out.size != 1 or any(type.dtype is not float64 for type, _ in operands):
        return []
    name = out.dtype.name if isinstance(op, Cast) else op.name
    if out.dtype is not float64 and (out.dtype is not float32 or not isinstance(op, Cast)):
        return []
    places = (*(Number.x.offset, Number.y.offset)[: len(operands)], Number.out.offset)
    kernel = library.address(f"tg_number_{name}")
    return [KernelCall(kernel, Number(), 1, is_serial=True, pointers=tuple(enumerate(places)))]
