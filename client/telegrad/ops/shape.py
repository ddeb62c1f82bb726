"""Ops that move elements and compute nothing: reshape, broadcast, permute, join, pad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from telegrad.errors import ShapeError
from telegrad.ir.op import Op
from telegrad.ir.types import Shape, Type, broadcast_shapes, check_shape, product
from telegrad.ir.value import Value


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in C order under another shape (without -1: the function resolves it)."""

    shape: Shape

    is_view = True

    def infer(self, x: Type) -> Type:
        shape = check_shape(self.shape, op="reshape")
        if product(shape) != x.size:
            raise ShapeError(f"reshape({x}) to {list(shape)}: {x.size} elements do not make {product(shape)}")
        return Type(shape, x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (Reshape(x.shape)(g),)

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.reshape(x, self.shape)


@dataclass(frozen=True)
class BroadcastTo(Op):
    """x repeated along axes of size 1, and along new axes in front."""

    shape: Shape

    is_view = True

    def infer(self, x: Type) -> Type:
        shape = check_shape(self.shape, op="broadcast_to")
        if broadcast_shapes(x.shape, shape, op="broadcast_to") != shape:
            raise ShapeError(f"broadcast_to({x}): does not broadcast to {list(shape)}")
        return Type(shape, x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g,)  # autodiff sums over what was broadcast

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.broadcast_to(x, self.shape)
