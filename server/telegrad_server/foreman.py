"""The foreman: takes jobs in, has them written down, and lets a floor of workers run them.

What lasts is the ledger's, the checkpoint store's and the catalog's; where loops run is the floor's. Commands of the
ledger are carried out on a thread of the foreman's own, since they come in the middle of telling it something.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from telegrad.errors import JobError, NotFound, TelegradError
from telegrad.ir.types import Type
from telegrad.wire.job_codec import decode_spec, encode_spec, spec_digest
from telegrad.wire.job_spec import Demand, JobSpec
from telegrad.wire.jobs import (
    CheckpointHeader,
    CheckpointReport,
    DamagedCheckpoint,
    Fork,
    JobEvent,
    JobInfo,
    JobNews,
    MetricRow,
)

from telegrad_server.bug import bug
from telegrad_server.checkpoints import CheckpointStore, open_store, write_order
from telegrad_server.datasets import Catalog, Dataset
from telegrad_server.failpoints import Reached, nothing
from telegrad_server.floor import Floor, Verdict
from telegrad_server.forking import Forking, longer_spec, numbers_of
from telegrad_server.intake import Intake, Tensors
from telegrad_server.jobs import events as e
from telegrad_server.jobs.counts import JobCounts
from telegrad_server.jobs.full import FullWorkers
from telegrad_server.jobs.job import Job, State, Wish
from telegrad_server.jobs.line import Place
from telegrad_server.jobs.sites import choose
from telegrad_server.journal import Journal
from telegrad_server.keeper import Keeper, Rules
from telegrad_server.ledger import Ledger
from telegrad_server.loops import Assignment, Progress

MOST_DEMANDS = 4096
"""So many jobs' wishes are remembered."""

KEEP_SECONDS = 1.0
"""How often workers and room are looked after."""

OUTLINES = 1 << 16
"""Of so many specs it is remembered what lists of jobs say: a spec never changes, and may be large."""


class _Outline(NamedTuple):
    """What of a spec is said whenever somebody asks how a job stands."""

    steps_per_epoch: int
    best_metric: str
    best_mode: str


