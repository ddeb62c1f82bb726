"""Counts of what a server has done, for `metrics`. Plain numbers: to count costs no more than to add.

Nothing here is by session, tenant or function: what is counted by is a reason of the table in `telegrad.wire.status`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

RUN_SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    60.0,
)

WRITE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
WAIT_SECONDS = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)


class Durations:
    """How many lasted how long: ``counts[i]`` at most ``bounds[i]`` seconds and more than the bound before."""

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class Tally:
    """A worker's counts. Written under the worker's lock, `refused` on the event loop; read at any time."""

    __slots__ = (
        "downloaded_bytes", "expired_sessions", "failed", "opened_sessions", "refused", "runs", "uploaded_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.opened_sessions = 0
        self.expired_sessions = 0
        self.runs = Durations(RUN_SECONDS)
        self.failed = Counter[str]()
        self.refused = Counter[str]()
        self.uploaded_bytes = 0
        self.downloaded_bytes = 0


class Written:
    """What was written to the store of checkpoints: how many bytes, and how long each checkpoint took."""

    __slots__ = ("bytes", "durations")

    def __init__(self) -> None:
        self.durations = Durations(WRITE_SECONDS)
        self.bytes = 0
