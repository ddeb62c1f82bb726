"""The jobs as a pure state machine: events go in, facts for the journal and then commands come out; time is passed in.

::

    Submitted ─▶ QUEUED ── Assigned ─▶ STARTING ── Started ─▶ RUNNING ── Succeeded ─▶ SUCCEEDED
                  ▲ ▲ │                   │                    │ │ │
                  │ │ │                   └── Lost, Continued ─┘ │ ├── Failed ─▶ FAILED
                  │ └─┼────────────────────────┘                 │ └── Cancelled ─▶ CANCELLED
                  │   └── Paused ─▶ PAUSED ◀──── Paused ─────────┘
                  └─ ResumeAsked, StorageBack ─┘

`Jobs.accept` says what an event amounts to, or refuses it, and changes nothing. The facts are written; `Jobs.apply`
then makes them so, and never refuses: replaying the journal gives the same jobs. So a rule, such as how many losses are
too many, may change without changing what an old journal means (docs/jobs-inside.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from telegrad.errors import GraphError, JobError, NotFound, QuotaExceeded

from telegrad_server.jobs import events as e
from telegrad_server.jobs.job import Job, State, Wish, applied, losses_after
from telegrad_server.jobs.line import Place, line


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a tenant may have, how often a job may fail without progress, and how long requests are remembered."""

    running: int = 4
    queued: int = 64
    losses: int = 5
    memory_losses: int = 2
    requests: int = 10_000
    request_seconds: float = 24 * 3600.0


@dataclass(slots=True)
class _Request:
    """A request that had its effect."""

    digest: str
    job: str
    at: float


@dataclass(slots=True)
class _Tenant:
    """What is known of a tenant: ids of its jobs by name, the newest last, and its requests in the order they came."""

    names: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    requests: dict[str, _Request] = field(default_factory=dict[str, _Request])


