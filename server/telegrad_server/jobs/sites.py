"""Which worker gets a job. Pure.

Bits come first: while a worker with the job's fingerprint is there, the job waits for one of those. Among the workers
that may have it, the one with the fewest jobs does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Site(NamedTuple):
    """A worker that takes ``most`` jobs at a time; 0: as many as there are."""

    worker: str
    fingerprint: str
    most: int = 0


def choose(sites: Sequence[Site], taken: Counter[str], *, fingerprint: str) -> Site | str:
    """The worker for a job that has this fingerprint, if it has begun anywhere; or why it waits."""
    if not sites:
        return "no worker is there that takes jobs"
    alike = [site for site in sites if site.fingerprint == fingerprint] or list(sites)
    free = [site for site in alike if not site.most or taken[site.worker] < site.most]
    if free:
        return min(free, key=lambda site: (taken[site.worker], site.worker))
    if len(alike) < len(sites):
        return f"all workers that compute the bits it began with have other jobs: {len(alike)} of {len(sites)}"
    return f"all {len(sites)} workers have other jobs" if len(sites) > 1 else "the one worker has another job"
