"""The floor of a gateway: loops on the workers that have come to work their shift. Any thread, but for what says so.

A worker's shift is a stream that it opens. It says first which loops it runs, so after a break, or with a gateway that
was started anew, both know what the other has: what the worker runs and should not is stopped, what it should run and
does not is lost. A worker without a shift keeps its jobs for as long as its lease could last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from telegrad.wire.v1 import loops_pb2 as pb

from telegrad_server.cluster.members import Gone, Members, State
from telegrad_server.floor import Office, Verdict
from telegrad_server.jobs.job import Job
from telegrad_server.jobs.sites import Site
from telegrad_server.loops import Assignment, Order, Progress
from telegrad_server.service.loop_messages import begin_to_proto, order_to_proto, progress_from_proto

Send = Callable[[pb.WorkShiftResponse], None]
Key = tuple[str, int]
"""A job and the number of an assignment of it."""


class Shift:
    """A worker's shift: what it was told to run, and what it says it runs."""

    def __init__(self, incarnation: str, send: Send, loops: Iterable[pb.LoopProgress]) -> None:
        self.incarnation = incarnation
        self.send = send
        self.is_ready = False
        self.leaving: set[Key] = set()
        self.lost: set[Key] = set()
        self.running: dict[Key, Progress] = {}
        self.hear(loops)
        self.begun = set(self.running)

    def hear(self, loops: Iterable[pb.LoopProgress]) -> None:
        """The worker says what it runs. What it ran when it last said so, and runs no more, is over."""
        running = {(loop.job, loop.number): progress_from_proto(loop) for loop in loops}
        self.lost |= self.running.keys() - running.keys()
        self.running = running


class Away:
    """Loops on workers. ``most`` is how many jobs a worker runs at a time."""

    outlives = True

    def __init__(self, members: Members, *, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._members = members
        self._most = most
        self._clock = clock
        self._lock = threading.RLock()
        self._shifts: dict[str, Shift] = {}
        self._left: dict[str, float] = {}
        self._gone: dict[str, Verdict] = {}
        self._began = clock()
        self._office: Office | None = None

    # ---- what the foreman wants

    def open(self, office: Office) -> None:
        self._office = office

    def sites(self) -> Sequence[Site]:
        with self._lock:
            ready = [name for name, shift in self._shifts.items() if shift.is_ready]
        found: list[Site] = []
        for name in sorted(ready):
            member = self._members.find(name)
            if member is not None and member.state is State.LIVE:
                found.append(Site(name, member.facts.fingerprint, self._most))
        return found

    def begin(self, worker: str, assignment: Assignment) -> None:
        with self._lock:
            shift = self._shifts.get(worker)
            if shift is not None and (assignment.job, assignment.number) not in shift.begun:
                shift.begun.add((assignment.job, assignment.number))
                shift.send(begin_to_proto(assignment))

    def order(self, worker: str, job: str, number: int, order: Order) -> None:
        with self._lock:
            shift = self._shifts.get(worker)
            if shift is not None:
                shift.send(order_to_proto(job, number, order))

    def progress(self, job: Job) -> Progress | None:
        with self._lock:
            shift = self._shifts.get(job.worker)
            return shift.running.get((job.id, job.assignment)) if shift is not None else None

    def verdict(self, job: Job) -> Verdict | None:
        with self._lock:
            shift = self._shifts.get(job.worker)
            if shift is not None:
                if (job.id, job.assignment) in shift.lost:
                    return Verdict("WORKER_LOST", f"worker {job.worker} has stopped its loop and could not say why")
                return None
            if (gone := self._gone.get(job.worker)) is not None:
                return gone
            since = self._left.get(job.worker, self._began)
        if self._clock() - since > self._members.lease_seconds:
            return Verdict("WORKER_LOST", f"worker {job.worker} has not come back")
        return None

    def close(self) -> None:
        """Nothing: loops go on without the gateway, for as long as their workers' leases last."""

    # ---- what the gateway hears

    def gone(self, gone: Gone) -> None:
        """A worker is no member any more."""
        with self._lock:
            shift = self._shifts.get(gone.name)
            if shift is not None and shift.incarnation == gone.incarnation:
                del self._shifts[gone.name]
            if gone.name not in self._shifts:
                why = "DRAINED" if gone.has_left else "WORKER_LOST"
                self._gone[gone.name] = Verdict(why, f"worker {gone.name} is gone: {gone.why}")

    def tick(self) -> None:
        """Let the loops of workers that are being drained leave."""
        assert self._office is not None
        for job in self._office.placed():
            member = self._members.find(job.worker)
            with self._lock:
                shift = self._shifts.get(job.worker)
                key = (job.id, job.assignment)
                is_told = shift is None or key in shift.leaving or key not in shift.begun
                if member is None or member.state is State.LIVE or is_told or shift is None:
                    continue
                shift.leaving.add(key)
                shift.send(order_to_proto(*key, "leave"))

    def came(self, worker: str, incarnation: str, loops: Iterable[pb.LoopProgress], send: Send) -> Shift:
        """A worker begins its shift with these loops. Waits for the disk."""
        office = self._office
        assert office is not None
        shift = Shift(incarnation, send, loops)
        with self._lock:
            self._shifts[worker] = shift
            self._gone.pop(worker, None)
            self._left.pop(worker, None)
        placed = {(job.id, job.assignment): job for job in office.placed() if job.worker == worker}
        for job, number in shift.running.keys() - placed.keys():
            send(order_to_proto(job, number, "stop"))
        for key, job in placed.items():
            if key in shift.running:
                office.remind(job)
            elif key not in shift.begun:
                office.lose(job, Verdict("WORKER_LOST", f"worker {worker} was started anew, or has lost the job"))
        shift.is_ready = True
        office.look()
        return shift

    def hear(self, shift: Shift, loops: Iterable[pb.LoopProgress]) -> None:
        """A worker says what it runs."""
        with self._lock:
            shift.hear(loops)

    def left(self, worker: str, shift: Shift) -> None:
        """A shift's stream has ended: the worker may come back."""
        with self._lock:
            if self._shifts.get(worker) is shift:
                del self._shifts[worker]
                self._left[worker] = self._clock()
