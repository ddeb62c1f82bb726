"""Ops that combine elements along axes.

What is computed from 16-bit floats is computed in float32 and rounded once, at the end.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass

from telegrad.errors import AxisError, DTypeError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import DType, Shape, Type, normalize_axes, normalize_axis
from telegrad.ir.value import V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops.control import stop_gradient
from telegrad.ops.shape import (
    BroadcastTo,
    Flip,
    Pad,
    Reshape,
    check_axes,
    check_axis,
    concat,
    expand_dims,
    full_like,
    moveaxis,
    ones_like,
    permute_dims,
    reshape,
)

__all__ = [
    "all", "any", "argmax", "argmin", "count_nonzero", "cumulative_prod", "cumulative_sum", "logsumexp", "max", "mean",
    "min", "prod", "std", "sum", "var",
]  # fmt: skip

Axis = int | tuple[int, ...] | None


def reduced(shape: Shape, axes: tuple[int, ...], *, keepdims: bool) -> Shape:
    """The shape after reducing the axes."""
    if keepdims:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def expanded(g: V, x: V, axes: tuple[int, ...]) -> V:
    """What was reduced over ``axes`` of x (with or without keepdims), broadcast back to x's shape."""
    return BroadcastTo(x.shape)(Reshape(reduced(x.shape, axes, keepdims=True))(g))


class Reduction(Op, abstract=True):
    """The family: ``axes`` are counted from the front and sorted; the functions normalise them."""

    axes: tuple[int, ...]
    keepdims: bool

    def infer(self, x: Type) -> Type:
        check_axes(self.axes, x.ndim, op=self.name)
        return Type(reduced(x.shape, self.axes, keepdims=self.keepdims), x.dtype)

    def cost(self, *types: Type) -> Cost:
        return Cost(types[0].size, types[0].nbytes + self.infer(*types).nbytes)


