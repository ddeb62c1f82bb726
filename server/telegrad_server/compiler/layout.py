"""Where a view's elements lie in its base: strides, computed from types as NumPy and CuPy compute them.

A plan must know before anything runs which op gives a view and which copies, for a view keeps its base alive
and a copy does not. Strides count elements, not bytes. ``None`` stands for a view whose strides are not known
here: it keeps its base alive and is taken for not contiguous.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from telegrad.ir.op import Op
from telegrad.ir.types import Shape, Type
from telegrad.ops.control import Alias, Barrier, StopGradient
from telegrad.ops.replicas import AllReduce
from telegrad.ops.shape import BroadcastTo, Flip, Permute, Reshape
from telegrad.ops.slices import Slice

from telegrad_server.compiler.collective import FinishAllReduce, FinishGather

Strides = tuple[int, ...]

_SAME = (Alias, AllReduce, Barrier, StopGradient, FinishAllReduce, FinishGather)


@lru_cache(maxsize=4096)
def contiguous_strides(shape: Shape) -> Strides:
    """The strides of an array in C order."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def is_contiguous(shape: Shape, strides: Strides | None) -> bool:
    """Whether the elements lie in C order without gaps; strides along axes of size 1 do not count."""
    if strides is None:
        return False
    if 0 in shape:
        return True
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def view_strides(op: Op, x: Type, strides: Strides | None, out: Type) -> Strides | Literal["copy"] | None:
    """The strides of a view op's result, ``x`` being laid out by ``strides``; "copy" if it copies, None: unknown."""
    if isinstance(op, Reshape):
        return _reshaped(x.shape, strides, out.shape)
    if strides is None or isinstance(op, _SAME):
        return strides
    if isinstance(op, BroadcastTo):
        lead = out.ndim - x.ndim
        return tuple(
            0 if axis < lead or (x.shape[axis - lead] == 1 and size != 1) else strides[axis - lead]
            for axis, size in enumerate(out.shape)
        )
    if isinstance(op, Permute):
        return tuple(strides[axis] for axis in op.axes)
    if isinstance(op, Flip | Slice) and not x.shape:
        return "copy"  # NumPy makes a number of a 0-d array there, not a view
    if isinstance(op, Flip):
        return tuple(-stride if axis in op.axes else stride for axis, stride in enumerate(strides))
    if isinstance(op, Slice):
        return tuple(stride * step for stride, step in zip(strides, op.step, strict=True))
    return None


def _reshaped(shape: Shape, strides: Strides | None, wanted: Shape) -> Strides | Literal["copy"]:
    """What `LibraryModule.reshape` does: a view of what is contiguous, of copies of one element, and where only axes
    of size 1 come and go; else a copy."""
    if is_contiguous(shape, strides):
        return contiguous_strides(wanted)
    if strides is None:
        return "copy"
    real = [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]
    if not any(stride for _, stride in real):
        return (0,) * len(wanted)
    if [size for size, _ in real] != [size for size in wanted if size != 1]:
        return "copy"
    rest = iter(real)
    return tuple(0 if size == 1 else next(rest)[1] for size in wanted)
