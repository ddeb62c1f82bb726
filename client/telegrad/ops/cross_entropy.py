"""Cross-entropy against class numbers or probabilities, with PyTorch's arguments and meaning.

Class numbers go through one joint primitive, for two passes over the logits instead of five, and no array of their size
beside the gradient: the loss of a row is logsumexp(x) - x[label], and its gradient softmax(x) - onehot(label) needs
only the logits and the row's logsumexp, which is the second result.
"""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import DType, Shape, Type
from telegrad.ir.value import V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops import reduce as r
from telegrad.ops.index import CheckedIndex, take, take_along_axis
from telegrad.ops.probability import log_softmax
from telegrad.ops.shape import check_axis, expand_dims, reshape, squeeze


def _wide(dtype: DType) -> DType:
    return t.float32 if dtype.itemsize < 4 else dtype


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Op):
    """logits[..., classes, ...], labels without the class axis -> the loss of each row, and its logsumexp.

    Both results are float32 for 16-bit logits: rounding the logsumexp would spoil the gradient. IndexRange for a label
    that is no class.
    """

    axis: int

    def infer(self, logits: Type, labels: Type) -> tuple[Type, Type]:
        check_axis(self.axis, logits.ndim, op="softmax_cross_entropy")
        if not logits.dtype.is_float or labels.dtype.kind not in ("int", "uint"):
            raise DTypeError(f"softmax_cross_entropy({logits}, {labels}): takes float logits and integer labels")
        if labels.shape != _without(logits.shape, self.axis):
            raise ShapeError(
                f"softmax_cross_entropy({logits}, {labels}): labels must have the shape of the logits without axis "
                f"{self.axis}"
            )
        if logits.shape[self.axis] == 0 and labels.size:
            raise ShapeError(f"softmax_cross_entropy({logits}, {labels}): there are no classes")
        row = Type(labels.shape, _wide(logits.dtype))
        return row, row

    def in_primitives(self, logits: Value, labels: Value) -> tuple[Value, Value]:
        """The reference form: the oracle of the joint kernel."""
        wide = e.astype(logits, _wide(logits.dtype))
        total = r.logsumexp(wide, axis=self.axis)
        index = expand_dims(CheckedIndex(logits.shape[self.axis], wraps=False)(labels), axis=self.axis)
        return total - squeeze(take_along_axis(wide, index, axis=self.axis), self.axis), total

    def vjp(
        self,
        g: tuple[Value | None, Value | None],
        out: tuple[Value, Value],
        logits: Value,
        labels: Value,
    ) -> tuple[Value | None, None]:
        g_loss, g_total = g
        row = g_loss if g_total is None else g_total if g_loss is None else g_loss + g_total
        if row is None:
            return None, None
        wide = e.astype(logits, _wide(logits.dtype))
        p = e.exp(wide - expand_dims(out[1], axis=self.axis))
        found = p * expand_dims(row, axis=self.axis)
        if g_loss is not None:
            n = logits.shape[self.axis]
            line = tuple(n if a == self.axis else 1 for a in range(logits.ndim))
            classes = labels.bind(e.Iota(line, self.axis, t.int64), ())[0]
            is_label = e.equal(expand_dims(e.astype(labels, t.int64), axis=self.axis), classes)
            found = found - e.where(is_label, expand_dims(g_loss, axis=self.axis), 0)
        return e.astype(found, logits.dtype), None

    def eval(self, xp: ArrayModule, logits: Array, labels: Array) -> tuple[Array, Array]:
        axes, shape = (self.axis,), labels.shape
        x = xp.astype(logits, t.float32) if xp.dtype_of(logits).itemsize == 2 else logits
        index = xp.checked_index(labels, x.shape[self.axis], wraps=False)
        if 0 in shape:
            empty = xp.zeros(shape, xp.dtype_of(x))
            return empty, empty
        top = xp.max(x, axis=axes, keepdims=True)
        finite = xp.where(xp.isfinite(top), top, xp.literal(0, x))
        total = xp.add(xp.log(xp.sum(xp.exp(xp.subtract(x, finite)), axis=axes, keepdims=True)), finite)
        line = (*shape[: self.axis], 1, *shape[self.axis :])
        picked = xp.take_along_axis(x, xp.reshape(index, line), self.axis)
        return xp.reshape(xp.subtract(total, picked), shape), xp.reshape(total, shape)

    def cost(self, *types: Type) -> Cost:
        return Cost(
            5 * types[0].size, types[0].nbytes + types[1].nbytes + sum(row.nbytes for row in self.infer(*types))
        )


# ---- the losses


