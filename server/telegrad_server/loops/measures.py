"""What a loop knows of its metrics: sums over the epoch, the last reduced values, and whether it is time to stop.

All of it is numbers by name, which a checkpoint holds, so that a loop which goes on from there decides as it would
have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from telegrad.wire.job_calls import Metric
from telegrad.wire.job_spec import JobSpec, Mode
from telegrad.wire.reduction import Reduction

EPOCH = "epoch/"
"""What a step's metric is called when it has been reduced over an epoch."""


def is_better(value: float, than: float, mode: Mode, by: float = 0.0) -> bool:
    """Whether a metric has become better. NaN never is; anything is better than NaN."""
    if math.isnan(value) or math.isnan(than):
        return math.isnan(than) and not math.isnan(value)
    return value < than - by if mode == "min" else value > than + by


class Measures:
    """The numbers of a loop that its next decisions depend on. ``calls`` counts the calls that drew random numbers."""

    def __init__(self, spec: JobSpec, saved: Mapping[str, float] | None = None, *, step: int = 0) -> None:
        saved = saved or {}
        self.epoch = Reduction(_part(saved, "sum:"), int(saved.get("rows", 0)))
        self.reduced = _part(saved, "reduced:")
        self.best = saved.get("best", math.nan)
        self.stop_best = saved.get("stop_best", math.nan)
        self.worse = int(saved.get("worse", 0))
        self.best_step = int(saved.get("best_step", -1))
        self._spec = spec
        self._forgive(step)

    def saved(self) -> dict[str, float]:
        """Everything, as numbers by name."""
        return {
            **{f"sum:{name}": value for name, value in self.epoch.totals.items()},
            **{f"reduced:{name}": value for name, value in self.reduced.items()},
            "rows": float(self.epoch.rows),
            "best": self.best,
            "stop_best": self.stop_best,
            "worse": float(self.worse),
            "best_step": float(self.best_step),
        }

    def end_epoch(self, metrics: Iterable[Metric]) -> dict[str, float]:
        """The values over the epoch, which is over."""
        found, self.epoch = self.epoch.result(metrics), Reduction()
        return found

    def reduce(self, values: Mapping[str, float], step: int) -> bool:
        """Take reduced values. Whether the metric that decides is better than at any checkpoint before."""
        self.reduced.update(values)
        early, keep = self._spec.early_stopping, self._spec.keep_best
        if early is not None and early.metric in values:
            value = values[early.metric]
            if is_better(value, self.stop_best, early.mode, early.min_delta):
                self.stop_best, self.worse = value, 0
            else:
                self.worse += 1
            self._forgive(step)
        if keep is None or keep.metric not in values or not is_better(values[keep.metric], self.best, keep.mode):
            return False
        self.best, self.best_step = values[keep.metric], step
        return True

    def _forgive(self, step: int) -> None:
        early = self._spec.early_stopping
        if early is not None and step <= early.since:
            self.worse = 0

    @property
    def is_enough(self) -> bool:
        """Whether the loop should stop early."""
        early = self._spec.early_stopping
        return early is not None and self.worse > early.patience


def _part(saved: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
