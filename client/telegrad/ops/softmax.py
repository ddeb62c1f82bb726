"""Softmax and cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from telegrad.errors import AxisError, DTypeError, GraphError, ShapeError
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Type, normalize_axis
from telegrad.ir.value import V, Value
from telegrad.ops import elementwise as e
from telegrad.ops import reduce as r
from telegrad.ops.index import take, take_along_axis
from telegrad.ops.shape import expand_dims, reshape, squeeze


class Normalized(Op, abstract=True):
    """Softmax and its logarithm along one axis. Primitives because their gradient in terms of the result is stable."""

    axis: int

    def infer(self, x: Type) -> Type:
        if not 0 <= self.axis < x.ndim:
            raise AxisError(f"{self.name}: axis {self.axis} is out of range for {x.ndim} axes")
        if not x.dtype.is_float:
            raise DTypeError(f"{self.name}({x}): takes a floating-point dtype")
        return x

    def cost(self, *types: Type) -> Cost:
        return Cost(5 * types[0].size, 2 * types[0].nbytes)


@dataclass(frozen=True)
class Softmax(Normalized):
    """exp(x) over its sum along an axis, computed from x - max(x)."""

    axis: int

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        p = g * out
        return (p - out * r.Sum((self.axis,), True)(p),)

    def eval(self, xp: Any, x: Any) -> Any:
        shifted = xp.exp(xp.subtract(x, xp.max(x, axis=(self.axis,), keepdims=True)))
        return xp.divide(shifted, xp.sum(shifted, axis=(self.axis,), keepdims=True))


@dataclass(frozen=True)
class LogSoftmax(Normalized):
    """x - log(sum(exp(x))) along an axis, computed from x - max(x)."""

    axis: int

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g - e.exp(out) * r.Sum((self.axis,), True)(g),)

    def eval(self, xp: Any, x: Any) -> Any:
        shifted = xp.subtract(x, xp.max(x, axis=(self.axis,), keepdims=True))
        total = xp.sum(xp.exp(shifted), axis=(self.axis,), keepdims=True)
        return xp.subtract(shifted, xp.log(total))


def softmax(x: V, /, *, axis: int = -1) -> V:
    """exp(x) over its sum along an axis."""
    x = e.inexact(x)
    return Softmax(normalize_axis(axis, x.ndim, op="softmax"))(x)


def log_softmax(x: V, /, *, axis: int = -1) -> V:
    """The logarithm of softmax, without overflow."""
    x = e.inexact(x)
    return LogSoftmax(normalize_axis(axis, x.ndim, op="log_softmax"))(x)


def _reduce(loss: V, reduction: str, weight: V | None = None) -> V:
    if reduction == "none":
        return loss
    if reduction == "sum":
        return r.sum(loss)
    if reduction != "mean":
        raise GraphError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    return r.mean(loss) if weight is None else r.sum(loss) / r.sum(weight)


def nll_loss(
    input: V, target: V, weight: V | None = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> V:
    """-input at the target class, averaged with the classes' weights.

    input[batch, classes, ...] of log-probabilities, target[batch, ...] of class numbers (or without batch).
    """
    axis = 0 if input.ndim == 1 else 1
    if target.shape != input.shape[:axis] + input.shape[axis + 1 :]:
        raise ShapeError(f"nll_loss: a target of shape {list(target.shape)} does not fit {input.type}")
    kept = e.not_equal(target, ignore_index)
    safe = e.where(kept, target, 0)
    picked = squeeze(take_along_axis(input, expand_dims(safe, axis=axis), axis=axis), axis)
    scale = e.astype(kept, input.dtype)
    if weight is not None:

        scale = scale * take(weight, safe, axis=0)
    return _reduce(-picked * scale, reduction, scale)


def cross_entropy(
    input: V,
    target: V,
    weight: V | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> V:
    """The cross-entropy of softmax(input) against class numbers or class probabilities, as in PyTorch.

    input[batch, classes, ...]; target[batch, ...] of integers, or of input's shape with probabilities.
    """
    axis = 0 if input.ndim == 1 else 1
    classes = input.shape[axis]
    logs = log_softmax(input, axis=axis)
    if target.dtype.is_float:
        return _soft_cross_entropy(logs, target, weight, axis, reduction, label_smoothing)
    if not 0.0 <= label_smoothing <= 1.0:
        raise GraphError(f"label_smoothing {label_smoothing} must be from 0 to 1")
    if label_smoothing == 0.0:
        return nll_loss(logs, target, weight, ignore_index=ignore_index, reduction=reduction)
    hard = nll_loss(logs, target, weight, ignore_index=ignore_index, reduction="none")
    kept = e.astype(e.not_equal(target, ignore_index), logs.dtype)
    scale = kept
    weighted = logs
    if weight is not None:

        shape = tuple(classes if a == axis else 1 for a in range(logs.ndim))
        weighted = logs * reshape(weight, shape)
        scale = kept * take(weight, e.where(e.not_equal(target, ignore_index), target, 0), axis=0)
    smooth = -r.sum(weighted, axis=axis) * kept
    loss = hard * (1.0 - label_smoothing) + smooth * (label_smoothing / classes)
    return _reduce(loss, reduction, scale)


def _soft_cross_entropy(
    logs: V, target: V, weight: V | None, axis: int, reduction: str, label_smoothing: float
) -> V:
    if target.shape != logs.shape:
        raise ShapeError(f"cross_entropy: probabilities of shape {list(target.shape)} do not fit {logs.type}")
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / logs.shape[axis]
    if weight is not None:
        target = target * reshape(weight, tuple(logs.shape[axis] if a == axis else 1 for a in range(logs.ndim)))
    loss = -r.sum(logs * target, axis=axis)
    if reduction == "mean":
        return r.sum(loss) / loss.literal(max(1, loss.size), loss.dtype)
    return _reduce(loss, reduction)


