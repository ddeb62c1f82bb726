"""The foreman of one worker's jobs: takes them in, has them written down, and lets runners run them.

What lasts is the ledger's, the checkpoint store's and the catalog's; here are the threads. Commands of the ledger are
carried out on a thread of the foreman's own, since they come in the middle of telling it something.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from telegrad.errors import GraphError, JobError, NotFound, TelegradError
from telegrad.ir.types import Type
from telegrad.wire.codec import decode_function
from telegrad.wire.job_codec import decode_spec, encode_spec, spec_digest
from telegrad.wire.job_spec import DataSource, JobSpec
from telegrad.wire.jobs import CheckpointHeader, JobEvent, JobInfo, JobNews, MetricRow

from telegrad_server.checkpoints import CheckpointStore, Draft, write_order
from telegrad_server.checkpoints.failing import FailingFiles
from telegrad_server.checkpoints.files import RealFiles
from telegrad_server.datasets import Catalog, Dataset
from telegrad_server.failpoints import Reached, nothing
from telegrad_server.jobs import events as e
from telegrad_server.jobs.job import Job
from telegrad_server.jobs.spec import check_spec
from telegrad_server.journal import Journal
from telegrad_server.keeper import Keeper, Rules
from telegrad_server.ledger import Ledger
from telegrad_server.loops import Assignment, Orders, Progress, Runner
from telegrad_server.worker import Worker

KEEP_SECONDS = 1.0
"""How often the keeper has its round."""

HERE = "here"
"""What the journal calls the worker of a server that has one."""

Tensors = Sequence[tuple[str, memoryview]]


class _Running(NamedTuple):
    runner: Runner
    orders: Orders
    assignment: Assignment
    thread: threading.Thread


class Foreman:
    """Jobs on a worker, under a folder. `start` begins to run them; after `stop` they go on when it starts anew.

    DataCorrupt or ResourceError if the journal cannot be opened. Every method may be called by any thread.
    """

    def __init__(
        self,
        worker: Worker,
        catalog: Catalog,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        reached: Reached = nothing,
        rules: Rules | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._worker = worker
        self._catalog = catalog
        self._reached = reached
        self._store = CheckpointStore(folder / "checkpoints", files=FailingFiles(RealFiles(), reached))
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._work: SimpleQueue[e.Command | str | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        journal = Journal(folder / "journal.db", reached=reached)
        self._ledger = Ledger(journal, act=self._work.put, clock=clock, heard=self._heard, reached=reached)
        rules = Rules() if rules is None else rules
        self._keeper = Keeper(self._ledger, self._store, catalog, folder, rules=rules, clock=clock)
        self._is_stopping = threading.Event()

    # ---- life

    def start(self) -> None:
        """Go on with what an earlier process had under way, and run what is queued."""
        for job in self._ledger.placed():
            self._ledger.tell(e.Lost(job.id, job.assignment, message="the server was started anew"))
        self._ledger.recover()
        self._thread = threading.Thread(target=self._carry_out, name="telegrad-foreman", daemon=True)
        self._thread.start()
        self._work.put("place")

    def stop(self, grace_seconds: float = 0.0) -> None:
        """Stop every job at a checkpoint, if it writes one within the grace, else as it stands: no fault of theirs."""
        self._is_stopping.set()
        if grace_seconds > 0:
            self._drain(time.monotonic() + grace_seconds)
        for job in self._ledger.placed():
            self._ledger.tell(e.Lost(job.id, job.assignment, "DRAINED", "the server was stopped"))
        self._work.put(None)
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            running = list(self._running.values())
        for one in running:
            one.orders.stop_now.set()
        for one in running:
            one.thread.join()
        self._ledger.journal.close()

    def _drain(self, until: float) -> None:
        with self._lock:
            running = list(self._running.values())
        for one in running:
            one.orders.stop_at_checkpoint.set()
        for one in running:
            one.thread.join(max(0.0, until - time.monotonic()))

    # ---- what users ask for

    def submit(self, tenant: str, request_id: str, data: bytes, tensors: Tensors) -> JobInfo:
        """A job with this spec and checkpoint 0, which last when it returns; or the one of the same request before.

        GraphError (JOB_INVALID) for a spec that does not fit, NotFound for data that is not there, JobError
        (JOB_NAME_TAKEN), QuotaExceeded, StorageFull.
        """
        digest = spec_digest(data)
        known = self._ledger.earlier(tenant, request_id, digest)
        if known is not None:
            return self.find(tenant, known.id)
        spec = decode_spec(data)
        check_spec(spec, decode=decode_function, columns=lambda source: self._columns(tenant, source))
        if spec.parent is not None:
            raise GraphError("forks are made by the server, from a checkpoint of its own", reason="JOB_INVALID")
        job = secrets.token_hex(16)
        submitted = e.Submitted.of(job, tenant, spec, data, request_id=request_id)
        self._keeper.check_room(tenant, spec)
        try:
            with self._keeper.arriving(job):
                for source in _sources(spec):
                    self._catalog.hold(tenant, source.digest, by=f"job-{job}")
                self._write_first(job, spec, digest, tensors)
                facts = self._ledger.tell(submitted, specs={digest: data})
        except BaseException:
            self._forget(e.Forget(job, tenant))
            raise
        if not facts:  # the same request was faster on another thread
            self._forget(e.Forget(job, tenant))
            earlier = self._ledger.earlier(tenant, request_id, digest)
            assert earlier is not None
            return self.find(tenant, earlier.id)
        return self.find(tenant, job)

    def _columns(self, tenant: str, source: DataSource) -> dict[str, Type]:
        dataset = self._catalog.open_digest(tenant, source.digest)
        if source.first + source.rows > dataset.rows:
            raise GraphError(
                f"the job wants {source.rows} rows from {source.first} on; dataset {source.name} has {dataset.rows}",
                reason="JOB_INVALID",
            )
        return dict(dataset.columns)

    def _write_first(self, job: str, spec: JobSpec, digest: str, tensors: Tensors) -> None:
        types = {slot.name: slot.type for slot in (*spec.state, *spec.constants)}
        wrong = [name for name, view in tensors if name not in types or len(view) != types[name].nbytes]
        if wrong or len(tensors) != len(types):
            what = f"the tensor {wrong[0]!r} is not" if wrong else f"{len(tensors)} tensors are not all of"
            raise GraphError(f"checkpoint 0: {what} what the job's spec says", reason="JOB_INVALID")
        draft = Draft(
            job=job,
            step=spec.first_step,
            epoch=0,
            cursor=0,
            calls=0,
            seed=spec.seed,
            spec_digest=digest,
            fingerprint=self._worker.hello().fingerprint,
            metrics={},
            tensors=types,
        )
        self._store.write(draft, [(name, types[name], view) for name, view in tensors])

    def pause(self, tenant: str, key: str) -> JobInfo:
        """Let the job stop at a checkpoint and wait."""
        return self._told(tenant, key, e.PauseAsked)

    def resume(self, tenant: str, key: str) -> JobInfo:
        """Let the job go on."""
        return self._told(tenant, key, e.ResumeAsked)

    def cancel(self, tenant: str, key: str) -> JobInfo:
        """Let the job end; its checkpoints stay."""
        return self._told(tenant, key, e.CancelAsked)

    def _told(self, tenant: str, key: str, event: Callable[[str], e.Event]) -> JobInfo:
        job = self._ledger.find(tenant, key)
        self._ledger.tell(event(job.id))
        return self.find(tenant, job.id)

    def extend(self, tenant: str, key: str, request_id: str, *, epochs: int | None, steps: int | None) -> JobInfo:
        """Let the loop end later: after so many epochs or steps in all."""
        job = self._ledger.find(tenant, key)
        spec = self._spec(job)
        longer = replace(spec, loop=replace(spec.loop, epochs=epochs, steps=steps))
        missing = set(longer.loop.sizes(spec.data.rows)) - {call.rows for call in spec.steps}
        if missing:
            raise GraphError(
                f"the job has no step for batches of {min(missing)} rows, which it would meet", reason="JOB_INVALID"
            )
        data = encode_spec(longer)
        digest = spec_digest(data)
        self._ledger.tell(e.Extended(job.id, digest, longer.last_step, request_id, digest), specs={digest: data})
        return self.find(tenant, job.id)

    # ---- look-ups

    def find(self, tenant: str, key: str) -> JobInfo:
        """The job of this id, or the newest of this name; NotFound (JOB_UNKNOWN)."""
        return self._standing(self._ledger.find(tenant, key))

    def all(self, tenant: str) -> list[JobInfo]:
        """The tenant's jobs, in the order they were submitted."""
        return [self._standing(job) for job in self._ledger.all(tenant)]

    def follow(self, tenant: str, key: str, *, after_event: int, from_step: int) -> Follower:
        """Who looks for news of a job, from these on."""
        job = self._ledger.find(tenant, key)
        return Follower(self, tenant, job.id, after_event, from_step - 1)

    def events(self, tenant: str, key: str, after: int) -> list[JobEvent]:
        """What has happened to a job after the event of a number."""
        entries = self._ledger.journal.events(self._ledger.find(tenant, key).id, after)
        return [
            JobEvent(entry.number, entry.at, type(entry.event).__name__, _details(entry.event)) for entry in entries
        ]

    def metrics(self, tenant: str, key: str, after_step: int) -> list[MetricRow]:
        """The metrics of steps after one, as far as a checkpoint covers them."""
        job = self._ledger.find(tenant, key)
        return [MetricRow(*row) for row in self._ledger.journal.metrics(job.id, after_step=after_step, most=10_000)]

    def checkpoints(self, tenant: str, key: str) -> list[int]:
        """The steps of which there is a checkpoint."""
        return self._store.steps(self._ledger.find(tenant, key).id)

    def checkpoint(
        self, tenant: str, key: str, step: int | None
    ) -> tuple[CheckpointHeader, Iterator[tuple[str, Type, memoryview]]]:
        """A checkpoint's tensors, in the header's order; None: of the newest one. NotFound, DataCorrupt."""
        job = self._ledger.find(tenant, key)
        if step is None:
            latest = self._store.latest(job.id)
            manifest, tensors = latest.manifest, latest.tensors
        else:
            manifest, tensors = self._store.read(job.id, step)
        order = tuple([(name, manifest.tensors[name]) for name in write_order(manifest.tensors)])
        return CheckpointHeader(manifest.step, order), tensors

    def _standing(self, job: Job) -> JobInfo:
        place = next((place for place in self._ledger.line() if place.job == job.id), None)
        with self._lock:
            running = self._running.get(job.id)
        progress = running.runner.progress if running is not None and job.is_placed else Progress(job.step)
        spec = self._spec(job)
        return JobInfo(
            id=job.id,
            name=job.name,
            state=job.state.value,
            reason=job.reason,
            message=place.reason if place is not None else job.message,
            line=job.line,
            step=job.step,
            last_step=job.last_step,
            steps_per_epoch=spec.loop.steps_per_epoch(spec.data.rows),
            position=place.position if place is not None else 0,
            restarts=job.restarts,
            worker=job.worker,
            submitted_at=job.submitted_at,
            changed_at=job.changed_at,
            live_step=max(progress.step, job.step),
            steps_per_second=progress.steps_per_second,
            live_metrics=dict(progress.values),
        )

    def _spec(self, job: Job) -> JobSpec:
        return decode_spec(self._ledger.journal.spec(job.spec))

    # ---- carrying out

    def _heard(self, event: e.Event) -> None:
        self._work.put("place")

    def _carry_out(self) -> None:
        kept_at = -KEEP_SECONDS
        while True:
            command: e.Command | str | None = "keep"
            with suppress(Empty):
                command = self._work.get(timeout=max(0.01, kept_at + KEEP_SECONDS - time.monotonic()))
            if command is None:
                return
            try:
                self._act(command)
                if time.monotonic() - kept_at >= KEEP_SECONDS:
                    kept_at = time.monotonic()
                    self._keeper.round()
            except TelegradError:
                logging.exception("jobs: %s could not be carried out", command)

    def _act(self, command: e.Command | str) -> None:
        match command:
            case "place" if not self._is_stopping.is_set():
                self._place()
            case str():
                pass
            case e.Assign():
                self._begin(command)
            case e.StopNow():
                self._order(command.job, command.assignment, lambda orders: orders.stop_now.set())
            case e.StopAtCheckpoint():
                self._order(command.job, command.assignment, lambda orders: orders.stop_at_checkpoint.set())
            case e.Extend():
                spec = decode_spec(self._ledger.journal.spec(command.spec))
                self._order(command.job, command.assignment, lambda orders: setattr(orders, "spec", spec))
            case e.Release():
                self._order(command.job, command.assignment, lambda orders: orders.stop_now.set())
            case e.Discard():
                self._store.rewind(command.job, command.step)
            case e.Forget():
                self._forget(command)

    def _place(self) -> None:
        """Give the jobs that may run to the worker."""
        for place in self._ledger.line():
            if place.may_run:
                try:
                    self._ledger.place(place.job, worker=HERE, fingerprint=self._worker.hello().fingerprint)
                except JobError as error:
                    self._ledger.note(place.job, error.message)

    def _begin(self, command: e.Assign) -> None:
        job = next((job for job in self._ledger.placed() if job.id == command.job), None)
        if job is None or job.assignment != command.assignment:
            return  # it was cancelled meanwhile
        with self._lock:
            former = self._running.get(job.id)
        if former is not None:
            former.orders.stop_now.set()
            former.thread.join()
        assignment = Assignment(job.id, job.tenant, job.assignment, job.step, self._spec(job))
        orders = Orders()
        runner = Runner(
            assignment,
            worker=self._worker,
            dataset=lambda digest: self._open(job.tenant, digest),
            store=self._store,
            tell=self._ledger.tell,
            orders=orders,
            reached=self._reached,
        )
        thread = threading.Thread(target=self._run, args=(runner, job.id), name="telegrad-job", daemon=True)
        with self._lock:
            self._running[job.id] = _Running(runner, orders, assignment, thread)
        thread.start()

    def _open(self, tenant: str, digest: str) -> Dataset:
        return self._catalog.open_digest(tenant, digest)

    def _run(self, runner: Runner, job: str) -> None:
        runner.run()
        with self._lock:
            known = self._running.get(job)
            if known is not None and known.runner is runner:
                del self._running[job]
        self._work.put("place")

    def _order(self, job: str, assignment: int, give: Callable[[Orders], None]) -> None:
        with self._lock:
            running = self._running.get(job)
        if running is not None and running.assignment.number == assignment:
            give(running.orders)

    def _forget(self, command: e.Forget) -> None:
        self._store.remove(command.job)
        with suppress(NotFound):
            self._catalog.let_go(command.tenant, by=f"job-{command.job}")


