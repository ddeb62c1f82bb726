"""Metrics reduced over the batches of an epoch or a validation: the same arithmetic on the server and on the client."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from telegrad.wire.job_calls import Metric


@dataclass
class Reduction:
    """What has been seen of an epoch or a validation so far; a mean is weighted by rows."""

    totals: dict[str, float] = field(default_factory=dict[str, float])
    rows: int = 0

    def add(self, values: Mapping[str, float], metrics: Iterable[Metric], rows: int) -> None:
        """The metrics of one batch, as the call gave them."""
        self.rows += rows
        for metric in metrics:
            value, name = values[metric.name], metric.name
            match metric.reduce:
                case "mean":
                    self.totals[name] = self.totals.get(name, 0.0) + value * rows
                case "sum":
                    self.totals[name] = self.totals.get(name, 0.0) + value
                case "min":
                    self.totals[name] = min(self.totals.get(name, math.inf), value)
                case "max":
                    self.totals[name] = max(self.totals.get(name, -math.inf), value)
                case "last":
                    self.totals[name] = value

    def result(self, metrics: Iterable[Metric]) -> dict[str, float]:
        """The reduced values; none of what no batch brought."""
        divisor = max(1, self.rows)
        found = {
            metric.name: self.totals[metric.name] / (divisor if metric.reduce == "mean" else 1)
            for metric in metrics
            if metric.name in self.totals
        }
        return quotients(found, metrics)


def quotients(values: Mapping[str, float], metrics: Iterable[Metric]) -> dict[str, float]:
    """The values, each sum that stands over another divided by it; left out where that is 0: nothing was counted."""
    found = dict(values)
    for metric in metrics:
        if metric.over and metric.name in values:
            count = values[metric.over]
            if count:
                found[metric.name] = values[metric.name] / count
            else:
                del found[metric.name]
    return found
