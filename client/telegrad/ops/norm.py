"""Normalisations. All stand on one op, `Standardize`, whose rule is joint: the gradient through mean and variance is
one formula on the result, and takes half the passes over memory that the rules of their parts would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import DType, Type, product
from telegrad.ir.value import Operators, V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops import reduce as r
from telegrad.ops import shape as s
from telegrad.ops.reduce import widened
from telegrad.ops.shape import check_axes


def _check(op: Op, x: Type, axes: tuple[int, ...]) -> None:
    check_axes(axes, x.ndim, op=op.name)
    if not x.dtype.is_float:
        raise DTypeError(f"{op.name}({x}): takes a floating-point dtype")


def _wide(dtype: DType) -> DType:
    return dtype if dtype.itemsize >= 4 else t.float32


@dataclass(frozen=True)
class Standardize(Op):
    """y = (x - mean) / sqrt(var + eps) over axes, and the mean and var, with axes of one and in float32 at least.

    With ``is_centred`` false, y = x / sqrt(square + eps) and the mean square. 16-bit floats are computed in float32.
    """

    axes: tuple[int, ...]
    eps: float
    is_centred: bool = True

    expands: ClassVar[bool] = True

    def infer(self, x: Type) -> tuple[Type, ...]:
        _check(self, x, self.axes)
        if self.eps < 0.0:
            raise GraphError(f"{self.name}({x}): eps must not be negative, as {self.eps} is")
        moment = Type(r.reduced(x.shape, self.axes, keepdims=True), _wide(x.dtype))
        return (x, moment, moment) if self.is_centred else (x, moment)

    def in_primitives(self, x: Value) -> tuple[Value, ...]:
        """The reference form: the oracle of the joint kernel."""
        wide = widened(x)
        mean = r.mean(wide, axis=self.axes, keepdims=True)
        centred = wide - mean if self.is_centred else wide
        var = r.mean(e.square(centred), axis=self.axes, keepdims=True)
        y = e.astype(centred / e.sqrt(var + self.eps), x.dtype)
        return (y, mean, var) if self.is_centred else (y, var)

    def vjp(self, g: tuple[Value | None, ...], out: tuple[Value, ...], x: Value) -> tuple[Value | None]:
        y, var, wide = out[0], out[-1], widened(x)
        centred = wide - out[1] if self.is_centred else wide
        scale = e.pow(var + self.eps, -0.5)
        n = product([x.shape[axis] for axis in self.axes])
        parts: list[Value] = []
        if g[0] is not None:
            normal = y if y.dtype is wide.dtype else centred * scale  # what was rounded to 16 bits is made again
            parts.append(StandardizeGradient(self.axes, self.is_centred)(widened(g[0]), normal, scale))
        if g[-1] is not None:
            parts.append(centred * (g[-1] * (2 / max(n, 1))))
        if self.is_centred and g[1] is not None:
            parts.append(s.broadcast_to(g[1] * (1 / max(n, 1)), x.shape))
        return (e.astype(sum(parts[1:], parts[0]), x.dtype) if parts else None,)

    def eval(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        dtype = xp.dtype_of(x)
        wide = xp.astype(x, _wide(dtype))
        count = xp.literal(float(product([x.shape[axis] for axis in self.axes])), wide)
        mean = xp.divide(xp.sum(wide, axis=self.axes, keepdims=True), count) if self.is_centred else None
        centred = wide if mean is None else xp.subtract(wide, mean)
        var = xp.divide(xp.sum(xp.square(centred), axis=self.axes, keepdims=True), count)
        y = xp.divide(centred, xp.sqrt(xp.add(var, xp.literal(self.eps, var))))
        y = xp.astype(y, dtype)
        return (y, var) if mean is None else (y, mean, var)

    def cost(self, *types: Type) -> Cost:
        (x,) = types
        return Cost(7 * x.size, 2 * x.nbytes + sum(m.nbytes for m in self.infer(x)[1:]))


@dataclass(frozen=True)
class StandardizeGradient(Op):
    """scale * (g - mean(g) - y * mean(g * y)) over axes: what g becomes on its way back through `Standardize`.

    y is the standardised value and scale = 1 / sqrt(var + eps), with axes of one. Without ``is_centred`` mean(g) stays.
    """

    reference = "Ioffe and Szegedy 2015, Batch Normalization, section 3, gathered"

    axes: tuple[int, ...]
    is_centred: bool = True

    expands: ClassVar[bool] = True

    def infer(self, g: Type, y: Type, scale: Type) -> Type:
        _check(self, g, self.axes)
        moment = Type(r.reduced(g.shape, self.axes, keepdims=True), g.dtype)
        if y != g or scale != moment:
            raise ShapeError(f"{self.name}({g}, {y}, {scale}): takes {g}, {g} and {moment}")
        return g

    def in_primitives(self, g: Value, y: Value, scale: Value) -> tuple[Value]:
        """The reference form: the oracle of the joint kernel."""
        inner = g - y * self._mean(g * y)
        return ((inner - self._mean(g) if self.is_centred else inner) * scale,)

    def _mean(self, x: Value) -> Value:
        return r.mean(x, axis=self.axes, keepdims=True)

    def vjp(self, g: Value, out: Value, x: Value, y: Value, scale: Value) -> tuple[Value, Value, Value]:
        # linear and symmetric in x; in y only mean(x * y) * y counts
        gx = self(g, y, scale)
        gy = -(g * self._mean(x * y) + x * self._mean(g * y)) * scale
        return gx, gy, r.sum(g * out, axis=self.axes, keepdims=True) / scale

    def eval(self, xp: ArrayModule, g: Array, y: Array, scale: Array) -> Array:
        dtype = xp.dtype_of(g)
        if dtype.itemsize == 2:
            wide = [xp.astype(x, t.float32) for x in (g, y, scale)]
            return xp.astype(self.eval(xp, *wide), dtype)
        count = xp.literal(float(product([g.shape[axis] for axis in self.axes])), g)
        slope = xp.divide(xp.sum(xp.multiply(g, y), axis=self.axes, keepdims=True), count)
        inner = xp.subtract(g, xp.multiply(y, slope))
        if self.is_centred:
            inner = xp.subtract(inner, xp.divide(xp.sum(g, axis=self.axes, keepdims=True), count))
        return xp.multiply(inner, scale)

    def cost(self, *types: Type) -> Cost:
        g, y, scale = types
        return Cost(8 * g.size, 2 * g.nbytes + y.nbytes + scale.nbytes)


def _standardized(x: V, axes: tuple[int, ...], eps: float) -> tuple[V, V, V]:
    """(x - mean) / sqrt(var + eps) in x's dtype, and the moments."""
    y, mean, var = Standardize(axes, eps).results(e.inexact(x))
    return y, mean, var


