"""Connectionist temporal classification: the forward recursion as a scan over time; gradients come by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from telegrad import ops
from telegrad.control_flow import scan
from telegrad.creation import arange, asarray
from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types
from telegrad.tensor import Tensor

IMPOSSIBLE = -1e30
"""The logarithm of no probability: finite, so that no gradient becomes infinity minus infinity."""


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-log of the probability of the targets, summed over all alignments (Graves et al. 2006, equations 5 to 8).

    log_probs[time, batch, classes] or [time, classes] from log_softmax; targets[batch, longest], or all of them one
    after the other in one axis; lengths[batch]. "mean" divides by the target lengths and averages over the batch. A
    target that cannot be aligned has an infinite loss without a gradient; with ``zero_infinity`` its loss is 0.

    The derivative is that of this function; PyTorch's is that of its composition with log_softmax, with which both
    agree.
    """
    if reduction not in ("none", "mean", "sum"):
        raise GraphError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    if log_probs.ndim not in (2, 3) or not log_probs.dtype.is_float:
        raise ShapeError(f"ctc_loss takes log_probs of [time, batch, classes] or [time, classes], not {log_probs.type}")
    if targets.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"ctc_loss: targets must be integers, not {targets.dtype}")
    is_batched = log_probs.ndim == 3
    lp = log_probs if is_batched else ops.expand_dims(log_probs, axis=1)
    time, batch, classes = lp.shape
    if not 0 <= blank < classes:
        raise GraphError(f"ctc_loss: blank {blank} is no class of {classes}")
    if time == 0:
        raise ShapeError("ctc_loss: log_probs has no time steps")
    frames = _lengths("input_lengths", input_lengths, batch)
    counts = _lengths("target_lengths", target_lengths, batch)
    labels = _padded(targets, target_lengths, counts, batch)
    losses = -_log_likelihood(lp, labels, frames, counts, blank)
    losses = ops.where(losses < -0.5 * IMPOSSIBLE, losses, 0.0 if zero_infinity else float("inf"))
    if reduction == "mean":
        divisor = ops.astype(ops.maximum(counts, 1), losses.dtype)
        return ops.mean(losses / divisor)
    if reduction == "sum":
        return ops.sum(losses)
    return losses if is_batched else losses[0]


def _lengths(name: str, lengths: Any, batch: int) -> Tensor:
    found = lengths if isinstance(lengths, Tensor) else asarray(np.asarray(lengths, np.int64))
    if found.ndim == 0:
        found = ops.expand_dims(found, axis=0)
    if found.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"ctc_loss: {name} must be integers, not {found.dtype}")
    if found.shape != (batch,):
        raise ShapeError(f"ctc_loss: {name} is {found.type}; there must be one for each of {batch} sequences")
    return ops.astype(found, types.int64)


def _padded(targets: Tensor, target_lengths: Any, counts: Tensor, batch: int) -> Tensor:
    """The targets as [batch, longest]."""
    if targets.ndim == 2:
        if targets.shape[0] != batch:
            raise ShapeError(f"ctc_loss: targets {targets.type} are not those of {batch} sequences")
        return targets
    if targets.ndim != 1:
        raise ShapeError(f"ctc_loss takes targets of [batch, longest] or in one axis, not {targets.type}")
    total = targets.shape[0]
    if batch == 1 and total:
        return ops.expand_dims(targets, axis=0)
    known = list(target_lengths) if isinstance(target_lengths, Sequence) else None
    longest = max((int(n) for n in known), default=0) if known is not None else total  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    starts = ops.cumulative_sum(counts, axis=0) - counts
    places = ops.expand_dims(starts, axis=1) + arange(longest, dtype=types.int64)
    if total == 0:
        return ops.broadcast_to(targets.literal(0, targets.dtype), (batch, longest))
    return ops.take(targets, ops.minimum(places, total - 1), axis=0)


def _log_likelihood(lp: Tensor, labels: Tensor, frames: Tensor, counts: Tensor, blank: int) -> Tensor:
    """log p(labels)[batch] by the forward variables over the labels with blanks between them."""
    time, batch, _ = lp.shape
    longest = labels.shape[1]
    states = 2 * longest + 1
    inside = arange(longest, dtype=types.int64) < ops.expand_dims(counts, axis=1)
    known = ops.where(inside, ops.astype(labels, types.int64), blank)  # padding may be anything
    gap = ops.full_like(known, blank)
    mixed = ops.reshape(ops.stack([gap, known], axis=2), (batch, 2 * longest))
    extended = ops.concat([mixed, ops.full_like(counts[:, None], blank)], axis=1)
    # a blank between two different labels may be left out
    before = ops.concat([ops.full_like(extended[:, :2], blank), extended], axis=1)[:, :states]
    may_skip = ops.logical_and(extended != blank, extended != before)
    emitted = ops.take_along_axis(lp, ops.broadcast_to(extended[None], (time, batch, states)), axis=2)
    never = ops.full_like(emitted[0], IMPOSSIBLE)
    first = ops.where(arange(states) < 2, emitted[0], never)
    if longest:
        first = ops.where(ops.logical_and(arange(states) == 1, ops.expand_dims(counts == 0, axis=1)), never, first)
    shifts = [ops.full_like(first[:, :k], IMPOSSIBLE) for k in (1, 2)]

    def step(alpha: Tensor, now: tuple[Tensor, Tensor]) -> Any:
        emission, number = now
        stay_or_next = ops.logaddexp(alpha, ops.concat([shifts[0], alpha], axis=1)[:, :states])
        skipped = ops.where(may_skip, ops.concat([shifts[1], alpha], axis=1)[:, :states], never)
        after = ops.logaddexp(stay_or_next, skipped) + emission
        return ops.where(ops.expand_dims(number < frames, axis=1), after, alpha), None

    alpha, _ = scan(step, first, (emitted[1:], arange(1, time, dtype=types.int64)))
    ends = ops.expand_dims(2 * counts, axis=1)
    last = ops.take_along_axis(alpha, ends, axis=1)
    other = ops.take_along_axis(alpha, ops.maximum(ends - 1, 0), axis=1)
    other = ops.where(ends > 0, other, IMPOSSIBLE)
    total = ops.logaddexp(last, other)[:, 0]
    return ops.where(frames > 0, total, ops.where(counts == 0, 0.0, IMPOSSIBLE))
