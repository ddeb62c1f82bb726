"""Metrics by name: functions of a batch's outputs and targets.

One returns a number, the mean over the batch's rows, so that over an epoch rows weigh the same; or a pair (sum, count),
where a batch counts something else than its rows, such as words that are not padding: the mean is then sum over count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from telegrad import ops
from telegrad.errors import GraphError
from telegrad.ir import types
from telegrad.tensor import Tensor

Metric = Callable[..., Any]


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """The share of targets, integers, that have the largest output along the last axis."""
    return _share(ops.argmax(output, axis=-1) == target)


def top_k(k: int) -> Metric:
    """The metric "top_k": the share of targets that are among the k largest outputs along the last axis."""

    def metric(output: Tensor, target: Tensor) -> Tensor:
        own = ops.take_along_axis(output, ops.expand_dims(ops.astype(target, types.int64), axis=-1), axis=-1)
        before = ops.sum(ops.astype(output > own, types.int32), axis=-1)
        return _share(before < k)

    metric.__name__ = f"top_{k}"
    return metric


def binary_accuracy(output: Tensor, target: Tensor) -> Tensor:
    """The share of targets, 0 or 1, that a logit is on the right side for."""
    return _share((output > 0) == (target > 0))


def mean_absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """The mean of |output - target|."""
    return ops.mean(ops.abs(output - target))


def mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """The mean of (output - target)**2."""
    return ops.mean((output - target) ** 2)


def masked_accuracy(ignore_index: int = -100) -> Metric:
    """The metric "accuracy" over the targets that are not ``ignore_index``, as a pair (sum, count)."""

    def metric(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        counts = target != ignore_index
        right = ops.logical_and(ops.argmax(output, axis=-1) == target, counts)
        return ops.sum(ops.astype(right, types.float32)), ops.sum(ops.astype(counts, types.float32))

    metric.__name__ = "accuracy"
    return metric


def _share(holds: Tensor) -> Tensor:
    return ops.mean(ops.astype(holds, types.float32))


NAMED: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "binary_accuracy": binary_accuracy,
    "mae": mean_absolute_error,
    "mse": mean_squared_error,
}
"""What a metric may be called instead of being given; "top_5" is one too, with any number."""


def by_name(metrics: Mapping[str, Metric] | Sequence[str | Metric]) -> dict[str, Metric]:
    """The metrics by the names under which they are recorded. GraphError for a name that is unknown or there twice."""
    if isinstance(metrics, Mapping):
        found = [(str(name), metric) for name, metric in metrics.items()]
    else:
        found = [_named(metric) for metric in metrics]
    for name, _ in found:
        if name == "loss" or [other for other, _ in found].count(name) > 1:
            raise GraphError(f"two metrics are called {name!r}; give them as a dict of functions by name")
    return dict(found)


def _named(metric: str | Metric) -> tuple[str, Metric]:
    if not isinstance(metric, str):
        return getattr(metric, "__name__", type(metric).__name__), metric
    top = re.fullmatch(r"top_([1-9][0-9]*)", metric)
    if top is None and metric not in NAMED:
        known = ", ".join([*NAMED, "top_5"])
        raise GraphError(f"there is no metric {metric!r}; there are {known}, and any function of (output, target)")
    return metric, top_k(int(top[1])) if top is not None else NAMED[metric]


__all__ = [
    "accuracy",
    "binary_accuracy",
    "by_name",
    "masked_accuracy",
    "mean_absolute_error",
    "mean_squared_error",
    "top_k",
]
