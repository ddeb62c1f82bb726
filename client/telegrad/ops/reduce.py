"""Ops that combine elements along axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from telegrad.errors import AxisError, DTypeError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Op
from telegrad.ir.types import DType, Shape, Type, normalize_axes, normalize_axis
from telegrad.ir.value import V, Value
from telegrad.ops import elementwise as e
from telegrad.ops.shape import BroadcastTo, Flip, Reshape

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
        if normalize_axes(self.axes, x.ndim, op=self.name) != self.axes:
            raise AxisError(f"{self.name}: axes {self.axes} must be sorted and counted from the front")
        return Type(reduced(x.shape, self.axes, keepdims=self.keepdims), x.dtype)


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

    def eval(self, xp: Any, x: Any) -> Any:
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
        # the product of the others, from products of what stands before and after: right with zeros, and
        # differentiable again, where out / x would be NaN
        rest = tuple(a for a in range(x.ndim) if a not in self.axes)
        n = t.product(x.shape[a] for a in self.axes)
        order = rest + self.axes
        from telegrad.ops.shape import concat, permute_dims, reshape

        flat = reshape(permute_dims(x, order), (*(x.shape[a] for a in rest), n))
        if n == 0:
            return (BroadcastTo(x.shape)(x.literal(0, x.dtype)),)
        one = BroadcastTo((*flat.shape[:-1], 1))(x.literal(1, x.dtype))
        last = flat.ndim - 1
        before = CumulativeProd(last)(concat([one, flat[..., :-1]], axis=last))
        after = Flip((last,))(CumulativeProd(last)(concat([one, Flip((last,))(flat)[..., :-1]], axis=last)))
        others = reshape(before * after, tuple(x.shape[a] for a in order))
        back = tuple(order.index(a) for a in range(x.ndim))
        return (expanded(g, x, self.axes) * permute_dims(others, back),)

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.prod(x, axis=self.axes, keepdims=self.keepdims)


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

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.max(x, axis=self.axes, keepdims=self.keepdims)


@dataclass(frozen=True)
class Min(Extremum):
    """The smallest element over axes; NaN if there is one."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def eval(self, xp: Any, x: Any) -> Any:
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
class All(Verdict):
    """Whether all elements over axes are true."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.all(x, axis=self.axes, keepdims=self.keepdims)


@dataclass(frozen=True)
class Any_(Verdict):
    """Whether any element over axes is true."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.any(x, axis=self.axes, keepdims=self.keepdims)


class Position(Op, abstract=True):
    """Argmax and argmin: the position of the first extreme along one axis, as int64."""

    axis: int

    def infer(self, x: Type) -> Type:
        axis = normalize_axis(self.axis, x.ndim, op=self.name)
        if x.shape[axis] == 0:
            raise ShapeError(f"{self.name}({x}): no elements along axis {axis}")
        return Type(reduced(x.shape, (axis,), keepdims=False), t.int64)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[None]:
        return (None,)


@dataclass(frozen=True)
class Argmax(Position):
    """The position of the first largest element along an axis."""

    axis: int

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.argmax(x, axis=self.axis)


@dataclass(frozen=True)
class Argmin(Position):
    """The position of the first smallest element along an axis."""

    axis: int

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.argmin(x, axis=self.axis)


class Cumulative(Op, abstract=True):
    """Running results along one axis, counted from the front."""

    axis: int

    def infer(self, x: Type) -> Type:
        if not 0 <= self.axis < x.ndim:
            raise AxisError(f"{self.name}: axis {self.axis} is out of range for {x.ndim} axes")
        return x


@dataclass(frozen=True)
class CumulativeSum(Cumulative):
    """The sum of the elements up to each."""

    axis: int

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        flip = Flip((self.axis,))
        return (flip(CumulativeSum(self.axis)(flip(g))),)

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.cumsum(x, axis=self.axis)


@dataclass(frozen=True)
class CumulativeProd(Cumulative):
    """The product of the elements up to each."""

    axis: int

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        # d out_j / d x_i = prod_{k <= j, k != i} x_k. In terms of out this divides by x, which fails at zeros, so
        # the lower triangle of partial products is built: n times the memory, but right everywhere.
        from telegrad.ops.shape import expand_dims, moveaxis

        n = x.shape[self.axis]
        last = moveaxis(x, self.axis, -1)
        k = BroadcastTo((*last.shape[:-1], n, n))(expand_dims(last, axis=-2))
        eye = e.equal(_iota(x, n, 0), _iota(x, n, 1))
        partial = CumulativeProd(k.ndim - 1)(e.where(eye, 1, k))
        kept = e.where(_iota(x, n, 0) <= _iota(x, n, 1), partial, 0)
        gx = Sum((k.ndim - 1,))(kept * expand_dims(moveaxis(g, self.axis, -1), axis=-2))
        return (moveaxis(gx, -1, self.axis),)

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.cumprod(x, axis=self.axis)


