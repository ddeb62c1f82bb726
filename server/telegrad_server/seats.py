"""The seats of a worker: its sessions, each with who listens to it, what comes in for it, and who helps to run it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from telegrad.ir.types import Type
from telegrad.wire import messages as m

from telegrad_server.cluster.crew import Crew
from telegrad_server.cluster.groups import Groups
from telegrad_server.cluster.lines import Recruiter
from telegrad_server.cluster.parts import Parts
from telegrad_server.cluster.together import Together
from telegrad_server.config import Config
from telegrad_server.events import Events
from telegrad_server.executors import Executor
from telegrad_server.executors.timing import Spans
from telegrad_server.functions import Functions, Known
from telegrad_server.line import Claim
from telegrad_server.names import Names
from telegrad_server.offers import Offered, Offers
from telegrad_server.sessions import Session, Task
from telegrad_server.shared_memory import SharedMemory, new_memory
from telegrad_server.store import Account
from telegrad_server.tally import Tally
from telegrad_server.uploads import Upload

MOST_SPANS = 20_000
"""So many a record may have, whatever is asked for: they are kept in memory, and come back in one message."""

Deliver = Callable[[int, m.Event], None]


class Neighbours(NamedTuple):
    """How a worker of a cluster gets at others."""

    groups: Groups
    recruiter: Recruiter


@dataclass(slots=True, eq=False)
class Seat:
    """A session, who listens to it, the uploads under way, and in a cluster the session's other workers."""

    session: Session
    request: tuple[str, str, float | None] | None
    deliver: Deliver | None = None
    taken: Callable[[], None] | None = None
    is_delivering: bool = False
    uploads: set[Upload] = field(default_factory=set[Upload])
    company: Together | None = None
    claim: Claim = field(default_factory=Claim)
    paused_seconds: float = 0.0  # of the turn under way
    memory: SharedMemory | None = None
    spans: Spans | None = None  # while the client records when things happen, and after

    def share_memory(self) -> SharedMemory | None:
        """The memory that is shared with the client, made when it is first wanted; None if this machine has none."""
        if self.memory is None:
            self.memory = new_memory()
        return self.memory

    def placed(self, sequence: int, command: m.Command, tally: Tally) -> m.Command:
        """The command, with its bytes if shared memory should have them; with none if it has not, and it fails.

        One that asks for the time is told when it came.
        """
        if isinstance(command, m.Profile):
            if command.spans and (self.spans is None or self.spans.is_over):
                self.spans = Spans(min(command.spans, MOST_SPANS))
            return replace(command, received_ns=time.perf_counter_ns())
        if self.spans is not None:
            self.spans.arrive(sequence, time.perf_counter_ns())
        if not isinstance(command, m.Put) or not command.place:
            return command
        memory = self.memory
        data = memory.bytes_at(command.place, command.type.nbytes) if memory is not None else b""
        tally.uploaded_bytes += len(data)
        return replace(command, data=data)

    def settle(self) -> None:
        """Tell the client which of its commands are over."""
        if self.memory is not None:
            self.memory.settle(self.session.settled)

    def close_memory(self) -> None:
        """The session is over."""
        if self.memory is not None:
            self.memory.close()


class Turn(NamedTuple):
    """A task of a session, and the function it runs."""

    seat: Seat
    task: Task
    known: Known | None


class Tenants:
    """The accounts of a worker: its own, and those of the tenants with sessions on it."""

    def __init__(self, config: Config) -> None:
        self._limit_bytes = config.max_tenant_bytes
        self._all = Account("the worker", limit_bytes=config.max_bytes)
        self._accounts: dict[str, Account] = {}

    @property
    def nbytes(self) -> int:
        """The bytes of all."""
        return self._all.nbytes

    def account(self, tenant: str) -> Account:
        """The account of a tenant who has, or is about to have, a session here."""
        found = self._accounts.get(tenant)
        if found is None:
            found = Account("the tenant", limit_bytes=self._limit_bytes, wider=self._all)
            self._accounts[tenant] = found
        return found

    def held_bytes(self, tenant: str) -> int:
        """The bytes of a tenant's sessions."""
        found = self._accounts.get(tenant)
        return found.nbytes if found is not None else 0

    def forget(self, tenant: str) -> None:
        """The tenant has no session any more."""
        self._accounts.pop(tenant, None)


def new_session(
    tenant: str,
    *,
    lease_seconds: float | None,
    is_peers: bool,
    now: float,
    payer: Account,
    config: Config,
    functions: Functions,
) -> Session:
    """A session with a random id and secret. ``payer`` is its tenant's account."""
    account = Account("the session", limit_bytes=config.max_session_bytes, wider=payer)
    return Session(
        id=secrets.token_hex(16),
        tenant=tenant,
        secret=secrets.token_bytes(32),
        lease_seconds=None if lease_seconds is None else min(lease_seconds, config.lease_seconds),
        heard_at=now,
        names=Names(account, max_names=config.max_names),
        events=Events(
            limit=config.unheard_events,
            limit_bytes=config.unheard_event_bytes,
            is_kept=lease_seconds is not None,
        ),
        is_known=lambda function: functions.knows(tenant, function),
        updated_by=lambda function: functions.updated_by(tenant, function),
        is_peers=is_peers,
    )


def new_company(
    session: Session,
    neighbours: Neighbours,
    *,
    functions: Functions,
    executor: Executor,
    offers: Offers,
    waiting: Callable[[], AbstractContextManager[None]],
) -> Together:
    """The session's way to other workers. ``waiting`` surrounds the times in which it computes nothing."""
    crew = Crew(
        session.id,
        session.tenant,
        groups=neighbours.groups,
        recruiter=neighbours.recruiter,
        functions=functions,
        executor=executor,
    )
    parts = Parts(
        session.id,
        session.tenant,
        recruiter=neighbours.recruiter,
        functions=functions,
        executor=executor,
        offers=offers,
    )
    return Together(session.id, neighbours.groups, functions, crew, parts, waiting)


def run_errands(
    session: Session,
    offers: Offers,
    neighbours: Neighbours | None,
    begin_upload: Callable[[str, str, bytes, int, Type], Upload],
) -> None:
    """Give other workers what they may take of a session, and begin to take what it wants of them. Nothing waits."""
    errands, session.errands = session.errands, []
    for errand in errands:
        if isinstance(errand, Offered):
            offers.put(session.id, errand)
        elif neighbours is not None:
            who = session.tenant, session.id, session.secret
            neighbours.recruiter.pull(errand, partial(begin_upload, *who, errand.name, errand.type))