class Foreman:
    """Jobs on a floor of workers, under a folder. `start` begins to run them; after `stop` the next one goes on.

    ``checkpoints`` says where those are kept, if not there. DataCorrupt or ResourceError if the journal or that place
    cannot be opened. Every method may be called by any thread.
    """

    def __init__(
        self,
        floor: Floor,
        catalog: Catalog,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        reached: Reached = nothing,
        rules: Rules | None = None,
        checkpoints: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._floor = floor
        self._clock = clock
        self.counts = JobCounts()
        self._catalog = catalog
        self._demands: dict[str, Demand] = {}
        self._full = FullWorkers()
        self._work: SimpleQueue[e.Command | str | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._outline = lru_cache(OUTLINES)(self._outlined)
        journal = Journal(folder / "journal.db", reached=reached)
        try:
            self.store = open_store(checkpoints, folder=folder / "checkpoints", owner=journal.id, reached=reached)
            """Where the checkpoints of all jobs are."""
        except TelegradError:
            journal.close()
            raise
        self._ledger = Ledger(journal, act=self._work.put, clock=clock, heard=self._heard, reached=reached)
        rules = Rules() if rules is None else rules
        self._keeper = Keeper(self._ledger, self.store, catalog, folder, rules=rules, clock=clock)
        self._is_stopping = threading.Event()
        self._intake = Intake(self._ledger, self.store, catalog, self._keeper)
        self._forking = Forking(self._ledger, self.store, self._intake)

    # ---- life

    def start(self) -> None:
        """Go on with what an earlier process had under way, and run what is queued."""
        if not self._floor.outlives:
            for job in self._ledger.placed():
                self.lose(job, Verdict("WORKER_LOST", "the server was started anew"))
        self._ledger.recover()
        self._floor.open(self)
        self._thread = threading.Thread(target=self._carry_out, name="telegrad-foreman", daemon=True)
        self._thread.start()
        self.look()

    def stop(self, grace_seconds: float = 0.0) -> None:
        """Stop what does not outlive this process: at a checkpoint, if it writes one within the grace, else as it is.

        The journal says that it was no fault of the jobs.
        """
        self._is_stopping.set()
        if not self._floor.outlives:
            self._drain(time.monotonic() + grace_seconds)
            for job in self._ledger.placed():
                self.lose(job, Verdict("DRAINED", "the server was stopped"))
        self._work.put(None)
        if self._thread is not None:
            self._thread.join()
        self._floor.close()
        self._ledger.journal.close()

    def _drain(self, until: float) -> None:
        """Let jobs come to a checkpoint. They are told again and again: a loop may be about to begin."""
        while time.monotonic() < until and (placed := self._ledger.placed()):
            for job in placed:
                self._floor.order(job.worker, job.id, job.assignment, "stop_at_checkpoint")
            time.sleep(0.05)

    def tick(self) -> None:
        """Look whether workers have lost jobs."""
        for job in self._ledger.placed():
            if (verdict := self._floor.verdict(job)) is not None:
                self.lose(job, verdict)

    # ---- what the floor says and asks

    def tell(self, event: e.Event) -> object:
        """Make what a loop says a fact."""
        if isinstance(event, e.Started | e.Lost):
            self._mark(event)  # before the fact has the job placed again
        return self._ledger.tell(event)

    def _mark(self, event: e.Started | e.Lost) -> None:
        job = self._ledger.get(event.job)
        if job is None or job.assignment != event.assignment or not job.worker:
            return
        if isinstance(event, e.Started):
            self._full.took(job.worker)
        elif event.why == "WORKER_FULL":
            self._full.refused(job.worker, event.message, time.monotonic())

    def checkpoints_of(self, assignment: Assignment) -> CheckpointStore:
        """The store, of which a loop uses its own job's."""
        return self.store

    def dataset(self, assignment: Assignment, digest: str) -> Dataset:
        """The data of a job."""
        return self.data(assignment.tenant, digest)

    def data(self, tenant: str, digest: str) -> Dataset:
        """A dataset of a tenant's. NotFound."""
        return self._catalog.open_digest(tenant, digest)

    def placed(self) -> list[Job]:
        """The jobs that workers have."""
        return self._ledger.placed()

    def lose(self, job: Job, verdict: Verdict) -> None:
        """The job's worker no longer has it."""
        with suppress(JobError, NotFound):  # it ended meanwhile
            self._ledger.tell(e.Lost(job.id, job.assignment, verdict.why, verdict.message))

    def remind(self, job: Job) -> None:
        """Tell the job's loop once more what it was asked to do, and of its end."""
        at = (job.id, job.worker, job.assignment)
        self._work.put(e.Extend(*at, job.spec))
        if job.wish is Wish.CANCEL:
            self._work.put(e.StopNow(*at))
        elif job.wish is Wish.PAUSE:
            self._work.put(e.StopAtCheckpoint(*at))

    def look(self) -> None:
        """There may be room for a job now."""
        self._work.put("place")

    # ---- what users ask for

    def submit(self, tenant: str, request_id: str, data: bytes, tensors: Tensors) -> JobInfo:
        """A job with this spec and checkpoint 0, which last when it returns; or the one of the same request before.

        GraphError (JOB_INVALID) for a spec that does not fit, NotFound for data that is not there, JobError
        (JOB_NAME_TAKEN), QuotaExceeded, StorageFull.
        """
        return self.find(tenant, self._intake.submit(tenant, request_id, data, tensors))

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
        longer = longer_spec(self._spec(job), epochs=epochs, steps=steps)
        if job.reason == "EARLY_STOPPED" and longer.early_stopping is not None:
            longer = replace(longer, early_stopping=replace(longer.early_stopping, since=job.step))
        data = encode_spec(longer)
        digest = spec_digest(data)
        self._ledger.tell(e.Extended(job.id, digest, longer.last_step, request_id, digest), specs={digest: data})
        return self.find(tenant, job.id)

    def fork(self, tenant: str, key: str, request_id: str, fork: Fork) -> JobInfo:
        """A new job that goes on from a checkpoint of this one."""
        job = self._ledger.find(tenant, key)
        return self.find(tenant, self._forking.fork(job, self._spec(job), fork, request_id))

    def rewind(self, tenant: str, key: str, request_id: str, step: int) -> JobInfo:
        """Let the job go on from an earlier checkpoint; what came after it is gone."""
        job = self._ledger.find(tenant, key)
        self._forking.rewind(job, step, request_id)
        return self.find(tenant, job.id)

    def numbers(self, tenant: str, key: str) -> dict[str, float | None]:
        """What a fork of a job may change, by name: see `numbers_of`."""
        return numbers_of(self._spec(self._ledger.find(tenant, key)))

    # ---- look-ups

    def find(self, tenant: str, key: str) -> JobInfo:
        """The job of this id, or the newest of this name; NotFound (JOB_UNKNOWN)."""
        return self._standing([self._ledger.find(tenant, key)])[0]

    def all(self, tenant: str) -> list[JobInfo]:
        """The tenant's jobs, in the order they were submitted."""
        return self._standing(self._ledger.all(tenant))

    def newest(self, tenant: str, most: int) -> tuple[list[JobInfo], int]:
        """The last so many of them, in that order, and how many there are in all."""
        jobs = self._ledger.all(tenant)
        return self._standing(jobs[-most:]), len(jobs)

    def by_state(self) -> Mapping[str, int]:
        """How many jobs are in each state, of all tenants."""
        found = self._ledger.by_state()
        return {state.value: found[state] for state in State}

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
        return self.store.steps(self._ledger.find(tenant, key).id)

    def checkpoint(
        self, tenant: str, key: str, step: int | None
    ) -> tuple[CheckpointHeader, Iterator[tuple[str, Type, memoryview]]]:
        """A checkpoint's tensors, in the header's order; None: of the newest one. NotFound, DataCorrupt."""
        job = self._ledger.find(tenant, key)
        if step is None:
            latest = self.store.latest(job.id)
            manifest, tensors = latest.manifest, latest.tensors
        else:
            manifest, tensors = self.store.read(job.id, step)
        order = tuple([(name, manifest.tensors[name]) for name in write_order(manifest.tensors)])
        return CheckpointHeader(manifest.step, order, manifest.digest), tensors

    def verify(self, tenant: str, key: str) -> CheckpointReport:
        """Read every byte of a job's checkpoints again."""
        report = self.store.verify(self._ledger.find(tenant, key).id)
        damaged = [DamagedCheckpoint(d.step, d.file, d.expected, d.found, d.message) for d in report.damaged]
        return CheckpointReport(report.whole, tuple(damaged))

    def _standing(self, jobs: Sequence[Job]) -> list[JobInfo]:
        is_waiting = any(job.state is State.QUEUED for job in jobs)
        places = {place.job: place for place in self._ledger.line()} if is_waiting else {}
        return [self._info(job, places.get(job.id)) for job in jobs]

    def _info(self, job: Job, place: Place | None) -> JobInfo:
        progress = (self._floor.progress(job) if job.is_placed else None) or Progress(job.step)
        outline = self._outline(job.spec)
        return JobInfo(
            id=job.id,
            name=job.name,
            state=job.state.value,
            reason=job.reason,
            message=place.reason if place is not None else job.message,
            line=job.line,
            step=job.step,
            last_step=job.last_step,
            steps_per_epoch=outline.steps_per_epoch,
            position=place.position if place is not None else 0,
            restarts=job.restarts,
            worker=job.worker,
            submitted_at=job.submitted_at,
            changed_at=job.changed_at,
            live_step=max(progress.step, job.step),
            steps_per_second=progress.steps_per_second,
            live_metrics=dict(progress.values),
            best_metric=outline.best_metric,
            best_mode=outline.best_mode,
            fingerprint=job.fingerprint,
        )

    def _outlined(self, digest: str) -> _Outline:
        spec = decode_spec(self._ledger.journal.spec(digest))
        best = spec.keep_best
        return _Outline(
            spec.loop.steps_per_epoch(spec.data.rows), best.metric if best else "", best.mode if best else ""
        )

    def _spec(self, job: Job) -> JobSpec:
        return decode_spec(self._ledger.journal.spec(job.spec))

    # ---- carrying out

    def _heard(self, event: e.Event) -> None:
        self.counts.heard(event, self._ledger.get(event.job), self._clock())
        self.look()

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
                    self.tick()
                    self._keeper.round()
                    if self._full:
                        self._act("place")
            except TelegradError:
                logging.exception("jobs: %s could not be carried out", command)
            except Exception as error:  # the edge: a mistake of ours must not end the thread that all jobs need
                bug(error)

    def _act(self, command: e.Command | str) -> None:
        match command:
            case "place" if not self._is_stopping.is_set():
                self._place()
            case str():
                pass
            case e.Assign():
                self._begin(command)
            case e.StopNow() | e.Release():
                self._floor.order(command.worker, command.job, command.assignment, "stop")
            case e.StopAtCheckpoint():
                self._floor.order(command.worker, command.job, command.assignment, "stop_at_checkpoint")
            case e.Extend():
                spec = decode_spec(self._ledger.journal.spec(command.spec))
                self._floor.order(command.worker, command.job, command.assignment, spec)
            case e.Discard():
                self._forking.discard(command)
            case e.Forget():
                self._intake.forget(command)

    def _place(self) -> None:
        """Give the jobs that may run to workers."""
        sites = self._floor.sites()
        taken = Counter([job.worker for job in self._ledger.placed()])
        full = self._full.at(time.monotonic(), there={site.worker for site in sites})
        for place in self._ledger.line():
            if not place.may_run:
                continue
            job = self._ledger.get(place.job)
            if job is None:
                continue  # it was removed meanwhile
            found = choose(sites, taken, fingerprint=job.fingerprint, demand=self._demand(job), full=full)
            if isinstance(found, str):
                self._ledger.note(place.job, found)
                continue
            try:
                self._ledger.place(place.job, worker=found.worker, fingerprint=found.fingerprint)
                taken[found.worker] += 1
            except TelegradError as error:  # of a strict job, or it was cancelled meanwhile
                self._ledger.note(place.job, error.message)

    def _demand(self, job: Job) -> Demand:
        """Where the job should run. Asked often while it waits, so it is remembered by spec."""
        found = self._demands.get(job.spec)
        if found is None:
            found = self._spec(job).demand
            if len(self._demands) >= MOST_DEMANDS:
                self._demands.clear()
            self._demands[job.spec] = found
        return found

    def _begin(self, command: e.Assign) -> None:
        job = next((job for job in self._ledger.placed() if job.id == command.job), None)
        if job is None or job.assignment != command.assignment:
            return  # it was cancelled meanwhile
        self._floor.begin(job.worker, Assignment(job.id, job.tenant, job.assignment, job.step, self._spec(job)))


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
        # In this order: rows of another timeline are never read before the event that it begins with.
        rows = self._foreman.metrics(self._tenant, self._job, self._step)
        events = self._foreman.events(self._tenant, self._job, self._event)
        back = [place for place, event in enumerate(events) if event.kind == "Rewound"]
        if back:
            events, rows = events[: back[-1] + 1], []
            self._step = min([self._step, *[int(events[place].details["step"]) for place in back]])
        self._event = max([self._event, *[event.number for event in events]])
        self._step = max([self._step, *[row.step for row in rows]])
        if rows or back:
            self._seen = None  # there may be more than one answer holds
        self.is_done = info.has_ended and self._seen is not None
        return JobNews(info, tuple(events), tuple(rows))

    def repeat(self) -> None:
        """Let `news` say how the job stands although nothing is new."""
        self._seen = None


def _details(event: e.Event) -> dict[str, str]:
    """What an event says, for people."""
    hidden = ("job", "tenant", "spec", "request_id", "request_digest", "rows")
    found = {f.name: str(getattr(event, f.name)) for f in fields(event) if f.name not in hidden}
    return {name: value for name, value in found.items() if value}
