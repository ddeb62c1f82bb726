"""The machine as a ledger drives it, without a disk: what it amounts to is kept as text, and can be replayed."""

from __future__ import annotations

from typing import Any

from telegrad.wire.job_codec import encode_spec
from telegrad_server.jobs import events as e
from telegrad_server.jobs.job import Job, State
from telegrad_server.jobs.machine import Jobs, Limits, replayed
from telegrad_server.jobs.records import event_of, text_of

from tests.jobs.specs import small_spec


class Driver:
    """Tells events, keeps the facts as a journal does, and collects the commands."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.jobs = Jobs(limits)
        self.text: list[tuple[float, str, str]] = []
        self.rows: list[e.Row] = []
        self.commands: list[e.Command] = []
        self.now = 1000.0

    def tell(self, event: e.Event) -> tuple[e.Event, ...]:
        before = self.jobs.in_order()
        facts = self.jobs.accept(event)
        assert self.jobs.in_order() == before
        for fact in facts:
            self.text.append((self.now, type(fact).__name__, text_of(fact)))
            self.rows += fact.rows if isinstance(fact, e.Progressed) else ()
            self.commands += self.jobs.apply(fact, self.now)
        self.jobs.validate()
        return facts

    def restart(self) -> None:
        """Begin anew from what was written."""
        old = self.jobs
        self.jobs = replayed([(at, event_of(kind, text)) for at, kind, text in self.text], old.limits)
        assert self.jobs.same_as(old)
        self.commands += self.jobs.recover()

    def submit(self, job: str = "a", *, tenant: str = "t", name: str = "", request: str = "", **changes: Any) -> Job:
        spec = small_spec(name or job, **changes)
        self.tell(e.Submitted.of(job, tenant, spec, encode_spec(spec), request_id=request))
        return self.jobs.find(tenant, job)

    def assign(self, job: str = "a", *, worker: str = "w", fingerprint: str = "f") -> int:
        event = self.jobs.next_assignment(job, worker=worker, fingerprint=fingerprint)
        self.tell(event)
        return event.assignment

    def run(self, job: str = "a", *, step: int = 0, worker: str = "w", fingerprint: str = "f") -> int:
        """Assign and start it, and let it come to a step."""
        number = self.assign(job, worker=worker, fingerprint=fingerprint)
        self.tell(e.Started(job, number, self[job].step))
        if step:
            self.tell(e.Progressed(job, number, step))
        return number

    def __getitem__(self, job: str) -> Job:
        return next(found for found in self.jobs.in_order() if found.id == job)

    def state(self, job: str = "a") -> tuple[State, str]:
        return self[job].state, self[job].reason

    def take(self) -> list[e.Command]:
        """The commands since the last time."""
        taken, self.commands = self.commands, []
        return taken


def row(step: int, value: float = 0.5, name: str = "loss") -> e.Row:
    return e.Row(step, (step - 1) // 4, name, value)