@dataclass(frozen=True)
class Sum(Reduction):
    """The sum over axes, in x's dtype (16-bit floats are added up in float32)."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def infer(self, x: Type) -> Type:
        if x.dtype.kind == "bool":
            raise DTypeError(f"sum({x}): takes numbers; use astype")
        return super().infer(x)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (expanded(g, x, self.axes),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.sum(x, axis=self.axes, keepdims=self.keepdims)


@dataclass(frozen=True)
class Prod(Reduction):
    """The product over axes, in x's dtype."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def infer(self, x: Type) -> Type:
        if x.dtype.kind == "bool":
            raise DTypeError(f"prod({x}): takes numbers; use astype")
        return super().infer(x)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        rest = tuple(a for a in range(x.ndim) if a not in self.axes)
        order = rest + self.axes
        shape = tuple(x.shape[a] for a in order)
        n = t.product(x.shape[a] for a in self.axes)
        lines = reshape(permute_dims(widened(x), order), (*shape[: len(rest)], n))
        others = permute_dims(reshape(product_of_others(lines), shape), tuple(order.index(a) for a in range(x.ndim)))
        return (_rounded(expanded(widened(g), x, self.axes) * others, x),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.prod(x, axis=self.axes, keepdims=self.keepdims)


def product_of_others(x: Value) -> Value:
    """x[..., n] -> for each element the product of all the others along the last axis.

    Where out / x would be NaN at zeros, this is right, and can be differentiated again: the products of pairs, of
    pairs of pairs and so on; then from the top down each half times what is outside its pair. O(n log n).
    """
    n, last = x.shape[-1], x.ndim - 1
    if x.size == 0:
        return x
    missing = (1 << (n - 1).bit_length()) - n
    x = Pad((0,) * x.ndim, (*(0,) * last, missing), 1)(x)
    pairs: list[Value] = []
    while x.shape[-1] > 1:
        pairs.append(reshape(x, (*x.shape[:-1], x.shape[-1] // 2, 2)))
        x = pairs[-1][..., 0] * pairs[-1][..., 1]
    outside = ones_like(x)
    for pair in reversed(pairs):
        joined = expand_dims(outside, axis=-1) * Flip((pair.ndim - 1,))(pair)
        outside = reshape(joined, (*joined.shape[:-2], 2 * joined.shape[-2]))
    return outside[..., :n]


class Extremum(Reduction, abstract=True):
    """Max and min: equal extremes share the gradient equally, as in PyTorch's amax."""

    def infer(self, x: Type) -> Type:
        result = super().infer(x)
        if t.product(x.shape[a] for a in self.axes) == 0 and result.size:
            raise ShapeError(f"{self.name}({x}): no elements along axes {self.axes}")
        return result

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        at = e.astype(e.equal(x, expanded(out, x, self.axes)), x.dtype)
        share = g / Reshape(g.shape)(Sum(self.axes, True)(at))
        return (expanded(share, x, self.axes) * at,)


@dataclass(frozen=True)
class Max(Extremum):
    """The largest element over axes; NaN if there is one."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.max(x, axis=self.axes, keepdims=self.keepdims)


@dataclass(frozen=True)
class Min(Extremum):
    """The smallest element over axes; NaN if there is one."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.min(x, axis=self.axes, keepdims=self.keepdims)


class Verdict(Reduction, abstract=True):
    """All and any, of booleans."""

    def infer(self, x: Type) -> Type:
        if x.dtype.kind != "bool":
            raise DTypeError(f"{self.name}({x}): takes booleans")
        return super().infer(x)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[None]:
        return (None,)


@dataclass(frozen=True)
class AllTrue(Verdict):
    """Whether all elements over axes are true."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.all(x, axis=self.axes, keepdims=self.keepdims)


@dataclass(frozen=True)
class AnyTrue(Verdict):
    """Whether any element over axes is true."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.any(x, axis=self.axes, keepdims=self.keepdims)


class Position(Op, abstract=True):
    """Argmax and argmin: the position of the first extreme along one axis, as int64."""

    axis: int

    def infer(self, x: Type) -> Type:
        check_axis(self.axis, x.ndim, op=self.name)
        result = Type(reduced(x.shape, (self.axis,), keepdims=False), t.int64)
        if x.shape[self.axis] == 0 and result.size:
            raise ShapeError(f"{self.name}({x}): no elements along axis {self.axis}")
        return result

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[None]:
        return (None,)

    def cost(self, *types: Type) -> Cost:
        return Cost(types[0].size, types[0].nbytes + self.infer(*types).nbytes)


@dataclass(frozen=True)
class Argmax(Position):
    """The position of the first largest element along an axis."""

    axis: int

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.argmax(x, axis=self.axis)


@dataclass(frozen=True)
class Argmin(Position):
    """The position of the first smallest element along an axis."""

    axis: int

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.argmin(x, axis=self.axis)


class Cumulative(Op, abstract=True):
    """Running results along one axis, counted from the front."""

    axis: int

    def infer(self, x: Type) -> Type:
        check_axis(self.axis, x.ndim, op=self.name)
        if x.dtype.kind == "bool":
            raise DTypeError(f"{self.name}({x}): takes numbers; use astype")
        return x


@dataclass(frozen=True)
class CumulativeSum(Cumulative):
    """The sum of the elements up to each."""

    axis: int

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        flip = Flip((self.axis,))
        return (flip(CumulativeSum(self.axis)(flip(g))),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.cumsum(x, axis=self.axis)


@dataclass(frozen=True)
class CumulativeProd(Cumulative):
    """The product of the elements up to each."""

    axis: int

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        # In terms of out this would divide by x, which fails at zeros. With s_i = g_i + x_{i+1} s_{i+1}, a linear
        # recurrence, the gradient is (the product of what stands before i) * s_i. Doubling solves it in log n steps.
        last, n = x.ndim - 1, x.shape[self.axis]
        if x.size == 0:
            return (g,)
        line, s = moveaxis(widened(x), self.axis, -1), moveaxis(widened(g), self.axis, -1)
        before = CumulativeProd(last)(concat([ones_like(line[..., :1]), line[..., :-1]], axis=last))
        factor, distance = _shifted(line, 1), 1
        while distance < n:
            s = s + factor * _shifted(s, distance)
            factor = factor * _shifted(factor, distance)
            distance *= 2
        return (_rounded(moveaxis(before * s, -1, self.axis), x),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.cumprod(x, axis=self.axis)


def _shifted(x: Value, distance: int) -> Value:
    """x[..., n] moved to the front by a distance, zeros coming in at the end."""
    last = x.ndim - 1
    return Pad((0,) * x.ndim, (*(0,) * last, distance), 0)(x[..., distance:])


# ---- the public functions


def widened(x: V) -> V:
    """x as floating-point of at least 32 bits: what a function computes in."""
    return e.astype(x, t.float32) if x.dtype.kind != "float" or x.dtype.itemsize < 4 else x


def _rounded(result: V, like: V) -> V:
    """A widened result back in the dtype of a 16-bit float operand."""
    return e.astype(result, like.dtype) if like.dtype.is_float else result


def _accumulated(x: V, dtype: DType | None) -> V:
    """x in the dtype in which the array API sums: small integers in 64 bits, floats in their own."""
    if dtype is None:
        dtype = {"bool": t.int64, "int": t.int64, "uint": t.uint64}.get(x.dtype.kind, x.dtype)
    return e.astype(x, dtype)


def sum(x: V, /, *, axis: Axis = None, dtype: DType | None = None, keepdims: bool = False) -> V:
    """The sum over axes; integers are summed in 64 bits, 16-bit floats in float32 and rounded once."""
    return Sum(normalize_axes(axis, x.ndim, op="sum"), keepdims)(_accumulated(x, dtype))


def prod(x: V, /, *, axis: Axis = None, dtype: DType | None = None, keepdims: bool = False) -> V:
    """The product over axes; integers are multiplied in 64 bits."""
    return Prod(normalize_axes(axis, x.ndim, op="prod"), keepdims)(_accumulated(x, dtype))


def mean(x: V, /, *, axis: Axis = None, keepdims: bool = False) -> V:
    """The mean over axes; NaN where there are no elements."""
    axes = normalize_axes(axis, x.ndim, op="mean")
    return _rounded(_mean(widened(x), axes, keepdims), x)


def _mean(x: V, axes: tuple[int, ...], keepdims: bool) -> V:
    return Sum(axes, keepdims)(x) / x.literal(t.product(x.shape[a] for a in axes), x.dtype)


def var(x: V, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> V:
    """The variance over axes, in two passes, divided by n - correction; NaN or infinite where that is not positive."""
    return _rounded(_var(widened(x), normalize_axes(axis, x.ndim, op="var"), correction, keepdims), x)


def _var(x: V, axes: tuple[int, ...], correction: float, keepdims: bool) -> V:
    n = t.product(x.shape[a] for a in axes)
    squares = e.square(x - _mean(x, axes, True))
    return Sum(axes, keepdims)(squares) / x.literal(builtins.max(n - correction, 0.0), x.dtype)


def std(x: V, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> V:
    """The standard deviation over axes, from the variance with n - correction. Its derivative where it is 0 is 0."""
    v = _var(widened(x), normalize_axes(axis, x.ndim, op="std"), correction, keepdims)
    positive = v > 0
    return _rounded(e.where(positive, e.sqrt(e.where(positive, v, 1)), v), x)


def max(x: V, /, *, axis: Axis = None, keepdims: bool = False) -> V:
    """The largest element over axes; NaN if there is one. Equal ones share the gradient."""
    return Max(normalize_axes(axis, x.ndim, op="max"), keepdims)(x)


def min(x: V, /, *, axis: Axis = None, keepdims: bool = False) -> V:
    """The smallest element over axes; NaN if there is one. Equal ones share the gradient."""
    return Min(normalize_axes(axis, x.ndim, op="min"), keepdims)(x)


def _truth(x: V) -> V:
    return x if x.dtype.kind == "bool" else e.not_equal(x, 0)


def all(x: V, /, *, axis: Axis = None, keepdims: bool = False) -> V:
    """Whether all elements over axes are true (not zero)."""
    return AllTrue(normalize_axes(axis, x.ndim, op="all"), keepdims)(_truth(x))


def any(x: V, /, *, axis: Axis = None, keepdims: bool = False) -> V:
    """Whether any element over axes is true (not zero)."""
    return AnyTrue(normalize_axes(axis, x.ndim, op="any"), keepdims)(_truth(x))


def count_nonzero(x: V, /, *, axis: Axis = None, keepdims: bool = False) -> V:
    """How many elements over axes are not zero, as int64."""
    return sum(_truth(x), axis=axis, keepdims=keepdims)


def _position(op: type[Argmax | Argmin], x: V, axis: int | None, keepdims: bool) -> V:
    if axis is None:
        result = op(0)(Reshape((x.size,))(x))
        return Reshape((1,) * x.ndim)(result) if keepdims else result
    axis = normalize_axis(axis, x.ndim, op=op.name)
    result = op(axis)(x)
    return Reshape(reduced(x.shape, (axis,), keepdims=True))(result) if keepdims else result


def argmax(x: V, /, *, axis: int | None = None, keepdims: bool = False) -> V:
    """The position of the first largest element, along an axis or in C order over all."""
    return _position(Argmax, x, axis, keepdims)


def argmin(x: V, /, *, axis: int | None = None, keepdims: bool = False) -> V:
    """The position of the first smallest element, along an axis or in C order over all."""
    return _position(Argmin, x, axis, keepdims)


def _running(op: type[CumulativeSum | CumulativeProd], x: V, axis: int | None, initial: bool, one: int) -> V:
    if axis is None:
        if x.ndim != 1:
            raise AxisError(f"{op.name}: axis is needed for {x.ndim} axes")
        axis = 0
    axis = normalize_axis(axis, x.ndim, op=op.name)
    if initial:
        shape = tuple(1 if a == axis else size for a, size in enumerate(x.shape))
        x = concat([BroadcastTo(shape)(x.literal(one, x.dtype)), x], axis=axis)
    return op(axis)(x)


def cumulative_sum(x: V, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False) -> V:
    """The running sums along an axis, with 0 in front if ``include_initial``."""
    return _running(CumulativeSum, _accumulated(x, dtype), axis, include_initial, 0)


def cumulative_prod(
    x: V, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False
) -> V:
    """The running products along an axis, with 1 in front if ``include_initial``."""
    return _running(CumulativeProd, _accumulated(x, dtype), axis, include_initial, 1)


def logsumexp(x: V, /, *, axis: Axis = None, keepdims: bool = False) -> V:
    """log(sum(exp(x))) over axes, without overflow; -inf where all elements are -inf, or there are none."""
    wide = widened(x)
    axes = normalize_axes(axis, x.ndim, op="logsumexp")
    kept = reduced(x.shape, axes, keepdims=True)
    if t.product(x.shape[a] for a in axes) == 0:
        return _rounded(full_like(Sum(axes, keepdims)(wide), -builtins.float("inf")), x)
    top = stop_gradient(Max(axes, True)(wide))
    shift = e.where(e.isfinite(top), top, 0)
    result = e.log(Sum(axes, True)(e.exp(wide - shift))) + shift
    return _rounded(result if keepdims else reshape(result, reduced(kept, axes, keepdims=False)), x)
