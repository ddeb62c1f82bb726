"""Copies by the library: rows of bytes from one place to another."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from telegrad.ir.types import Type, product
from telegrad.ops.shape import Concat

from telegrad_server.compiler.layout import is_contiguous
from telegrad_server.executors.driver import KernelCall, Layout
from telegrad_server.executors.library import Library


class Copy(ctypes.Structure):
    """``struct tg_copy_rows``."""

    _fields_ = (
        ("from_", ctypes.c_void_p),
        ("to", ctypes.c_void_p),
        *[(name, ctypes.c_long) for name in ("rows", "bytes", "from_row", "to_row", "begin")],
    )


SHARED_BYTES = 256 * 1024
"""Results from this size on are copied by all threads: below it they would wait longer for each other."""


def copy_call(library: Library, nbytes: int) -> KernelCall:
    """The call that copies so many bytes from the first place to the second."""
    pointers = ((0, Copy.from_.offset), (1, Copy.to.offset))
    return KernelCall(library.address("tg_copy_rows"), Copy(0, 0, 1, nbytes, 0, 0, 0), 1, True, pointers)


def concat_calls(op: Concat, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """A call for each operand that has elements; none if NumPy must do it."""
    (out,) = results
    if not all(is_contiguous(type.shape, strides) for type, strides in operands):
        return []
    rows, row, begin = product(out.shape[: op.axis]), product(out.shape[op.axis :]) * out.dtype.itemsize, 0
    calls: list[KernelCall] = []
    for number, (type, _) in enumerate(operands):
        nbytes = product(type.shape[op.axis :]) * out.dtype.itemsize
        if type.size:
            arguments = Copy(0, 0, rows, nbytes, nbytes, row, begin)
            pointers = ((number, Copy.from_.offset), (len(operands), Copy.to.offset))
            is_serial = out.nbytes < SHARED_BYTES
            calls.append(KernelCall(library.address("tg_copy_rows"), arguments, rows, is_serial, pointers))
        begin += nbytes
    return calls
