"""Where loops run, as the foreman sees it: sites to place jobs on, orders for their loops, and who has lost one.

`Here` is the worker of this process. A gateway's floor, over the workers that are registered with it, is
`telegrad_server.service.away`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from telegrad_server.failpoints import Reached, nothing
from telegrad_server.jobs import events as e
from telegrad_server.jobs.job import Job
from telegrad_server.jobs.sites import Site
from telegrad_server.loops import Assignment, Desk, Hall, Order, Progress
from telegrad_server.worker import Worker

HERE = "here"
"""What the journal calls the worker of a server that has one."""


class Verdict(NamedTuple):
    """That a worker no longer has a job, and why."""

    why: e.Loss
    message: str


class Office(Desk, Protocol):
    """The foreman, as a floor sees it. Any thread."""

    def placed(self) -> list[Job]:
        """The jobs that workers have."""
        ...

    def lose(self, job: Job, verdict: Verdict) -> None:
        """The job's worker no longer has it."""
        ...

    def remind(self, job: Job) -> None:
        """Tell the job's loop once more what it was asked to do, and of its end."""
        ...

    def look(self) -> None:
        """There may be room for a job now."""
        ...


class Floor(Protocol):
    """Where loops run. Any thread."""

    outlives: bool
    """Whether loops go on when this process ends."""

    def open(self, office: Office) -> None:
        """Begin; what happens to loops is said to the office."""
        ...

    def sites(self) -> Sequence[Site]:
        """The workers that jobs may be placed on now."""
        ...

    def begin(self, worker: str, assignment: Assignment) -> None:
        """Let a worker run a job; if it runs under this number already, nothing happens."""
        ...

    def order(self, worker: str, job: str, number: int, order: Order) -> None:
        """Tell a loop what to do, if it is there under this number."""
        ...

    def progress(self, job: Job) -> Progress | None:
        """How far a job's loop has come, if that is known."""
        ...

    def verdict(self, job: Job) -> Verdict | None:
        """Whether the worker of a placed job has certainly lost it."""
        ...

    def close(self) -> None:
        """Stop what ends with this process."""
        ...


class Here:
    """The worker of this process."""

    outlives = False

    def __init__(self, worker: Worker, *, reached: Reached = nothing) -> None:
        self._worker, self._reached = worker, reached
        self._hall: Hall | None = None

    def open(self, office: Office) -> None:
        self._hall = Hall(self._worker, office, ended=office.look, reached=self._reached)

    def sites(self) -> Sequence[Site]:
        return (Site(HERE, self._worker.hello().fingerprint),)

    def begin(self, worker: str, assignment: Assignment) -> None:
        assert self._hall is not None
        self._hall.begin(assignment)

    def order(self, worker: str, job: str, number: int, order: Order) -> None:
        if self._hall is not None:
            self._hall.order(job, number, order)

    def progress(self, job: Job) -> Progress | None:
        return self._hall.progress(job.id) if self._hall is not None else None

    def verdict(self, job: Job) -> Verdict | None:
        return None

    def close(self) -> None:
        if self._hall is not None:
            self._hall.stop()