def _last_axes(x: Operators, normalized_shape: Sequence[int], op: str) -> tuple[int, ...]:
    shape = tuple(normalized_shape)
    if not shape or len(shape) > x.ndim or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"{op}: normalized_shape {list(shape)} is not the end of {x.type}")
    return tuple(range(x.ndim - len(shape), x.ndim))


def layer_norm(
    input: V, normalized_shape: Sequence[int], weight: V | None = None, bias: V | None = None, eps: float = 1e-5
) -> V:
    """(x - mean) / sqrt(var + eps) over the last axes, times weight plus bias (Ba et al. 2016)."""
    axes = _last_axes(input, normalized_shape, "layer_norm")
    out, _, _ = _standardized(input, axes, eps)
    if weight is not None:
        out = out * weight
    return out if bias is None else out + bias


def rms_norm(input: V, normalized_shape: Sequence[int], weight: V | None = None, eps: float = 1e-6) -> V:
    """x / sqrt(mean(x**2) + eps) over the last axes, times weight (Zhang, Sennrich 2019)."""
    axes = _last_axes(input, normalized_shape, "rms_norm")
    out, _ = Standardize(axes, eps, is_centred=False).results(e.inexact(input))
    return out if weight is None else out * weight


# ---- by channels: axis 1 of x[N, C, ...]


