"""The jobs and their journal as one: nothing is acknowledged, and nothing commanded, before it is written.

Every event goes one way: the machine accepts it, the journal takes the facts, the machine makes them so, the commands
go out. After a crash between any two the journal says all that was acknowledged, and `recover` repeats commands.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping

from telegrad.errors import JobError

from telegrad_server.failpoints import Reached, nothing
from telegrad_server.jobs import events as e
from telegrad_server.jobs.job import Job, State
from telegrad_server.jobs.line import Place
from telegrad_server.jobs.machine import Limits, replayed
from telegrad_server.journal import Journal


class Ledger:
    """The jobs of a journal. ``act`` carries out a command and returns soon; ``heard`` is told each fact once it lasts.

    Both are called in the order of the facts, by whichever thread told the event; they must not `tell`. ``clock`` gives
    the wall clock's seconds. Methods may be called from any thread; those that write wait for the disk.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        act: Callable[[e.Command], None],
        clock: Callable[[], float],
        heard: Callable[[e.Event], None] | None = None,
        limits: Limits | None = None,
        reached: Reached = nothing,
    ) -> None:
        self.journal = journal
        self._act, self._heard, self._clock, self._reached = act, heard, clock, reached
        self._lock = threading.RLock()
        self._is_telling = False
        self._jobs = replayed([(entry.at, entry.event) for entry in journal.replay()], limits)

    def recover(self) -> None:
        """Command once more what workers may not have heard before this process began."""
        with self._lock:
            for command in self._jobs.recover():
                self._act(command)

    def tell(self, event: e.Event, *, specs: Mapping[str, bytes] | None = None) -> tuple[e.Event, ...]:
        """The facts that the event amounts to, which last now; none if it said nothing new. Raises what is wrong.

        ``specs`` are the bytes, by digest, that a Submitted or an Extended names. StorageFull and ResourceError if they
        could not be written: then nothing has happened.
        """
        with self._lock:
            if self._is_telling:
                raise JobError("a command or a listener must not tell the ledger; let another turn do it")
            self._reached("job.accept")
            facts = self._jobs.accept(event)
            if not facts:
                return ()
            at = self._clock()
            self.journal.append(facts, at, specs=specs)
            commands = [command for fact in facts for command in self._jobs.apply(fact, at)]
            self._reached("job.applied")
            self._is_telling = True
            try:
                self._tell_others(facts, commands)
            finally:
                self._is_telling = False
            return facts

    def _tell_others(self, facts: tuple[e.Event, ...], commands: list[e.Command]) -> None:
        for fact in facts if self._heard is not None else ():
            assert self._heard is not None
            self._heard(fact)
        for command in commands:
            if isinstance(command, e.Assign):
                self._reached("job.assign")
            self._act(command)

    def place(self, job: str, *, worker: str, fingerprint: str) -> tuple[e.Event, ...]:
        """Give a queued job to a worker. JobError if it may not have it."""
        with self._lock:
            return self.tell(self._jobs.next_assignment(job, worker=worker, fingerprint=fingerprint))

    def note(self, job: str, why: str) -> None:
        """Placing a queued job came upon this: its reason for waiting until it is placed."""
        with self._lock:
            self._jobs.note(job, why)

    # ---- look-ups

    def find(self, tenant: str, key: str) -> Job:
        """The tenant's job of this id, or the newest of this name; NotFound (JOB_UNKNOWN)."""
        with self._lock:
            return self._jobs.find(tenant, key)

    def all(self, tenant: str) -> list[Job]:
        """The tenant's jobs, in the order they were submitted."""
        with self._lock:
            return self._jobs.all(tenant)

    def every(self) -> list[Job]:
        """The jobs of all tenants, in the order they were submitted."""
        with self._lock:
            return self._jobs.in_order()

    def earlier(self, tenant: str, request_id: str, digest: str) -> Job | None:
        """The job that this request has had its effect on; GraphError (REQUEST_ID_REUSED) if it asked for another."""
        with self._lock:
            return self._jobs.earlier(tenant, request_id, digest)

    def line(self) -> list[Place]:
        """Every queued job, in the order they will run, with why it waits."""
        with self._lock:
            return self._jobs.line()

    def by_state(self) -> Counter[State]:
        """How many jobs are in each state, of all tenants."""
        with self._lock:
            return self._jobs.by_state()

    def placed(self) -> list[Job]:
        """The jobs that workers have."""
        with self._lock:
            return self._jobs.placed()

    def get(self, job: str) -> Job | None:
        """The job with an id, of whichever tenant; None if it is not there."""
        with self._lock:
            return self._jobs.get(job)

    def without_room(self) -> list[str]:
        """The jobs that wait for room on the disk."""
        with self._lock:
            return self._jobs.without_room()

    def validate(self) -> None:
        """AssertionError if the machine has come into a state that must not be, or differs from its journal."""
        with self._lock:
            self._jobs.validate()
            replay = replayed([(entry.at, entry.event) for entry in self.journal.replay()], self._jobs.limits)
            assert replay.same_as(self._jobs)
