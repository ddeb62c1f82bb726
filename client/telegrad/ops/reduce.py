"""Ops that combine elements along axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from telegrad.errors import DTypeError
from telegrad.ir.op import Op
from telegrad.ir.types import Shape, Type, normalize_axes
from telegrad.ir.value import Value
from telegrad.ops.shape import BroadcastTo, Reshape


def reduced(shape: Shape, axes: tuple[int, ...], *, keepdims: bool) -> Shape:
    """The shape after reducing the axes."""
    if keepdims:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def expanded(g: Value, x: Value, axes: tuple[int, ...]) -> Value:
    """What was reduced over ``axes`` of x (with or without keepdims), broadcast back to x's shape."""
    return BroadcastTo(x.shape)(Reshape(reduced(x.shape, axes, keepdims=True))(g))


class Reduction(Op, abstract=True):
    """The family: ``axes`` are counted from the front and sorted; the function normalises them."""

    axes: tuple[int, ...]
    keepdims: bool

    def infer(self, x: Type) -> Type:
        if normalize_axes(self.axes, x.ndim, op=self.name) != self.axes:
            raise DTypeError(f"{self.name}: axes {self.axes} must be sorted and counted from the front")
        return Type(reduced(x.shape, self.axes, keepdims=self.keepdims), x.dtype)


@dataclass(frozen=True)
class Sum(Reduction):
    """The sum over axes, in x's dtype (16-bit floats are added up in float32)."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (expanded(g, x, self.axes),)

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.sum(x, axis=self.axes, keepdims=self.keepdims)