def _reduced(loss: V, reduction: str, scale: V) -> V:
    """The losses of the rows put together; their mean is weighted by ``scale``."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return r.sum(loss)
    if reduction == "mean":
        return r.sum(loss) / r.sum(scale)
    raise GraphError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")


def _class_axis(input: V, target: V, weight: V | None, *, op: str) -> int:
    """The axis of the classes: the second, or the only one. Raises if target or weight do not fit."""
    if input.ndim == 0 or not input.dtype.is_float:
        raise ShapeError(f"{op}: the input must be floating-point with a class axis, not {input.type}")
    axis = 0 if input.ndim == 1 else 1
    wanted = input.shape if target.dtype.is_float else _without(input.shape, axis)
    if target.shape != wanted:
        raise ShapeError(f"{op}: a target {target.type} does not fit {input.type}; it must have shape {list(wanted)}")
    if weight is not None and weight.shape != (input.shape[axis],):
        raise ShapeError(
            f"{op}: weight must have one number for each of {input.shape[axis]} classes, not {weight.type}"
        )
    return axis


def _rows(target: V, weight: V | None, ignore_index: int, dtype: DType) -> tuple[V, V, V]:
    """Which rows count; the labels, with a class in place of ignored ones; the weight of each row, 0 for ignored."""
    kept = e.not_equal(target, ignore_index) if _can_hold(target.dtype, ignore_index) else e.equal(target, target)
    labels = e.where(kept, target, 0)
    scale = e.astype(kept, dtype)
    return kept, labels, scale if weight is None else scale * take(e.astype(weight, dtype), labels, axis=0)


def _can_hold(dtype: DType, number: int) -> bool:
    bits = 8 * dtype.itemsize
    return 0 <= number < 1 << bits if dtype.kind == "uint" else -(1 << (bits - 1)) <= number < 1 << (bits - 1)


def nll_loss(input: V, target: V, weight: V | None = None, *, ignore_index: int = -100, reduction: str = "mean") -> V:
    """-input at the target class, averaged with the classes' weights.

    input[batch, classes, ...] of log-probabilities, target[batch, ...] of class numbers (or both without batch).
    IndexRange for a target that is neither a class nor ``ignore_index``.
    """
    if target.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"nll_loss: the target must be class numbers, not {target.type}")
    axis = _class_axis(input, target, weight, op="nll_loss")
    kept, labels, scale = _rows(target, weight, ignore_index, _wide(input.dtype))
    labels = CheckedIndex(input.shape[axis], wraps=False)(labels)  # which a gather would take for one from the end
    picked = squeeze(take_along_axis(input, expand_dims(labels, axis=axis), axis=axis), axis)
    # where, for an ignored row counts 0 even if its log-probability is -inf
    loss = e.where(kept, -e.astype(picked, scale.dtype) * scale, 0)
    return e.astype(_reduced(loss, reduction, scale), input.dtype)


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

    input[batch, classes, ...]; target[batch, ...] of integers, or of input's shape with probabilities (or both without
    batch). IndexRange for a class number that is neither a class nor ``ignore_index``.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise GraphError(f"cross_entropy: label_smoothing must be from 0 to 1, not {label_smoothing}")
    axis = _class_axis(input, target, weight, op="cross_entropy")
    if target.dtype.is_float:
        return _against_probabilities(input, target, weight, axis, reduction, label_smoothing)
    classes = input.shape[axis]
    kept, labels, scale = _rows(target, weight, ignore_index, _wide(input.dtype))
    loss, total = SoftmaxCrossEntropy(axis).results(input, labels)
    loss = loss * scale
    if label_smoothing > 0.0:
        wide = e.astype(input, scale.dtype)
        if weight is None:
            smooth = total * classes - r.sum(wide, axis=axis)
        else:
            weights = e.astype(weight, scale.dtype)
            smooth = total * r.sum(weights) - r.sum(wide * _along(weights, wide, axis), axis=axis)
        loss = loss * (1.0 - label_smoothing) + smooth * (label_smoothing / classes)
    return e.astype(_reduced(e.where(kept, loss, 0), reduction, scale), input.dtype)


def _along(weight: V, x: V, axis: int) -> V:
    return reshape(weight, tuple(size if a == axis else 1 for a, size in enumerate(x.shape)))


def _against_probabilities(
    input: V, target: V, weight: V | None, axis: int, reduction: str, label_smoothing: float
) -> V:
    logs = log_softmax(input, axis=axis)
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / logs.shape[axis]
    if weight is not None:
        target = target * _along(weight, logs, axis)
    loss = -r.sum(logs * target, axis=axis)
    if reduction == "mean":
        return r.sum(loss) / loss.literal(loss.size, loss.dtype)
    return _reduced(loss, reduction, loss)