class Jobs:
    """All jobs. Every look-up takes the tenant; workers' messages name the job and the assignment."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._jobs: dict[str, Job] = {}
        self._tenants: dict[str, _Tenant] = {}
        self._notes: dict[str, str] = {}
        self._number = 0

    # ---- look-ups

    def all(self, tenant: str) -> list[Job]:
        """The tenant's jobs, in the order they were submitted."""
        return sorted([job for job in self._jobs.values() if job.tenant == tenant], key=lambda job: job.number)

    def by_state(self) -> Counter[State]:
        """How many jobs are in each state, of all tenants."""
        return Counter([job.state for job in self._jobs.values()])

    def find(self, tenant: str, key: str) -> Job:
        """The job of this id, or the newest of this name; NotFound (JOB_UNKNOWN), also for other tenants' jobs."""
        job = self._jobs.get(key)
        if job is not None and job.tenant == tenant:
            return job
        named = self._tenants[tenant].names.get(key) if tenant in self._tenants else None
        if not named:
            raise NotFound(
                f"there is no job {key[:128]!r}; `telegrad jobs list` shows those there are", reason="JOB_UNKNOWN"
            )
        return self._jobs[named[-1]]

    def earlier(self, tenant: str, request_id: str, digest: str) -> Job | None:
        """The job that this request has had its effect on; GraphError (REQUEST_ID_REUSED) if it asked for another."""
        known = self._tenants[tenant].requests.get(request_id) if request_id and tenant in self._tenants else None
        if known is None:
            return None
        if known.digest != digest:
            raise GraphError(
                f"the request id {request_id[:64]!r} was used for something else; use a new one",
                reason="REQUEST_ID_REUSED",
            )
        return self._jobs.get(known.job)

    def line(self) -> list[Place]:
        """Every queued job, in the order they will run, with why it waits."""
        waiting = [job for job in self._jobs.values() if job.state is State.QUEUED]
        return line(waiting, self._running(), most=self.limits.running, notes=self._notes)

    def note(self, job: str, why: str) -> None:
        """Placing a queued job came upon this; it is its reason for waiting until it is placed."""
        if job in self._jobs and self._jobs[job].state is State.QUEUED:
            self._notes[job] = why

    def next_assignment(self, job: str, *, worker: str, fingerprint: str) -> e.Assigned:
        """The event that gives the job to a worker."""
        return e.Assigned(job, self._jobs[job].assignment + 1, worker, fingerprint)

    def without_room(self) -> list[str]:
        """The jobs that wait for room on the disk, or for a store that is away."""
        return [j.id for j in self._jobs.values() if j.state is State.PAUSED and j.reason in e.PASSING]

    def placed(self) -> list[Job]:
        """The jobs that workers have."""
        return [job for job in self._jobs.values() if job.is_placed]

    def get(self, job: str) -> Job | None:
        """The job with an id, of whichever tenant; None if it is not there."""
        return self._jobs.get(job)

    def _running(self) -> Counter[str]:
        return Counter([job.tenant for job in self._jobs.values() if job.is_placed])

    # ---- what an event amounts to

    def accept(self, event: e.Event) -> tuple[e.Event, ...]:
        """The facts to be written; none if the event says nothing new. Changes nothing; raises what is wrong."""
        match event:
            case e.Submitted():
                return self._submitted(event)
            case e.NumericsChanged() | e.Continued():
                raise GraphError(f"{type(event).__name__} is not said to the machine; it says so")
            case _:
                pass
        job = self._jobs.get(event.job)
        if job is None:
            raise NotFound(f"there is no job {event.job[:128]!r}", reason="JOB_UNKNOWN")
        match event:
            case e.PauseAsked():
                return self._pause_asked(job, event)
            case e.ResumeAsked():
                return self._resume_asked(job, event)
            case e.CancelAsked():
                return self._cancel_asked(job, event)
            case e.Extended():
                return self._extended(job, event)
            case e.Rewound():
                return self._rewound(job, event)
            case e.Removed():
                return (event,) if job.has_ended else self._refuse(job, "removed", "cancel it first")
            case e.Assigned():
                return self._assigned(job, event)
            case e.StorageBack():
                return (event,) if job.state is State.PAUSED and job.reason in e.PASSING else ()
            case _:
                return self._from_worker(job, event)

    def _submitted(self, event: e.Submitted) -> tuple[e.Event, ...]:
        if self.earlier(event.tenant, event.request_id, event.request_digest) is not None:
            return ()
        if event.job in self._jobs:
            raise JobError(f"the id {event.job} is taken; choose another", reason="JOB_NAME_TAKEN")
        self._check_name(event.tenant, event.name)
        queued = sum(job.tenant == event.tenant and job.state is State.QUEUED for job in self._jobs.values())
        if queued >= self.limits.queued:
            raise QuotaExceeded(
                f"{queued} jobs are queued, as many as a tenant may have; wait for one to begin, or cancel one",
                reason="QUOTA_JOBS",
            )
        return (event,)

    def _check_name(self, tenant: str, name: str) -> None:
        for id in self._tenants[tenant].names.get(name, ()) if tenant in self._tenants else ():
            job = self._jobs[id]
            if not job.has_ended:
                raise JobError(
                    f"a job named {name} is {job.state.value}; choose another name, or cancel it",
                    reason="JOB_NAME_TAKEN",
                )

    def _refuse(self, job: Job, done: str, instead: str) -> tuple[e.Event, ...]:
        what = "is being cancelled" if job.wish is Wish.CANCEL else f"is {job.state.value}"
        raise JobError(f"the job {job.name} {what} and cannot be {done}; {instead}", state=job.state.value)

    def _pause_asked(self, job: Job, event: e.PauseAsked) -> tuple[e.Event, ...]:
        if job.has_ended or job.wish is Wish.CANCEL:
            return self._refuse(job, "paused", "there is nothing to wait for")
        if job.wish is Wish.PAUSE or (job.state is State.PAUSED and job.reason == "ASKED"):
            return ()
        return (event,) if job.is_placed else (event, e.Paused(job.id, 0, "ASKED"))

    def _resume_asked(self, job: Job, event: e.ResumeAsked) -> tuple[e.Event, ...]:
        if job.has_ended or job.wish is Wish.CANCEL:
            return self._refuse(job, "resumed", "rewind it to one of its checkpoints, or extend it")
        return (event,) if job.state is State.PAUSED or job.wish is Wish.PAUSE else ()

    def _cancel_asked(self, job: Job, event: e.CancelAsked) -> tuple[e.Event, ...]:
        if job.state is State.CANCELLED or job.wish is Wish.CANCEL:
            return ()
        if job.has_ended:
            return self._refuse(job, "cancelled", "it has ended")
        return (event,) if job.is_placed else (event, e.Cancelled(job.id, 0))

    def _extended(self, job: Job, event: e.Extended) -> tuple[e.Event, ...]:
        if self.earlier(job.tenant, event.request_id, event.request_digest) is not None:
            return ()
        if job.wish is Wish.CANCEL or job.state in (State.FAILED, State.CANCELLED):
            return self._refuse(job, "extended", "rewind it to one of its checkpoints first, or fork it")
        end = job.step if job.reason == "EARLY_STOPPED" else job.last_step
        if event.last_step <= end:
            raise JobError(f"the job {job.name} ends after step {end} already; give it more than that")
        if job.has_ended:
            self._check_name(job.tenant, job.name)
        return (event,)

    def _rewound(self, job: Job, event: e.Rewound) -> tuple[e.Event, ...]:
        if self.earlier(job.tenant, event.request_id, event.request_digest) is not None:
            return ()
        if job.wish is Wish.CANCEL:
            return self._refuse(job, "rewound", "wait until it has ended")
        if not job.first_step <= event.step <= job.step:
            raise JobError(
                f"the job {job.name} has steps {job.first_step} to {job.step}, and cannot go back to {event.step};"
                " `job.checkpoints` shows where it can"
            )
        if job.has_ended:
            self._check_name(job.tenant, job.name)
        return (replace(event, timeline=job.timeline + 1),)

    def _assigned(self, job: Job, event: e.Assigned) -> tuple[e.Event, ...]:
        if job.is_placed and event == e.Assigned(job.id, job.assignment, job.worker, job.fingerprint):
            return ()
        if job.state is not State.QUEUED:
            return self._refuse(job, "given to a worker", "only queued jobs are")
        if event.assignment != job.assignment + 1:
            raise self._fenced(job, event.assignment)
        if self._running()[job.tenant] >= self.limits.running:
            raise QuotaExceeded(f"the tenant runs {self.limits.running} jobs, as many as it may", reason="QUOTA_JOBS")
        if not job.fingerprint or job.fingerprint == event.fingerprint:
            return (event,)
        if job.is_strict:
            raise JobError(
                f"the job {job.name} is strict, and {event.worker} computes other bits than the worker it began on;"
                " give it a worker like that one",
                reason="JOB_NUMERICS",
            )
        return (e.NumericsChanged(job.id, job.fingerprint, event.fingerprint), event)

    # ---- what a worker says amounts to

    def _fenced(self, job: Job, assignment: int) -> JobError:
        return JobError(
            f"assignment {assignment} of the job {job.name} is over; its number is {job.assignment} now",
            reason="JOB_FENCED",
            assignment=assignment,
        )

    def _from_worker(self, job: Job, event: e.Event) -> tuple[e.Event, ...]:
        assert isinstance(event, e.Lost | e.Started | e.Progressed | e.Paused | e.Cancelled | e.Failed | e.Succeeded)
        if not job.is_placed or event.assignment != job.assignment:
            raise self._fenced(job, event.assignment)
        match event:
            case e.Lost():
                return (event, *self._after_loss(job, event))
            case e.Started():
                return self._started(job, event)
            case e.Progressed():
                return self._progressed(job, event)
            case e.Paused():
                return self._paused(job, event)
            case e.Cancelled():
                if job.wish is not Wish.CANCEL:
                    return self._refuse(job, "called cancelled by its worker", "nobody has asked for it")
                return (event,)
            case e.Failed():
                return (replace(event, message=event.message[:4096], line=event.line[:512]),)
            case e.Succeeded():
                return self._succeeded(job, event)

    def _after_loss(self, job: Job, event: e.Lost) -> tuple[e.Event, ...]:
        if job.wish is Wish.CANCEL:
            return (e.Cancelled(job.id, 0),)
        losses, memory = losses_after(job, event)
        kept = f"its checkpoint of step {job.step} is kept"
        if losses >= self.limits.losses:
            message = (
                f"{losses} workers were lost in a row with no new checkpoint between, the last one so: {event.message}"
            )
            return (e.Failed(job.id, 0, "CRASH_LOOP", f"{message[:2048]}; {kept}"),)
        if memory >= self.limits.memory_losses:
            message = f"{memory} workers in a row had no memory left for it; use smaller batches"
            return (e.Failed(job.id, 0, "OUT_OF_MEMORY", f"{message}; {kept}"),)
        return (e.Paused(job.id, 0, "ASKED"),) if job.wish is Wish.PAUSE else ()

    def _started(self, job: Job, event: e.Started) -> tuple[e.Event, ...]:
        if not job.first_step <= event.step <= job.step:
            raise JobError(
                f"the job {job.name} cannot start at step {event.step}: it is known from {job.first_step} to {job.step}"
            )
        return (event,) if job.state is State.STARTING else ()

    def _progressed(self, job: Job, event: e.Progressed) -> tuple[e.Event, ...]:
        if job.state is not State.RUNNING:
            return self._refuse(job, "said to progress", "say first that it has started")
        if event.step > job.last_step:
            raise JobError(f"the job {job.name} ends after step {job.last_step}, and cannot be at {event.step}")
        if event.step <= job.step:  # heard before, or done once more after an older checkpoint
            return ()
        rows = {(row.step, row.name): row for row in event.rows if row.step > job.step}
        if any([step > event.step for step, _ in rows]):
            raise JobError(
                f"a metric of the job {job.name} is of a step that its checkpoint {event.step} does not cover"
            )
        return (replace(event, timeline=job.timeline, rows=tuple([rows[key] for key in sorted(rows)])),)

    def _paused(self, job: Job, event: e.Paused) -> tuple[e.Event, ...]:
        if job.wish is Wish.CANCEL:
            return (replace(event, message=event.message[:4096]), e.Cancelled(job.id, 0))
        if event.why == "ASKED" and job.wish is not Wish.PAUSE:
            return (e.Continued(job.id, event.assignment),)
        if job.wish is Wish.PAUSE:
            return (replace(event, why="ASKED", message=event.message[:4096]),)
        return (replace(event, message=event.message[:4096]),)

    def _succeeded(self, job: Job, event: e.Succeeded) -> tuple[e.Event, ...]:
        if event.step != job.step:
            raise JobError(
                f"the last checkpoint of the job {job.name} is of step {job.step}; it cannot end at {event.step}"
            )
        if event.step < job.last_step and not event.is_early:
            return (e.Continued(job.id, event.assignment),)
        return (event,)

    # ---- facts

    def apply(self, event: e.Event, at: float) -> list[e.Command]:
        """Make a fact so; ``at`` is when it was written, in seconds of the wall clock, for people to see."""
        if isinstance(event, e.Submitted):
            return self._add(event, at)
        job = self._jobs[event.job]
        if isinstance(event, e.Extended | e.Rewound):
            self._remember(job.tenant, event.request_id, event.request_digest, job.id, at)
        if isinstance(event, e.Removed):
            return self._remove(job)
        new, commands = applied(job, event)
        if new.state is not job.state:
            new = replace(new, changed_at=at)
        if new.state is not State.QUEUED:
            self._notes.pop(job.id, None)
        self._jobs[job.id] = new
        return commands

    def _add(self, event: e.Submitted, at: float) -> list[e.Command]:
        self._number += 1
        self._jobs[event.job] = Job(
            event.job, event.tenant, event.name, event.spec, self._number, event.first_step, event.last_step,
            event.is_strict, at, at, event.first_step,
        )  # fmt: skip
        tenant = self._tenants.setdefault(event.tenant, _Tenant())
        tenant.names.setdefault(event.name, []).append(event.job)
        self._remember(event.tenant, event.request_id, event.request_digest, event.job, at)
        return []

    def _remember(self, tenant: str, request_id: str, digest: str, job: str, at: float) -> None:
        if not request_id:
            return
        requests = self._tenants[tenant].requests
        requests[request_id] = _Request(digest, job, at)
        for id in list(requests):
            if len(requests) <= self.limits.requests and requests[id].at > at - self.limits.request_seconds:
                break
            del requests[id]

    def _remove(self, job: Job) -> list[e.Command]:
        del self._jobs[job.id]
        tenant = self._tenants[job.tenant]
        tenant.names[job.name].remove(job.id)
        if not tenant.names[job.name]:
            del tenant.names[job.name]
        for id in [id for id, request in tenant.requests.items() if request.job == job.id]:
            del tenant.requests[id]
        return [e.Forget(job.id, job.tenant)]

    def recover(self) -> list[e.Command]:
        """What workers may not have heard before the gateway ended; hearing it twice does nothing."""
        commands: list[e.Command] = []
        for job in self.placed():
            commands.append(e.Assign(job.id, job.worker, job.assignment, job.step, job.spec))
            if job.wish is Wish.CANCEL:
                commands.append(e.StopNow(job.id, job.worker, job.assignment))
            elif job.wish is Wish.PAUSE:
                commands.append(e.StopAtCheckpoint(job.id, job.worker, job.assignment))
        commands += [e.Discard(job.id, job.step) for job in self._jobs.values() if job.timeline and not job.is_placed]
        return commands

    # ---- what must hold

    def same_as(self, other: Jobs) -> bool:
        """Whether the other has the same jobs, in the same order, and knows no request that this one does not."""
        mine, others = ([replace(job, number=0) for job in j.in_order()] for j in (self, other))
        return mine == others and other._known_requests() <= self._known_requests()

    def in_order(self) -> list[Job]:
        """All jobs of all tenants, in the order they were submitted."""
        return sorted(self._jobs.values(), key=lambda job: job.number)

    def _known_requests(self) -> set[tuple[str, str, str, str]]:
        return {
            (name, id, r.digest, r.job) for name, tenant in self._tenants.items() for id, r in tenant.requests.items()
        }

    def validate(self) -> None:
        """AssertionError if the machine has come into a state that must not be."""
        for job in self._jobs.values():
            assert job.is_placed == bool(job.worker), job
            assert job.is_placed or job.wish is Wish.NONE, job
            assert job.first_step <= job.step <= job.last_step, job
            assert job.losses < self.limits.losses or job.has_ended, job
            assert job.state is not State.SUCCEEDED or job.reason in ("DONE", "EARLY_STOPPED"), job
            assert job.state is not State.SUCCEEDED or job.reason != "DONE" or job.step == job.last_step, job
            assert job.assignment >= job.is_placed and job.timeline >= 0, job
            assert job.id in self._tenants[job.tenant].names[job.name], job
        listed = [id for tenant in self._tenants.values() for ids in tenant.names.values() for id in ids]
        assert sorted(listed) == sorted(self._jobs)
        for tenant in self._tenants.values():
            for ids in tenant.names.values():
                assert sum(not self._jobs[id].has_ended for id in ids) <= 1, ids
            assert all(request.job in self._jobs for request in tenant.requests.values())
            assert len(tenant.requests) <= self.limits.requests
        assert all(count <= self.limits.running for count in self._running().values())
        queued = sorted([job.id for job in self._jobs.values() if job.state is State.QUEUED])
        places = self.line()
        assert sorted([place.job for place in places]) == queued
        assert [place.position for place in places] == list(range(1, len(places) + 1))
        assert all(place.reason for place in places) and self._notes.keys() <= set(queued)


def replayed(facts: Iterable[tuple[float, e.Event]], limits: Limits | None = None) -> Jobs:
    """The jobs that a journal's facts, with their times, amount to."""
    jobs = Jobs(limits)
    for at, event in facts:
        jobs.apply(event, at)
    return jobs
