"""The loops under way on a worker, each on a thread of its own, and what they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from telegrad.wire.job_spec import JobSpec

from telegrad_server.datasets import Dataset
from telegrad_server.failpoints import Reached, nothing
from telegrad_server.jobs import events as e
from telegrad_server.loops.checkpoints import Checkpoints
from telegrad_server.loops.runner import Assignment, Orders, Progress, Runner
from telegrad_server.worker import Worker

Order = Literal["stop", "stop_at_checkpoint", "leave"] | JobSpec
"""What a loop is told: to stop as it stands, at a checkpoint, or there since its worker goes; or of a later end."""


class Desk(Protocol):
    """Who keeps the jobs, seen from a loop. Any thread."""

    def tell(self, event: e.Event) -> object:
        """Make what a loop says a fact, which lasts when this returns. JobError if the assignment is over."""
        ...

    def checkpoints_of(self, assignment: Assignment) -> Checkpoints:
        """The checkpoints of a job."""
        ...

    def dataset(self, assignment: Assignment, digest: str) -> Dataset:
        """The data of a job."""
        ...


class Loop(NamedTuple):
    """A loop under way."""

    assignment: Assignment
    runner: Runner
    orders: Orders
    thread: threading.Thread

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        return self.runner.progress


class Hall:
    """The loops of a worker. ``ended`` is called after each. Any thread."""

    def __init__(self, worker: Worker, desk: Desk, *, ended: Callable[[], None], reached: Reached = nothing) -> None:
        self._worker, self._desk, self._ended, self._reached = worker, desk, ended, reached
        self._lock = threading.Lock()
        self._loops: dict[str, Loop] = {}

    def begin(self, assignment: Assignment) -> None:
        """Run a job. Nothing happens if it runs under this number; under another one it stops first."""
        orders = Orders()
        with self._lock:
            former = self._loops.get(assignment.job)
            if former is not None and former.assignment.number == assignment.number:
                return
            runner = Runner(
                assignment,
                worker=self._worker,
                dataset=lambda digest: self._desk.dataset(assignment, digest),
                checkpoints=self._desk.checkpoints_of(assignment),
                tell=self._desk.tell,
                orders=orders,
                reached=self._reached,
            )
            thread = threading.Thread(target=self._run, args=(runner, former), name="telegrad-job", daemon=True)
            self._loops[assignment.job] = Loop(assignment, runner, orders, thread)
            thread.start()

    def order(self, job: str, number: int, order: Order) -> None:
        """Tell a loop what to do, if it is there under this number."""
        with self._lock:
            loop = self._loops.get(job)
        if loop is None or loop.assignment.number != number:
            return
        if isinstance(order, JobSpec):
            loop.orders.spec = order
        else:
            {
                "stop": loop.orders.stop_now,
                "stop_at_checkpoint": loop.orders.stop_at_checkpoint,
                "leave": loop.orders.leave,
            }[order].set()

    def loops(self) -> list[Loop]:
        """All that are under way."""
        with self._lock:
            return list(self._loops.values())

    def progress(self, job: str) -> Progress | None:
        """How far a job's loop has come; None if it is not here."""
        with self._lock:
            loop = self._loops.get(job)
        return loop.progress if loop is not None else None

    def stop(self) -> None:
        """Stop them all as they stand, and wait until they have."""
        loops = self.loops()
        for loop in loops:
            loop.orders.stop_now.set()
        for loop in loops:
            loop.thread.join()

    def _run(self, runner: Runner, former: Loop | None) -> None:
        if former is not None:
            former.orders.stop_now.set()
            former.thread.join()
        runner.run()
        with self._lock:
            for job, loop in list(self._loops.items()):
                if loop.runner is runner:
                    del self._loops[job]
        self._ended()