class Follower:
    """Looks for news of a job, none of them twice. ``is_done`` once it has ended and all was told."""

    def __init__(self, foreman: Foreman, tenant: str, job: str, event: int, step: int) -> None:
        self._foreman, self._tenant, self._job = foreman, tenant, job
        self._event, self._step = event, step
        self._seen: JobInfo | None = None
        self.is_done = False

    def news(self) -> JobNews | None:
        """What is new, or None. Reads the journal."""
        info = self._foreman.find(self._tenant, self._job)
        if info == self._seen:
            return None
        self._seen = info
        events = self._foreman.events(self._tenant, self._job, self._event)
        rows = self._foreman.metrics(self._tenant, self._job, self._step)
        self._event = max([self._event, *[event.number for event in events]])
        self._step = max([self._step, *[row.step for row in rows]])
        if rows:
            self._seen = None  # there may be more than one answer holds
        self.is_done = info.has_ended and not rows
        return JobNews(info, tuple(events), tuple(rows))

    def repeat(self) -> None:
        """Let `news` say how the job stands although nothing is new."""
        self._seen = None


def _details(event: e.Event) -> dict[str, str]:
    """What an event says, for people."""
    hidden = ("job", "tenant", "spec", "request_id", "request_digest", "rows")
    found = {f.name: str(getattr(event, f.name)) for f in fields(event) if f.name not in hidden}
    return {name: value for name, value in found.items() if value}


def _sources(spec: JobSpec) -> list[DataSource]:
    return [spec.data, *([spec.validation.data] if spec.validation is not None else [])]
