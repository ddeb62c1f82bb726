"""Copies by the library: rows of bytes from one place to another."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from telegrad.ir.types import Type, product
from telegrad.ops.shape import Concat

from telegrad_server.compiler.layout import is_contiguous
from telegrad_server.compiler.trips import UNIT_ROWS
from telegrad_server.executors.driver import KernelCall, Layout
from telegrad_server.executors.library import Library


class Copy(ctypes.Structure):
    """``struct tg_copy_rows``."""

    _fields_ = (
        ("from_", ctypes.c_void_p),
        ("to", ctypes.c_void_p),
        *[(name, ctypes.c_long) for name in ("rows", "bytes", "from_row", "to_row", "begin", "unit")],
    )


SHARED_BYTES = 256 * 1024
"""Results from this size on are copied by all threads: below it they would wait longer for each other."""


def copy_call(library: Library, nbytes: int, *, rows: int = 0) -> KernelCall:
    """The call that copies so many bytes from the first place to the second, in a trip that is cut by so many rows."""
    pointers = ((0, Copy.from_.offset), (1, Copy.to.offset))
    kernel, row = library.address("tg_copy_rows"), nbytes // (rows or 1)
    by_rows = library.address("tg_copy_units") if rows else 0
    arguments = Copy(0, 0, rows or 1, row, row, row, 0, UNIT_ROWS)
    return KernelCall(kernel, arguments, rows or 1, True, pointers, by_rows=by_rows)


def concat_calls(op: Concat, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """A call for each operand that has elements; none if NumPy must do it."""
    (out,) = results
    if not all(is_contiguous(type.shape, strides) for type, strides in operands):
        return []
    rows, row, begin = product(out.shape[: op.axis]), product(out.shape[op.axis :]) * out.dtype.itemsize, 0
    calls: list[KernelCall] = []
    by_rows = library.address("tg_copy_units") if op.axis else 0
    unit = UNIT_ROWS * product(out.shape[1 : op.axis])
    for number, (type, _) in enumerate(operands):
        nbytes = product(type.shape[op.axis :]) * out.dtype.itemsize
        if type.size:
            arguments = Copy(0, 0, rows, nbytes, nbytes, row, begin, unit)
            pointers = ((number, Copy.from_.offset), (len(operands), Copy.to.offset))
            is_serial = out.nbytes < SHARED_BYTES
            kernel = library.address("tg_copy_rows")
            calls.append(KernelCall(kernel, arguments, rows, is_serial, pointers, by_rows=by_rows))
        begin += nbytes
    return calls
