"""Pooling and sums for each channel as kernels of the library: which ops and types have one, and its arguments.

The gradient of max-pooling goes by the numbers of elements. Kernels do not check those, so an op that picks elements
has a kernel only where its numbers are those of `WindowArgmax` of an input of the same size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import ClassVar

from telegrad.ir.op import Op
from telegrad.ir.types import Shape, Type, float32, product
from telegrad.ops.index import AddAlong, TakeAlong
from telegrad.ops.pooling import WindowArgmax
from telegrad.ops.reduce import Sum

from telegrad_server.compiler.layout import contiguous_strides
from telegrad_server.compiler.plan import Plan, Step
from telegrad_server.executors.driver import KernelCall, Layout
from telegrad_server.executors.library import Library

POINTER = ctypes.sizeof(ctypes.c_void_p)


class Windows(ctypes.Structure):
    """``struct tg_windows``."""

    _fields_: ClassVar = [
        ("x", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        *[(name, ctypes.c_long) for name in ("planes", "height", "width", "rows", "columns")],
        *[(f"{name}_{axis}", ctypes.c_long) for name in ("kernel", "stride", "before", "dilation") for axis in "yx"],
    ]


class Along(ctypes.Structure):
    """``struct tg_along``."""

    _fields_: ClassVar = [
        *[(name, ctypes.c_void_p) for name in ("x", "index", "out")],
        *[(name, ctypes.c_long) for name in ("rows", "wide", "count")],
    ]


class Channels(ctypes.Structure):
    """``struct tg_channels``."""

    _fields_: ClassVar = [
        ("x", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        *[(name, ctypes.c_long) for name in ("outer", "channels", "inner")],
    ]


def window_calls(op: Op, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """The call of `WindowArgmax` over one or two axes."""
    (x, _), (out,) = operands[0], results
    if not isinstance(op, WindowArgmax) or not _are_plain(operands) or x.ndim > 4 or out.size == 0:
        return []
    planes = product(x.shape[:2])
    arguments = Windows(
        None, None, planes, *_two(x.shape[2:]), *_two(out.shape[2:]), *_two(op.kernel), *_two(op.stride),
        *_two(op.before, 0), *_two(op.dilation),
    )  # fmt: skip
    return [_call(library, "tg_window_argmax", arguments, planes, 2)]


def along_calls(op: Op, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """The call of an op for which `picks_from_windows`."""
    (x, _), (index, _) = operands
    (out,) = results
    if not _are_plain(operands[:1]) or not _is_contiguous(operands[1]) or out.size == 0 or index.size == 0:
        return []
    rows, wide = product(index.shape[:-1]), (x if isinstance(op, TakeAlong) else out).shape[-1]
    name = "tg_take_along" if isinstance(op, TakeAlong) else "tg_add_along"
    return [_call(library, name, Along(None, None, None, rows, wide, index.shape[-1]), rows, 3)]


def picks_from_windows(plan: Plan, step: Step) -> bool:
    """Whether a step picks elements along the last axis by numbers that `WindowArgmax` has found in rows as long."""
    op, slots = step.op, plan.slots
    if not isinstance(op, TakeAlong | AddAlong):
        return False
    index = slots[step.inputs[1]]
    x, out = slots[step.inputs[0]].type.shape, slots[step.outputs[0]].type.shape
    wide = x if isinstance(op, TakeAlong) else out
    if op.axis != len(wide) - 1 or index.type.dtype.name != "int64":
        return False
    return any(
        isinstance(made.op, WindowArgmax) and product(slots[made.inputs[0]].type.shape[2:]) == wide[-1]
        for made in plan.steps
        if index.base in made.outputs
    )


def sum_calls(op: Op, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """The call of a sum over all axes but neighbours in the middle."""
    (x, _), (out,) = operands[0], results
    if not isinstance(op, Sum) or not _are_plain(operands) or out.size == 0 or x.size == 0:
        return []
    kept = [a for a in range(x.ndim) if a not in op.axes]
    if not kept or kept[-1] - kept[0] != len(kept) - 1 or kept[0] == 0 or kept[-1] == x.ndim - 1:
        return []
    arguments = Channels(None, None, product(x.shape[: kept[0]]), out.size, product(x.shape[kept[-1] + 1 :]))
    return [_call(library, "tg_channel_sums", arguments, out.size, 2)]


def _call(library: Library, name: str, arguments: ctypes.Structure, units: int, pointers: int) -> KernelCall:
    places = tuple([(k, k * POINTER) for k in range(pointers)])
    return KernelCall(library.address(name), arguments, units, pointers=places)


def _are_plain(operands: Sequence[Layout]) -> bool:
    """Whether they are float32 in C order."""
    return all(laid[0].dtype is float32 and _is_contiguous(laid) for laid in operands)


def _is_contiguous(laid: Layout) -> bool:
    return laid[1] == contiguous_strides(laid[0].shape)


def _two(sizes: Shape, missing: int = 1) -> Shape:
    """The sizes of two axes; one axis is the last of them."""
    return sizes if len(sizes) == 2 else (missing, *sizes)
