"""In which order jobs wait for a worker, and why each still waits.

Next is the tenant that runs the fewest jobs, counting those placed before in this order; a tenant's own jobs go by when
they were submitted, so one that lost its worker is before later ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple, Protocol


class Standing(Protocol):
    """A job that waits."""

    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def number(self) -> int: ...


class Place(NamedTuple):
    """A place in the line, from 1, and why the job still waits."""

    job: str
    position: int
    reason: str
    may_run: bool


def line(
    waiting: Iterable[Standing], running: Mapping[str, int], *, most: int, notes: Mapping[str, str]
) -> list[Place]:
    """The line. A tenant runs ``most`` jobs at once; ``notes`` holds what placing a job came upon."""
    own: dict[str, list[Standing]] = {}
    for job in sorted(waiting, key=lambda job: job.number, reverse=True):
        own.setdefault(job.tenant, []).append(job)
    heads = [(running.get(tenant, 0), jobs[-1].number, tenant) for tenant, jobs in own.items()]
    heapify(heads)
    places: list[Place] = []
    while heads:
        count, _, tenant = heads[0]
        job = own[tenant].pop()
        places.append(_place(job, len(places) + 1, running.get(tenant, 0), count, most, notes.get(job.id, "")))
        if own[tenant]:
            heapreplace(heads, (count + 1, own[tenant][-1].number, tenant))
        else:
            heappop(heads)
    return places


def _place(job: Standing, position: int, running: int, count: int, most: int, note: str) -> Place:
    before = f"{position - 1} job{'s are' if position > 2 else ' is'} before it"
    if count >= most:
        own = f"its tenant may run {most} at once, and {running} run"
        return Place(job.id, position, own if running >= most else f"{own}; others of its own are before it", False)
    if note:
        return Place(job.id, position, note, True)
    return Place(job.id, position, "a worker is being looked for" if position == 1 else before, True)
