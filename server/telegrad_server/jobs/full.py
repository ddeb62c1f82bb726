"""Workers that had no place for a job's session: each is asked again after a while, twice as long each time. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class _Rest:
    """Until when a worker is left alone, for how long in all, and what it said."""

    until: float
    seconds: float
    why: str


class FullWorkers:
    """Which workers are left alone, and why. ``now`` is of any clock that goes on."""

    def __init__(self) -> None:
        self._rests: dict[str, _Rest] = {}

    def __len__(self) -> int:
        return len(self._rests)

    def refused(self, worker: str, why: str, now: float) -> None:
        """A worker had no place."""
        former = self._rests.get(worker)
        seconds = SHORTEST_WAIT_SECONDS if former is None else min(2 * former.seconds, LONGEST_WAIT_SECONDS)
        self._rests[worker] = _Rest(now + seconds, seconds, why)

    def took(self, worker: str) -> None:
        """A worker had one."""
        self._rests.pop(worker, None)

    def at(self, now: float, *, there: Collection[str]) -> Mapping[str, str]:
        """The workers that are not to be asked yet, and why, of those that are there; others are forgotten."""
        self._rests = {name: rest for name, rest in self._rests.items() if name in there}
        return {
            name: f"{rest.why} (worker {name} is asked again every {rest.seconds:g} s)"
            for name, rest in self._rests.items()
            if now < rest.until
        }
