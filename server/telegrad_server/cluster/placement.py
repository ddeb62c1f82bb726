"""Which worker a session gets, which ones its replicas, and who waits in what order. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from telegrad_server.cluster.members import Member, State

Strategy = Literal["pack", "spread"]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a session wants of its home. Empty words and zero mean that anything will do."""

    backend: str = ""
    worker: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A worker that takes the session."""

    member: Member


@dataclass(frozen=True, slots=True)
class Wait:
    """No worker takes the session now. ``is_hopeless``: nor would one that is empty."""

    why: str
    is_hopeless: bool = False


def place(demand: Demand, members: Iterable[Member], *, starting: Collection[str] = ()) -> Place | Wait:
    """The worker with the fewest sessions that meets the demand, then the one with the least memory in use.

    ``starting`` are workers that have not joined yet.
    """
    members = list(members)
    if not members:
        return Wait("no worker has joined the cluster yet")
    fitting = [m for m in members if _fits(demand, m)]
    if not fitting and demand.worker in starting:
        return Wait(f"worker {demand.worker} is being started")
    if not fitting:
        return Wait(_hopeless(demand, members), is_hopeless=True)
    free = [m for m in fitting if m.state is State.LIVE]
    if not free:
        return Wait("every worker that fits is draining")
    roomy = [m for m in free if m.sessions < m.facts.max_sessions]
    if not roomy:
        return Wait(f"all {len(free)} workers that fit hold as many sessions as they take")
    able = [m for m in roomy if m.facts.max_bytes - m.held_bytes >= demand.memory_bytes]
    if not able:
        most = max(m.facts.max_bytes - m.held_bytes for m in roomy)
        return Wait(f"{demand.memory_bytes} bytes are wanted and {most} are free on the emptiest worker that fits")
    return Place(min(able, key=lambda m: (m.sessions, m.held_bytes, m.facts.name)))


def _fits(demand: Demand, member: Member) -> bool:
    facts = member.facts
    return (
        demand.backend in ("", facts.backend)
        and demand.worker in ("", facts.name)
        and demand.memory_bytes <= facts.max_bytes
    )


def _hopeless(demand: Demand, members: Sequence[Member]) -> str:
    if demand.worker and not any(m.facts.name == demand.worker for m in members):
        return f"there is no worker {demand.worker!r}; there are {', '.join(m.facts.name for m in members)}"
    if demand.backend and not any(m.facts.backend == demand.backend for m in members):
        return f"no worker computes with {demand.backend!r}; there are {_counted(m.facts.backend for m in members)}"
    return f"no worker holds {demand.memory_bytes} bytes with what else is wanted"


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{n} x {word}" for word, n in sorted(Counter(words).items()))


def companions(
    home: Member, members: Iterable[Member], *, count: int, strategy: Strategy, without: Iterable[str] = ()
) -> list[Member]:
    """At most ``count`` workers whose results have the same bits as the home's: few machines, or many.

    Those that carry the fewest sessions come first, since replicas go at the speed of the slowest.
    """
    excluded = {home.facts.name, *without}
    able = [
        m
        for m in members
        if m.facts.name not in excluded and m.state is State.LIVE and m.facts.fingerprint == home.facts.fingerprint
    ]
    able.sort(key=lambda m: (m.sessions, m.facts.name))
    chosen: list[Member] = []
    used = Counter({home.facts.machine: 1})
    while able and len(chosen) < count:
        sign = -1 if strategy == "pack" else 1
        best = min(able, key=lambda m: (min(m.sessions, 1), sign * used[m.facts.machine], m.sessions, m.facts.name))
        able.remove(best)
        used[best.facts.machine] += 1
        chosen.append(best)
    return chosen


@dataclass(slots=True, eq=False)
class Waiting:
    """A session in the queue."""

    request: tuple[str, str]  # tenant, request id
    demand: Demand
    number: int
    heard_at: float


FORGOTTEN_SECONDS = 10.0
"""A client that does not ask for so long has left the queue."""


class Queue:
    """Sessions that wait for a place: tenants take turns, and within a tenant who came first."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], Waiting] = {}
        self._number = 0
        self._order: list[Waiting] | None = None  # until somebody comes or goes
        self._served: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, tenant: str, request_id: str, demand: Demand, now: float) -> Waiting:
        """The place in the queue of a request, which is at the end if it is new."""
        key = (tenant, request_id)
        waiting = self._waiting.get(key)
        if waiting is None:
            self._number += 1
            if all(w.request[0] != tenant for w in self._waiting.values()):
                # who comes back has no credit for the time he was away, and no debt
                others = [self._served[w.request[0]] for w in self._waiting.values()]
                self._served[tenant] = max(self._served[tenant], min(others, default=self._served[tenant]))
            waiting = self._waiting[key] = Waiting(key, demand, self._number, now)
            self._order = None
        waiting.heard_at = now
        return waiting

    def order(self) -> list[Waiting]:
        """Everyone, in the order in which they get a place."""
        if self._order is not None:
            return self._order
        turns: list[tuple[int, int, Waiting]] = []
        ahead: Counter[str] = Counter()
        for waiting in sorted(self._waiting.values(), key=lambda w: w.number):
            tenant = waiting.request[0]
            turns.append((self._served[tenant] + ahead[tenant], waiting.number, waiting))
            ahead[tenant] += 1
        self._order = [waiting for _, _, waiting in sorted(turns, key=lambda turn: turn[:2])]
        return self._order

    def withdraw(self, tenant: str, request_id: str) -> None:
        """It waits no longer."""
        waiting = self._waiting.get((tenant, request_id))
        if waiting is not None:
            self.leave(waiting, is_served=False)

    def position(self, waiting: Waiting) -> int:
        """1 for who is next."""
        return self.order().index(waiting) + 1

    def is_first(self, waiting: Waiting, members: Sequence[Member]) -> bool:
        """Whether nobody before it could be placed now."""
        for other in self.order():
            if other is waiting:
                return True
            if isinstance(place(other.demand, members), Place):
                return False
        return False

    def leave(self, waiting: Waiting, *, is_served: bool) -> None:
        """It has got a place, or given up."""
        if self._waiting.pop(waiting.request, None) is not None:
            self._order = None
            self._served[waiting.request[0]] += is_served

    def forget(self, now: float) -> None:
        """Those who have not asked for long are not there any more."""
        for waiting in [w for w in self._waiting.values() if now - w.heard_at > FORGOTTEN_SECONDS]:
            self.leave(waiting, is_served=False)
        if not self._waiting:
            self._served.clear()
