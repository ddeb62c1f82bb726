"""The members of a cluster as a pure state machine: events and the time go in, decisions come out.

::

    (started) -- join --> LIVE -- drain --> DRAINING
                            |                  |
                            +---- leave, end of its process, lease over ----> gone

A worker that is gone stays gone: its process is told so when it asks again, and stops. What returns is a new process
with a new incarnation. A gateway that was started anew knows nobody, and takes in the processes that are still there,
sessions and all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from telegrad.errors import GraphError, StateLost, TelegradError

from telegrad_server.sights import Shown


class State(Enum):
    """Where a member stands."""

    LIVE = "live"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a worker process says of itself when it joins."""

    name: str
    incarnation: str
    address: str
    direct_address: str = ""
    collectives_address: str = ""
    machine: str = ""
    device: str = ""
    backend: str = "numpy"
    fingerprint: str = ""
    version: str = ""
    max_sessions: int = 256
    max_bytes: int = 1 << 50


@dataclass(slots=True, eq=False)
class Member:
    """A worker. ``sessions`` counts those it has reported and those opened since."""

    facts: Facts
    generation: int
    lease_until: float
    state: State = State.LIVE
    sessions: int = 0
    held_bytes: int = 0
    busy_seconds: float = 0.0
    shown: Shown = field(default_factory=Shown)
    opened: dict[str, float] = field(default_factory=dict[str, float])  # sessions that a report may not know yet: when
    closed: dict[str, float] = field(default_factory=dict[str, float])  # those that one may still count


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker that is no more: its process, why, whether that may still be running, and whether it said goodbye."""

    name: str
    incarnation: str
    address: str
    why: str
    may_run: bool
    has_left: bool = False


class Members:
    """All workers. ``lease_seconds`` is how long a worker may go on without renewing."""

    def __init__(self, *, lease_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self._members: dict[str, Member] = {}
        self._gone: dict[str, str] = {}  # incarnation -> why
        self._generation = 0

    def __len__(self) -> int:
        return len(self._members)

    def all(self) -> list[Member]:
        """Every member, by name."""
        return [self._members[name] for name in sorted(self._members)]

    def find(self, name: str, incarnation: str | None = None) -> Member | None:
        """The member of this name, if it is that process."""
        member = self._members.get(name)
        if member is None or (incarnation is not None and member.facts.incarnation != incarnation):
            return None
        return member

    def why_gone(self, incarnation: str) -> str | None:
        """Why a process is no member any more; None for one that never was one."""
        return self._gone.get(incarnation)

    # ---- events

    def join(self, facts: Facts, now: float) -> tuple[Member, Gone | None]:
        """A process joins; also returns the one whose name it takes. StateLost if it was given up before.

        GraphError (NAME_REUSED) if a worker on another machine has the name.
        """
        why = self._gone.get(facts.incarnation)
        if why is not None:
            raise StateLost(f"worker {facts.name} was given up: {why}; start it anew")
        known = self._members.get(facts.name)
        if known is not None and known.facts.incarnation == facts.incarnation:
            known.facts = facts
            known.lease_until = now + self.lease_seconds
            return known, None
        gone = None
        if known is not None and known.facts.machine != facts.machine:
            raise GraphError(
                f"another machine has a worker named {facts.name}; give this one another --name", reason="NAME_REUSED"
            )
        if known is not None:
            gone = self._end(known, "another process of its name has joined", may_run=True)
        self._generation += 1
        member = Member(facts, self._generation, now + self.lease_seconds)
        self._members[facts.name] = member
        return member, gone

    def renew(
        self,
        name: str,
        incarnation: str,
        *,
        sessions: int,
        held_bytes: int,
        busy_seconds: float,
        now: float,
        held: Mapping[str, int],
    ) -> Member | None:
        """A worker is alive and says what it carries; ``held`` are the bytes of its sessions, by id.

        None if it is not known; StateLost if it was given up.
        """
        why = self._gone.get(incarnation)
        if why is not None:
            raise StateLost(f"worker {name} was given up: {why}; start it anew")
        member = self.find(name, incarnation)
        if member is None:
            return None
        member.lease_until = now + self.lease_seconds
        member.opened = _since(now - self.lease_seconds / 3, member.opened)
        member.closed = _since(now - self.lease_seconds, member.closed)
        over = held.keys() & member.closed.keys()
        member.sessions = max(0, sessions - len(over)) + len(member.opened.keys() - held.keys())
        member.held_bytes = max(0, held_bytes - sum(held[session] for session in over))
        member.busy_seconds = busy_seconds
        return member

    def shown(self, name: str, incarnation: str, shown: Shown) -> None:
        """A worker shows itself to people."""
        member = self.find(name, incarnation)
        if member is not None:
            member.shown = shown

    def opened(self, name: str, session: str, now: float) -> None:
        """A session is being opened on a worker, whose next report may be older than that."""
        member = self._members.get(name)
        if member is not None:
            member.sessions += session not in member.opened
            member.opened[session] = now
            member.closed.pop(session, None)

    def named(self, name: str, session: str, session_id: str) -> None:
        """What was opened as ``session`` has got this id."""
        member = self._members.get(name)
        if member is not None and session in member.opened:
            member.opened[session_id] = member.opened.pop(session)

    def closed(self, name: str, session: str, now: float) -> None:
        """A session on a worker was closed, or has not come about; its next report may be older than that."""
        member = self._members.get(name)
        if member is not None and session not in member.closed:
            member.sessions = max(0, member.sessions - 1)
            member.opened.pop(session, None)
            member.closed[session] = now

    def drain(self, name: str) -> None:
        """The worker takes no new sessions."""
        member = self._members.get(name)
        if member is not None:
            member.state = State.DRAINING

    def leave(self, name: str, incarnation: str) -> Gone | None:
        """The worker says goodbye."""
        member = self.find(name, incarnation)
        gone = None if member is None else self._end(member, "it has left the cluster", may_run=False)
        return replace(gone, has_left=True) if gone is not None else None

    def ended(self, name: str, why: str) -> Gone | None:
        """The worker's process has ended for certain."""
        member = self._members.get(name)
        return None if member is None else self._end(member, why, may_run=False)

    def tick(self, now: float) -> list[Gone]:
        """The workers whose lease is over: they have stopped by themselves."""
        late = [member for member in self._members.values() if now > member.lease_until]
        return [
            self._end(member, f"nothing was heard from it for {self.lease_seconds:g} s", may_run=True)
            for member in late
        ]

    def _end(self, member: Member, why: str, *, may_run: bool) -> Gone:
        facts = member.facts
        del self._members[facts.name]
        self._gone[facts.incarnation] = why
        return Gone(facts.name, facts.incarnation, facts.address, why, may_run)

    # ---- questions

    def lost(self, worker: str, incarnation: str) -> TelegradError | None:
        """What to tell a client whose session lived on a process that is gone; None if it may be there."""
        why = self._gone.get(incarnation)
        if why is None:
            return None
        return StateLost(
            f"worker {worker}, the home of this session, is gone ({why}): the session's tensors and variables are"
            " lost; connect again and upload or load a checkpoint",
            worker=worker,
        )

    def validate(self, names: Collection[str] = ()) -> None:
        """Assert what must always hold."""
        assert all(name == member.facts.name for name, member in self._members.items())
        assert not any(member.facts.incarnation in self._gone for member in self._members.values())
        generations = [member.generation for member in self._members.values()]
        assert len(set(generations)) == len(generations)


def _since(earliest: float, sessions: Mapping[str, float]) -> dict[str, float]:
    return {session: at for session, at in sessions.items() if at > earliest}