def _channels(x: V, line: V, op: str, what: str) -> V:
    """line[C] beside x[N, C, ...]."""
    if x.ndim < 2 or line.shape != (x.shape[1],):
        raise ShapeError(f"{op}({x.type}): {what} {line.type} must have one element for each channel, axis 1")
    return s.reshape(line, (x.shape[1], *(1,) * (x.ndim - 2)))


def batch_standardized(input: V, eps: float) -> tuple[V, V, V, int]:
    """input[N, C, ...] standardised for each channel, mean[C] and variance[C] (with n) in float32 at least, and n.

    ShapeError if n is 1.
    """
    if input.ndim < 2:
        raise ShapeError(f"batch_norm({input.type}): takes a batch of channels, [N, C, ...]")
    count = input.size // max(input.shape[1], 1)
    if count == 1 and input.size:
        raise ShapeError(f"batch_norm({input.type}): a channel with one element has no variance to train with")
    line = (input.shape[1],)
    normal, mean, var = _standardized(input, (0, *range(2, input.ndim)), eps)
    return normal, s.reshape(mean, line), s.reshape(var, line), count


def channel_norm(input: V, mean: V, var: V, weight: V | None, bias: V | None, eps: float) -> V:
    """(input[N, C, ...] - mean[C]) / sqrt(var[C] + eps) * weight[C] + bias[C]."""
    op = "batch_norm"
    wide = widened(input)
    centre = _channels(input, e.astype(mean, wide.dtype), op, "the mean")
    spread = _channels(input, e.sqrt(e.astype(var, wide.dtype) + eps), op, "the variance")
    return scaled(input, (wide - centre) / spread, weight, bias, op)


def scaled(input: V, normal: V, weight: V | None, bias: V | None, op: str) -> V:
    """normal[N, C, ...], what became of the input, in its dtype and times weight[C] plus bias[C]."""
    out = e.astype(normal, e.inexact(input).dtype)
    if weight is not None:
        out = out * _channels(input, weight, op, "the weight")
    return out if bias is None else out + _channels(input, bias, op, "the bias")


def group_norm(input: V, num_groups: int, weight: V | None = None, bias: V | None = None, eps: float = 1e-5) -> V:
    """input[N, C, ...] normalised over each of ``num_groups`` groups of channels, times weight[C] plus bias[C].

    Each sample by itself (Wu, He 2018). ShapeError if the groups do not divide the channels.
    """
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise ShapeError(f"group_norm({input.type}): axis 1, the channels, must be divisible into {num_groups} groups")
    groups = s.reshape(input, (input.shape[0], num_groups, input.shape[1] // num_groups, *input.shape[2:]))
    normal, _, _ = _standardized(groups, tuple(range(2, groups.ndim)), eps)
    return scaled(input, s.reshape(normal, input.shape), weight, bias, "group_norm")


def instance_norm(input: V, weight: V | None = None, bias: V | None = None, eps: float = 1e-5) -> V:
    """input[N, C, ...] normalised for each sample and channel, times weight[C] plus bias[C] (Ulyanov et al. 2016)."""
    if input.ndim < 3 or (input.size and input.size == input.shape[0] * input.shape[1]):
        raise ShapeError(f"instance_norm({input.type}): takes [N, C, ...] with more than one element for each channel")
    return group_norm(input, input.shape[1], weight, bias, eps) if input.shape[1] else input


def local_response_norm(input: V, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> V:
    """input[N, C, ...] / (k + alpha * m)^beta with m the mean of squares of ``size`` channels around each one.

    Krizhevsky et al. 2012, section 3.3; channels beyond the ends count as zeros.
    """
    if input.ndim < 3 or size < 1:
        raise ShapeError(f"local_response_norm({input.type}): takes [N, C, ...] and a positive size, not {size}")
    n, c, *rest = input.shape
    squares = s.pad(
        e.square(s.reshape(input, (n, c, -1 if input.size else 0))), [(0, 0), (size // 2, (size - 1) // 2), (0, 0)]
    )
    total = squares[:, :c]
    for i in range(1, size):
        total = total + squares[:, i : i + c]
    return input / e.pow(s.reshape(total, (n, c, *rest)) * (alpha / size) + k, beta)