@dataclass(frozen=True)
class Iota(Op):
    """0, 1, 2, … along one axis of a shape."""

    shape: Shape
    axis: int
    dtype: DType

    def infer(self) -> Type:
        if not 0 <= self.axis < len(self.shape):
            raise AxisError(f"iota: axis {self.axis} is out of range for {len(self.shape)} axes")
        return Type(t.check_shape(self.shape, op="iota"), self.dtype)

    def eval(self, xp: Any) -> Any:
        n = self.shape[self.axis]
        shape = tuple(n if a == self.axis else 1 for a in range(len(self.shape)))
        return xp.broadcast_to(xp.reshape(xp.arange(n, self.dtype), shape), self.shape)


def _iota(like: V, n: int, axis: int) -> V:
    return like.bind(Iota((n, n), axis, t.int64), ())[0]


# ---- the public functions


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
    x = e.inexact(x)
    axes = normalize_axes(axis, x.ndim, op="mean")
    n = t.product(x.shape[a] for a in axes)
    return Sum(axes, keepdims)(x) / x.literal(n, x.dtype)


def var(x: V, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> V:
    """The variance over axes, in two passes, divided by n - correction; NaN where that is not positive."""
    x = e.inexact(x)
    axes = normalize_axes(axis, x.ndim, op="var")
    n = t.product(x.shape[a] for a in axes)
    d = x - mean(x, axis=axes, keepdims=True)
    return Sum(axes, keepdims)(e.square(d)) / x.literal(max_(n - correction, 0.0), x.dtype)


def max_(a: float, b: float) -> float:
    """The larger of two numbers (``max`` here is the reduction)."""
    return a if a > b else b


def std(x: V, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> V:
    """The standard deviation over axes, from the variance with n - correction."""
    return e.sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


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
    return All(normalize_axes(axis, x.ndim, op="all"), keepdims)(_truth(x))


def any(x: V, /, *, axis: Axis = None, keepdims: bool = False) -> V:
    """Whether any element over axes is true (not zero)."""
    return Any_(normalize_axes(axis, x.ndim, op="any"), keepdims)(_truth(x))


def count_nonzero(x: V, /, *, axis: Axis = None, keepdims: bool = False) -> V:
    """How many elements over axes are not zero, as int64."""
    return sum(_truth(x), axis=axis, keepdims=keepdims)


def _position(op: type[Argmax] | type[Argmin], x: V, axis: int | None, keepdims: bool) -> V:
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


def _running(op: type[CumulativeSum] | type[CumulativeProd], x: V, axis: int | None, initial: bool, one: int) -> V:
    if axis is None:
        if x.ndim != 1:
            raise AxisError(f"{op.name}: axis is needed for {x.ndim} axes")
        axis = 0
    axis = normalize_axis(axis, x.ndim, op=op.name)
    if initial:
        from telegrad.ops.shape import concat

        shape = tuple(1 if a == axis else size for a, size in enumerate(x.shape))
        x = concat([BroadcastTo(shape)(x.literal(one, x.dtype)), x], axis=axis)
    return op(axis)(x)


def cumulative_sum(
    x: V, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False
) -> V:
    """The running sums along an axis, with 0 in front if ``include_initial``."""
    return _running(CumulativeSum, _accumulated(x, dtype), axis, include_initial, 0)


def cumulative_prod(
    x: V, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False
) -> V:
    """The running products along an axis, with 1 in front if ``include_initial``."""
    return _running(CumulativeProd, _accumulated(x, dtype), axis, include_initial, 1)


def logsumexp(x: V, /, *, axis: Axis = None, keepdims: bool = False) -> V:
    """log(sum(exp(x))) over axes, without overflow; -inf where all elements are -inf."""
    from telegrad.ops.control import stop_gradient

    x = e.inexact(x)
    axes = normalize_axes(axis, x.ndim, op="logsumexp")
    top = stop_gradient(Max(axes, True)(x))
    shift = e.where(e.isfinite(top), top, 0)
    total = Sum(axes, True)(e.exp(x - shift))
    result = e.log(total) + shift
    return result if keepdims else Reshape(reduced(x.shape, axes, keepdims=False))(result)

