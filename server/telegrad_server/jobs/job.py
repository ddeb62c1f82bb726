"""A job, and what each fact makes of it. Facts are never refused: what may become one is decided in `machine`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from telegrad_server.jobs import events as e


class State(Enum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ENDED = frozenset((State.SUCCEEDED, State.FAILED, State.CANCELLED))
PLACED = frozenset((State.STARTING, State.RUNNING))


class Wish(Enum):
    """What a placed job has been asked to do, and has not done yet."""

    NONE = ""
    PAUSE = "pause"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Job:
    """A job. ``step`` is its last checkpoint; ``losses`` counts those since. ``reason`` says why it is where it is."""

    id: str
    tenant: str
    name: str
    spec: str
    number: int
    first_step: int
    last_step: int
    is_strict: bool
    submitted_at: float
    changed_at: float
    step: int
    state: State = State.QUEUED
    reason: str = "SUBMITTED"
    message: str = ""
    line: str = ""
    assignment: int = 0
    worker: str = ""
    wish: Wish = Wish.NONE
    timeline: int = 0
    losses: int = 0
    memory_losses: int = 0
    restarts: int = 0
    fingerprint: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether it has reached its end, which only extending and rewinding undo."""
        return self.state in ENDED

    @property
    def is_placed(self) -> bool:
        """Whether a worker has it."""
        return self.state in PLACED


def losses_after(job: Job, event: e.Lost) -> tuple[int, int]:
    """How many losses in a row this makes, and how many of them for want of memory."""
    if event.why == "WORKER_FULL":  # the job was never begun there
        return job.losses, job.memory_losses
    return job.losses + (event.why != "DRAINED"), job.memory_losses + 1 if event.why == "WORKER_OOM" else 0


def applied(job: Job, event: e.Event) -> tuple[Job, list[e.Command]]:
    """The job after a fact, and what is to be done about it."""
    at = (job.id, job.worker, job.assignment)
    release: list[e.Command] = [e.Release(*at)] if job.is_placed else []
    free = replace(job, worker="", wish=Wish.NONE, message="", line="")
    match event:
        case e.PauseAsked():
            return replace(job, wish=Wish.PAUSE), [e.StopAtCheckpoint(*at)] if job.is_placed else []
        case e.ResumeAsked() if job.is_placed:
            return replace(job, wish=Wish.NONE), []
        case e.ResumeAsked():
            return replace(free, state=State.QUEUED, reason="RESUMED", losses=0, memory_losses=0), []
        case e.CancelAsked():
            return replace(job, wish=Wish.CANCEL), [e.StopNow(*at)] if job.is_placed else []
        case e.Extended() if job.is_placed:
            return replace(job, spec=event.spec, last_step=event.last_step), [e.Extend(*at, event.spec)]
        case e.Extended():
            longer = replace(job, spec=event.spec, last_step=event.last_step)
            return (replace(longer, state=State.QUEUED, reason="EXTENDED") if job.has_ended else longer), []
        case e.Rewound():
            back = replace(free, step=event.step, timeline=event.timeline, losses=0, memory_losses=0)
            if job.state is not State.PAUSED:
                back = replace(back, state=State.QUEUED, reason="REWOUND")
            stop: list[e.Command] = [e.StopNow(*at)] if job.is_placed else []
            return back, [*stop, *release, e.Discard(job.id, event.step)]
        case e.Assigned():
            given = replace(job, state=State.STARTING, reason="ASSIGNED", worker=event.worker, message="")
            given = replace(given, assignment=event.assignment, fingerprint=event.fingerprint)
            return given, [e.Assign(job.id, event.worker, event.assignment, job.step, job.spec)]
        case e.Started():
            return replace(job, state=State.RUNNING, reason="STARTED", message=event.message), []
        case e.Progressed():
            return replace(job, step=event.step, losses=0, memory_losses=0), []
        case e.Lost():
            losses, memory = losses_after(job, event)
            lost = replace(free, state=State.QUEUED, reason=event.why, message=event.message)
            restarts = job.restarts + (event.why != "WORKER_FULL")
            return replace(lost, losses=losses, memory_losses=memory, restarts=restarts), release
        case e.Continued():
            return replace(free, state=State.QUEUED, reason="CONTINUED"), release
        case e.StorageBack():
            return replace(free, state=State.QUEUED, reason="STORAGE_BACK"), []
        case e.Paused():
            return replace(free, state=State.PAUSED, reason=event.why, message=event.message), release
        case e.Cancelled():
            return replace(free, state=State.CANCELLED, reason="ASKED"), release
        case e.Failed():
            failed = replace(free, state=State.FAILED, reason=event.reason, message=event.message, line=event.line)
            return failed, release
        case e.Succeeded():
            return replace(free, state=State.SUCCEEDED, reason="EARLY_STOPPED" if event.is_early else "DONE"), release
        case e.NumericsChanged():
            return job, []
        case e.Submitted() | e.Removed():
            raise AssertionError(event)
