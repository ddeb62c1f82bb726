"""Losses beside cross-entropy, with PyTorch's names, arguments and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable

from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import reduce as r
from telegrad.ops import shape as s
from telegrad.ops.activation import log_sigmoid
from telegrad.ops.control import stop_gradient
from telegrad.ops.distance import pairwise_distance
from telegrad.ops.index import take, take_along_axis


def _reduced(loss: V, reduction: str) -> V:
    if reduction == "mean":
        return r.mean(loss)
    if reduction == "sum":
        return r.sum(loss)
    if reduction != "none":
        raise GraphError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    return loss


def mse_loss(input: V, target: V, *, reduction: str = "mean") -> V:
    """(input - target)**2."""
    return _reduced(e.square(input - target), reduction)


def l1_loss(input: V, target: V, *, reduction: str = "mean") -> V:
    """|input - target|."""
    return _reduced(e.abs(input - target), reduction)


def smooth_l1_loss(input: V, target: V, *, reduction: str = "mean", beta: float = 1.0) -> V:
    """d**2 / (2 beta) where d = |input - target| is below beta, else d - beta / 2."""
    if beta < 0.0:
        raise GraphError(f"smooth_l1_loss: beta must not be negative, as {beta} is")
    difference = input - target
    d = e.abs(difference)
    loss = d if beta == 0.0 else e.where(d < beta, e.square(difference) * (0.5 / beta), d - 0.5 * beta)
    return _reduced(loss, reduction)


def huber_loss(input: V, target: V, *, reduction: str = "mean", delta: float = 1.0) -> V:
    """d**2 / 2 where d = |input - target| is at most delta, else delta * (d - delta / 2)."""
    if delta <= 0.0:
        raise GraphError(f"huber_loss: delta must be positive, which {delta} is not")
    difference = input - target
    d = e.abs(difference)
    return _reduced(e.where(d <= delta, e.square(difference) * 0.5, (d - 0.5 * delta) * delta), reduction)


def binary_cross_entropy_with_logits(
    input: V, target: V, weight: V | None = None, *, reduction: str = "mean", pos_weight: V | None = None
) -> V:
    """The cross-entropy of sigmoid(input) against probabilities, computed without overflow."""
    softplus = e.logaddexp(-input, 0)
    if pos_weight is None:
        loss = (1 - target) * input + softplus
    else:
        loss = (1 - target) * input + (target * (pos_weight - 1) + 1) * softplus
    return _reduced(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy(input: V, target: V, weight: V | None = None, *, reduction: str = "mean") -> V:
    """-(target log(input) + (1 - target) log(1 - input)), each logarithm at least -100."""
    loss = -(target * e.clip(e.log(input), -100) + (1 - target) * e.clip(e.log1p(-input), -100))
    return _reduced(loss if weight is None else loss * weight, reduction)


def sigmoid_focal_loss(input: V, target: V, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none") -> V:
    """-alpha_t (1 - p_t)**gamma log(p_t) of the logits (Lin et al. 2017, equation 5), as torchvision.ops has it.

    p_t is the probability given to the target, alpha_t is alpha for 1 and 1 - alpha for 0; a negative alpha is left
    out.
    """
    p = e.sigmoid(input)
    loss = binary_cross_entropy_with_logits(input, target, reduction="none")
    missed = p + target - p * target * 2  # 1 - p_t
    loss = loss * e.pow(missed, gamma)
    if alpha >= 0.0:
        loss = loss * (target * alpha + (1 - target) * (1 - alpha))
    return _reduced(loss, reduction)


def kl_div(input: V, target: V, *, reduction: str = "mean", log_target: bool = False) -> V:
    """target * (log(target) - input) for log-probabilities ``input``; "batchmean" divides the sum by the batch."""
    if log_target:
        loss = e.exp(target) * (target - input)
    else:
        positive = target > 0
        loss = e.where(positive, target * (e.log(e.where(positive, target, 1)) - input), 0)
    if reduction == "batchmean":
        return r.sum(loss) / input.shape[0]
    return _reduced(loss, reduction)


# ---- margins: how far the right answer must be ahead


def margin_ranking_loss(input1: V, input2: V, target: V, margin: float = 0.0, *, reduction: str = "mean") -> V:
    """max(0, -target * (input1 - input2) + margin); target is 1 where the first should be higher, else -1."""
    return _reduced(e.clip(-target * (input1 - input2) + margin, 0), reduction)


def hinge_embedding_loss(input: V, target: V, margin: float = 1.0, *, reduction: str = "mean") -> V:
    """The distance ``input`` where target is 1, max(0, margin - input) where it is -1."""
    far = e.where(e.not_equal(target, 1), e.clip(margin - input, 0), 0)
    return _reduced(far + e.where(e.not_equal(target, -1), input, 0), reduction)


def soft_margin_loss(input: V, target: V, *, reduction: str = "mean") -> V:
    """log(1 + exp(-target * input)) for targets 1 and -1."""
    return _reduced(e.logaddexp(-target * input, 0), reduction)


def multilabel_soft_margin_loss(input: V, target: V, weight: V | None = None, *, reduction: str = "mean") -> V:
    """The mean over the classes, the last axis, of the cross-entropy of sigmoid(input) against target."""
    loss = -(target * log_sigmoid(input) + (1 - target) * log_sigmoid(-input))
    return _reduced(r.mean(loss if weight is None else loss * weight, axis=-1), reduction)


def _classes(op: str, input: V, target: V, *, axes: int) -> tuple[V, V, bool]:
    """input[N, C] and target with a batch axis, and whether they had one."""
    if input.ndim not in (1, 2) or target.shape != input.shape[: input.ndim - 1 + axes]:
        raise ShapeError(f"{op}({input.type}, {target.type}): takes an input [N, C] or [C] and a target that fits")
    has_batch = input.ndim == 2
    return (input, target, True) if has_batch else (s.expand_dims(input), s.expand_dims(target), has_batch)


def multi_margin_loss(
    input: V, target: V, p: int = 1, margin: float = 1.0, weight: V | None = None, *, reduction: str = "mean"
) -> V:
    """The mean over the other classes of max(0, margin - input[target] + input[i])**p, for input[N, C], target[N]."""
    if p not in (1, 2):
        raise GraphError(f"multi_margin_loss: p is 1 or 2, not {p}")
    x, label, has_batch = _classes("multi_margin_loss", input, target, axes=0)
    column = s.expand_dims(e.astype(label, t.int64), axis=1)
    ahead = e.clip(margin - take_along_axis(x, column, axis=1) + x, 0)
    loss = ahead if p == 1 else e.square(ahead)
    if weight is not None:
        loss = loss * take(weight, column, axis=0)
    number = x.bind(e.Iota((1, x.shape[1]), 1, t.int64), ())[0]
    loss = r.sum(e.where(e.equal(number, column), 0, loss), axis=1) / max(x.shape[1], 1)
    return _reduced(loss if has_batch else s.squeeze(loss, axis=0), reduction)


def multilabel_margin_loss(input: V, target: V, *, reduction: str = "mean") -> V:
    """The sum over targets j and other classes i of max(0, 1 - input[j] + input[i]), over C; target ends at its -1."""
    x, label, has_batch = _classes("multilabel_margin_loss", input, target, axes=1)
    ends = r.cumulative_sum(e.astype(e.equal(label, -1), t.int64), axis=1)
    counts = e.equal(ends, 0)  # [N, j]
    labels = e.astype(e.where(counts, label, 0), t.int64)
    number = x.bind(e.Iota((1, 1, x.shape[1]), 2, t.int64), ())[0]
    is_target = r.any(s.expand_dims(counts, axis=2) & e.equal(s.expand_dims(labels, axis=2), number), axis=1)  # [N, i]
    ahead = e.clip(1 - s.expand_dims(take_along_axis(x, labels, axis=1), axis=2) + s.expand_dims(x, axis=1), 0)
    loss = e.where(s.expand_dims(counts, axis=2) & ~s.expand_dims(is_target, axis=1), ahead, 0)
    loss = r.sum(loss, axis=(1, 2)) / max(x.shape[1], 1)
    return _reduced(loss if has_batch else s.squeeze(loss, axis=0), reduction)


def cosine_embedding_loss(input1: V, input2: V, target: V, margin: float = 0.0, *, reduction: str = "mean") -> V:
    """1 - cos(input1, input2) along the last axis where target is 1, max(0, cos - margin) where it is -1."""
    product = r.sum(input1 * input2, axis=-1)
    lengths = [r.sum(e.square(x), axis=-1) + 1e-12 for x in (input1, input2)]
    cosine = product / e.sqrt(lengths[0] * lengths[1])
    near = e.where(e.equal(target, 1), 1 - cosine, 0)
    return _reduced(near + e.where(e.equal(target, -1), e.clip(cosine - margin, 0), 0), reduction)


def triplet_margin_with_distance_loss(
    anchor: V,
    positive: V,
    negative: V,
    *,
    distance_function: Callable[[V, V], V] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> V:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin); with ``swap`` also d(positive, negative) counts."""
    distance = pairwise_distance if distance_function is None else distance_function
    far = distance(anchor, negative)
    if swap:
        far = e.minimum(far, distance(positive, negative))
    return _reduced(e.clip(distance(anchor, positive) - far + margin, 0), reduction)


