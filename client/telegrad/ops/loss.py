"""Losses beside cross-entropy, with PyTorch's names, arguments and reductions."""

from __future__ import annotations

from telegrad.errors import GraphError
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import reduce as r


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
