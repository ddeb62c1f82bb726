"""Which worker gets a job. Pure.

What the job wishes for must be so. Then bits come first: while a worker with the job's fingerprint is there, the job
waits for one of those. Among the workers that may have it, the one with the fewest jobs does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from telegrad.wire.job_spec import Demand

ANYWHERE = Demand()


class Site(NamedTuple):
    """A worker that takes ``most`` jobs at a time; 0: as many as there are."""

    worker: str
    fingerprint: str
    most: int = 0
    backend: str = ""
    free_bytes: int = 1 << 62

    def meets(self, demand: Demand) -> bool:
        """Whether it is what a job wishes for."""
        return (
            demand.worker in ("", self.worker)
            and demand.backend in ("", self.backend)
            and demand.memory_bytes <= self.free_bytes
        )


NOBODY: Mapping[str, str] = {}


def choose(
    sites: Sequence[Site],
    taken: Counter[str],
    *,
    fingerprint: str,
    demand: Demand = ANYWHERE,
    full: Mapping[str, str] = NOBODY,
) -> Site | str:
    """The worker for a job that has this fingerprint, if it has begun anywhere; or why it waits.

    ``full`` are workers that are not to be asked now, and why.
    """
    if not sites:
        return "no worker is there that takes jobs"
    there = len(sites)
    sites = [site for site in sites if site.meets(demand)]
    if not sites:
        return f"none of the {there} workers that are there is {_words(demand)}"
    alike = [site for site in sites if site.fingerprint == fingerprint] or list(sites)
    free = [site for site in alike if not site.most or taken[site.worker] < site.most]
    able = [site for site in free if site.worker not in full]
    if able:
        return min(able, key=lambda site: (taken[site.worker], site.worker))
    if free:
        return full[free[0].worker]
    if len(alike) < len(sites):
        return f"all workers that compute the bits it began with have other jobs: {len(alike)} of {len(sites)}"
    return f"all {len(sites)} workers have other jobs" if len(sites) > 1 else "the one worker has another job"


def _words(demand: Demand) -> str:
    words = [f"named {demand.worker}"] if demand.worker else []
    words += [f"one that computes with {demand.backend}"] if demand.backend else []
    words += [f"one with {demand.memory_bytes:,} bytes free"] if demand.memory_bytes else []
    return " and ".join(words)