def triplet_margin_loss(
    anchor: V,
    positive: V,
    negative: V,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> V:
    """`triplet_margin_with_distance_loss` with the p-norm (Balntas et al. 2016)."""
    return triplet_margin_with_distance_loss(
        anchor,
        positive,
        negative,
        distance_function=lambda x, y: pairwise_distance(x, y, p, eps),
        margin=margin,
        swap=swap,
        reduction=reduction,
    )


# ---- likelihoods


def poisson_nll_loss(
    input: V, target: V, log_input: bool = True, full: bool = False, *, eps: float = 1e-8, reduction: str = "mean"
) -> V:
    """The negative log-likelihood of counts: exp(input) - target * input, or input - target * log(input + eps).

    ``full`` adds Stirling's approximation of log(target!) where target is above 1.
    """
    loss = e.exp(input) - target * input if log_input else input - target * e.log(input + eps)
    if full:
        above = e.where(target > 1, target, 2)
        stirling = above * e.log(above) - above + 0.5 * e.log(above * (2 * math.pi))
        loss = loss + e.where(target > 1, stirling, 0)
    return _reduced(loss, reduction)


def gaussian_nll_loss(
    input: V, target: V, var: V, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> V:
    """(log(var) + (input - target)**2 / var) / 2 with var at least ``eps``; ``full`` adds log(2 pi) / 2.

    var has input's shape, or one number for each vector along the last axis.
    """
    if var.shape != input.shape:
        if var.shape == input.shape[:-1]:
            var = s.expand_dims(var, axis=-1)
        elif var.shape != (*input.shape[:-1], 1):
            raise ShapeError(f"gaussian_nll_loss({input.type}, {target.type}): var {var.type} does not fit")
    spread = var + stop_gradient(e.clip(var, eps) - var)  # the gradient is var's all the same, as in PyTorch
    loss = (e.log(spread) + e.square(input - target) / spread) * 0.5
    return _reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)
