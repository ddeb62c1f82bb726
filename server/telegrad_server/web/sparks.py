"""Small curves for the list of jobs: each job's loss in a few dozen means, brought up to date as the list is asked for.

Bounded in all ways: so many points of a curve, so many curves, so many rows read for one list.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable

from telegrad.wire.jobs import JobInfo, MetricRow

from telegrad_server.web.sources import JobBook

POINTS = 64
CURVES = 1024
ROWS = 20_000
"""So many rows are read for one list, about; curves that are not up to date then are so in one of the next."""

FIRST_CHOICE = "loss"


class Spark:
    """Means of equally many steps each, at most `POINTS`; twice as many steps when there would be more."""

    def __init__(self) -> None:
        self.step = -1
        self.seen: list[tuple[int, str, float]] = []
        """The rows of the last step that has any: its number, and their names and times."""
        self.name = ""
        self._means: list[float] = []
        self._each = 1
        self._sum, self._count = 0.0, 0

    def add(self, rows: Iterable[MetricRow]) -> None:
        """Take the next rows, by step."""
        for row in rows:
            self.step = max(self.step, row.step)
            self.seen = [*(seen for seen in self.seen if seen[0] == row.step), _mark(row)]
            if row.name == FIRST_CHOICE != self.name:
                self._means, self._each, self._sum, self._count, self.name = [], 1, 0.0, 0, FIRST_CHOICE
            self.name = self.name or row.name
            if row.name == self.name and math.isfinite(row.value):
                self._add(row.value)

    def _add(self, value: float) -> None:
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count < self._each:
            return
        self._means.append(self._sum / self._count)
        self._sum, self._count = 0.0, 0
        if len(self._means) == POINTS:
            self._means = [(a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)]
            self._each *= 2

    @property
    def points(self) -> list[float]:
        """The curve so far."""
        rest = [self._sum / self._count] if self._count else []
        return [*self._means, *rest]


class Sparks:
    """The curves of the jobs that were asked for last."""

    def __init__(self, book: JobBook) -> None:
        self._book = book
        self._lock = threading.Lock()
        self._curves: OrderedDict[tuple[str, str], Spark] = OrderedDict()

    def of(self, tenant: str, jobs: Iterable[JobInfo]) -> dict[str, Spark]:
        """A curve for each of the tenant's jobs, by id."""
        with self._lock:
            left, found = ROWS, dict[str, Spark]()
            for job in jobs:
                spark = self._curve(tenant, job)
                if left > 0 and job.step > spark.step:
                    left -= self._bring_up(tenant, job, spark)
                found[job.id] = self._curves[tenant, job.id]
            while len(self._curves) > CURVES:
                self._curves.popitem(last=False)
            return found

    def _bring_up(self, tenant: str, job: JobInfo, spark: Spark) -> int:
        """Add what is new to a curve, or begin it anew; how many rows were read."""
        seen = spark.seen
        rows = self._book.metrics(tenant, job.id, seen[0][0] - 1 if seen else spark.step)
        if list(map(_mark, rows[: len(seen)])) != seen:  # it was rewound, and has come further than it was
            anew = self._curves[tenant, job.id] = Spark()
            return len(rows) + self._bring_up(tenant, job, anew)
        spark.add(rows[len(seen) :])
        if len(rows) == len(seen):
            spark.step = job.step  # steps without metrics are not asked for again
        return len(rows)

    def _curve(self, tenant: str, job: JobInfo) -> Spark:
        spark = self._curves.pop((tenant, job.id), None)
        if spark is None or spark.step > job.step:  # it was rewound
            spark = Spark()
        self._curves[tenant, job.id] = spark
        return spark


def _mark(row: MetricRow) -> tuple[int, str, float]:
    return row.step, row.name, row.at
