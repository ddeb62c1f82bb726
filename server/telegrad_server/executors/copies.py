"""Copies by the library, of any dtype and layout: joined arrays, arrays among zeros, and those put in C order."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import ClassVar

from telegrad.ir.op import Op
from telegrad.ir.types import Shape, Type, product
from telegrad.ops.shape import Concat, Pad, Reshape
from telegrad.ops.slices import Unslice

from telegrad_server.compiler.layout import Strides, contiguous_strides, is_contiguous
from telegrad_server.compiler.trips import UNIT_ROWS
from telegrad_server.executors.driver import KernelCall, Layout
from telegrad_server.executors.library import Library


class Copy(ctypes.Structure):
    """``struct tg_copy_rows``."""

    _fields_: ClassVar = [
        ("from_", ctypes.c_void_p),
        ("to", ctypes.c_void_p),
        *[(name, ctypes.c_long) for name in ("rows", "bytes", "from_row", "to_row", "begin", "unit")],
    ]


AXES = 8
"""``strided.c``'s: of a copy, once those that are gone through in one go are one."""


class Strided(ctypes.Structure):
    """``struct tg_strided``."""

    _fields_: ClassVar = [
        ("from_", ctypes.c_void_p),
        ("to", ctypes.c_void_p),
        *[(name, ctypes.c_long) for name in ("begin", "bytes", "axes")],
        *[(name, ctypes.c_long * AXES) for name in ("size", "from_step", "to_step")],
        *[(name, ctypes.c_long) for name in ("lines", "unit")],
    ]


class Zeros(ctypes.Structure):
    """``struct tg_zeros``."""

    _fields_: ClassVar = [("to", ctypes.c_void_p), ("bytes", ctypes.c_long), ("unit", ctypes.c_long)]


SHARED_BYTES = 256 * 1024
"""Results from this size on are copied by all threads: below it they would wait longer for each other."""

UNIT_BYTES = 32 * 1024

LONG_RUN_BYTES = 256
"""From this length on a run is a line of its own, so that threads can share them."""


def copy_call(library: Library, nbytes: int, *, rows: int = 0) -> KernelCall:
    """The call that copies so many bytes from the first place to the second, in a trip that is cut by so many rows."""
    pointers = ((0, Copy.from_.offset), (1, Copy.to.offset))
    kernel, row = library.address("tg_copy_rows"), nbytes // (rows or 1)
    by_rows = library.address("tg_copy_units") if rows else 0
    arguments = Copy(0, 0, rows or 1, row, row, row, 0, UNIT_ROWS)
    return KernelCall(kernel, arguments, rows or 1, True, pointers, by_rows=by_rows)


def concat_calls(op: Concat, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """A call for each operand that has elements."""
    (out,) = results
    begin, to = 0, contiguous_strides(out.shape)
    calls: list[KernelCall] = []
    for number, (type, strides) in enumerate(operands):
        if is_contiguous(type.shape, strides):
            copy = _lines(library, op, type, out, begin, number, len(operands))
        else:
            copy = _copies(library, (type, strides), to, begin * to[op.axis], number, len(operands), out.nbytes)
        if type.size and not copy:
            return []
        calls += copy
        begin += type.shape[op.axis]
    return calls


def _lines(
    library: Library, op: Concat, operand: Type, out: Type, begin: int, number: int, result: int
) -> list[KernelCall]:
    """The call that copies an operand in C order behind ``begin`` elements of the axis; none if it has no elements."""
    if not operand.size:
        return []
    before, behind = out.shape[: op.axis], out.shape[op.axis + 1 :]
    item = product(behind) * out.dtype.itemsize
    nbytes, row = operand.shape[op.axis] * item, out.shape[op.axis] * item
    unit = UNIT_ROWS * product(out.shape[1 : op.axis])
    arguments = Copy(0, 0, product(before), nbytes, nbytes, row, begin * item, unit)
    pointers = ((number, Copy.from_.offset), (result, Copy.to.offset))
    by_rows = library.address("tg_copy_units") if op.axis else 0
    kernel = library.address("tg_copy_rows")
    return [KernelCall(kernel, arguments, product(before), out.nbytes < SHARED_BYTES, pointers, by_rows=by_rows)]


def among_zeros_calls(
    op: Op, library: Library, operands: Sequence[Layout], results: Sequence[Type]
) -> list[KernelCall]:
    """The calls of an `Unslice`, or of a `Pad` with zeros: zeros, and then the copy."""
    (out,) = results
    to = contiguous_strides(out.shape)
    if isinstance(op, Unslice):
        start, steps = op.start, tuple([stride * step for stride, step in zip(to, op.step, strict=True)])
    elif isinstance(op, Pad) and op.value == 0 and math.copysign(1, op.value) == 1:
        start, steps = op.before, to
    else:
        return []
    begin = sum([at * stride for at, stride in zip(start, to, strict=True)])
    units = -(-out.nbytes // UNIT_BYTES)
    zeros = KernelCall(
        library.address("tg_zeros"),
        Zeros(None, out.nbytes, UNIT_BYTES),
        units,
        out.nbytes < SHARED_BYTES,
        ((1, Zeros.to.offset),),
    )
    copy = _copies(library, operands[0], steps, begin, 0, 1, out.nbytes)
    return [zeros, *copy] if copy else []


def reshape_calls(op: Op, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """The call that puts in C order what no view of another shape can be taken of."""
    (x, _) = operands[0]
    assert isinstance(op, Reshape)
    return _copies(library, operands[0], contiguous_strides(x.shape), 0, 0, 1, x.nbytes)


def _copies(
    library: Library, operand: Layout, to: Strides, begin: int, number: int, result: int, nbytes: int
) -> list[KernelCall]:
    """The call that copies an operand to elements of the result that lie so from element ``begin`` on; none if it has
    no elements, or lies too oddly."""
    x, strides = operand
    item = x.dtype.itemsize
    axes = _joined(x.shape, strides, to)
    run = 1
    if axes[-1][1:] == (1, 1):
        run, _, _ = axes.pop()
    if not axes or run * item >= LONG_RUN_BYTES:
        axes.append((1, 0, 0))
    if not x.size or len(axes) > AXES:
        return []
    lines = product([size for size, _, _ in axes[:-1]])
    unit = max(1, UNIT_BYTES // (run * item * axes[-1][0]))
    columns = [(ctypes.c_long * AXES)(*column) for column in zip(*axes, strict=True)]
    for column in columns[1:]:
        column[:] = [step * item for step in column]
    arguments = Strided(None, None, begin * item, run * item, len(axes), *columns, lines, unit)
    pointers = ((number, Strided.from_.offset), (result, Strided.to.offset))
    kernel = library.address("tg_copy_strided")
    return [KernelCall(kernel, arguments, -(-lines // unit), nbytes < SHARED_BYTES, pointers)]


def _joined(shape: Shape, one: Strides, other: Strides) -> list[tuple[int, int, int]]:
    """The axes (size, stride, stride) without sizes of 1; neighbours are one where one stride goes through both."""
    found: list[tuple[int, int, int]] = []
    for size, a, b in zip(shape, one, other, strict=True):
        if size == 1:
            continue
        if found and found[-1][1] == a * size and found[-1][2] == b * size:
            found[-1] = (found[-1][0] * size, a, b)
        else:
            found.append((size, a, b))
    return found or [(1, 1, 1)]
