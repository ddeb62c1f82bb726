"""Softmax and its logarithm. Primitives because their gradient in terms of the result is stable."""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.errors import DTypeError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Type, normalize_axis
from telegrad.ir.value import V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops.reduce import Sum
from telegrad.ops.shape import check_axis

__all__ = ["log_softmax", "softmax"]


class Normalized(Op, abstract=True):
    """The family: along one axis, from x - max(x). 16-bit floats are computed in float32 and rounded once."""

    axis: int

    def infer(self, x: Type) -> Type:
        check_axis(self.axis, x.ndim, op=self.name)
        if not x.dtype.is_float:
            raise DTypeError(f"{self.name}({x}): takes a floating-point dtype")
        return x

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        if 0 in x.shape:
            return xp.copy(x)
        if xp.dtype_of(x).itemsize == 2:
            return xp.astype(self.eval(xp, xp.astype(x, t.float32)), xp.dtype_of(x))
        return self.of_shifted(xp, xp.subtract(x, xp.max(x, axis=(self.axis,), keepdims=True)))

    def of_shifted(self, xp: ArrayModule, x: Array) -> Array:
        """The result on x - max(x)."""
        raise NotImplementedError

    def cost(self, *types: Type) -> Cost:
        return Cost(5 * types[0].size, 2 * types[0].nbytes)


@dataclass(frozen=True)
class Softmax(Normalized):
    """exp(x) over its sum along an axis."""

    axis: int

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        p = g * out
        return (p - out * Sum((self.axis,), True)(p),)

    def of_shifted(self, xp: ArrayModule, x: Array) -> Array:
        p = xp.exp(x)
        return xp.divide(p, xp.sum(p, axis=(self.axis,), keepdims=True))


@dataclass(frozen=True)
class LogSoftmax(Normalized):
    """x - log(sum(exp(x))) along an axis."""

    axis: int

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g - e.exp(out) * Sum((self.axis,), True)(g),)

    def of_shifted(self, xp: ArrayModule, x: Array) -> Array:
        return xp.subtract(x, xp.log(xp.sum(xp.exp(x), axis=(self.axis,), keepdims=True)))


def softmax(x: V, /, *, axis: int = -1) -> V:
    """exp(x) over its sum along an axis."""
    return Softmax(normalize_axis(axis, x.ndim, op="softmax"))(e.inexact(x))


def log_softmax(x: V, /, *, axis: int = -1) -> V:
    """The logarithm of softmax, without overflow."""
    return LogSoftmax(normalize_axis(axis, x.ndim, op="log_softmax"))(e.inexact(x))
