"""What happens to jobs, and what is to be done about it, as frozen dataclasses of strings and numbers.

An event is a fact once it is in the journal, and then never changes: a new field has a default, a new meaning is a new
event. ``assignment`` is the number of the assignment that a worker's message belongs to, its fencing token; 0 in what
the gateway decides by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from telegrad.wire.job_codec import spec_digest
from telegrad.wire.job_spec import JobSpec

Why = Literal["ASKED", "STORAGE_FULL", "STORAGE_AWAY", "NONFINITE"]
"""Why a job is paused."""

PASSING: tuple[Why, ...] = ("STORAGE_FULL", "STORAGE_AWAY")
"""Of these, what it waits out by itself."""

Loss = Literal["WORKER_LOST", "WORKER_OOM", "DRAINED", "WORKER_FULL"]
"""Why a worker no longer has a job: gone, or killed for its memory; stopped by its operator, or without a place for the
job's session, which are no fault of the job's."""


class Row(NamedTuple):
    """A metric's value at a step, and the wall clock's seconds then."""

    step: int
    epoch: int
    name: str
    value: float
    at: float = 0.0


# ---- what users ask for


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job is there, with its first checkpoint. Of its spec, which the journal keeps, the machine needs this much."""

    job: str
    tenant: str
    name: str
    spec: str  # its digest
    first_step: int
    last_step: int
    is_strict: bool = False
    request_id: str = ""
    request_digest: str = ""

    @staticmethod
    def of(job: str, tenant: str, spec: JobSpec, data: bytes, *, request_id: str = "") -> Submitted:
        """The submission of a spec with these canonical bytes; the same request must bring the same ones."""
        digest = spec_digest(data)
        return Submitted(
            job, tenant, spec.name, digest, spec.first_step, spec.last_step, spec.strict, request_id, digest
        )


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """The job shall stop at a checkpoint and wait."""

    job: str


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """The job shall go on."""

    job: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """The job shall end; its checkpoints stay."""

    job: str


@dataclass(frozen=True, slots=True)
class Extended:
    """The loop ends later: the same spec but for that, with its own digest."""

    job: str
    spec: str
    last_step: int
    request_id: str = ""
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class Rewound:
    """The job shall go on from an earlier checkpoint; what it recorded since belongs to an earlier timeline."""

    job: str
    step: int
    timeline: int = 0  # the new one; the machine numbers it
    request_id: str = ""
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """A job that has ended is forgotten, and its checkpoints with it."""

    job: str


# ---- what the gateway sees and decides


@dataclass(frozen=True, slots=True)
class Assigned:
    """A worker shall run the job, under a number one larger than that of the assignment before."""

    job: str
    assignment: int
    worker: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class NumericsChanged:
    """The worker computes other bits than the one before."""

    job: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker no longer has the job; whatever it says from now on is refused."""

    job: str
    assignment: int
    why: Loss = "WORKER_LOST"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Continued:
    """The worker stopped for a reason that is none any more: the job was extended or resumed meanwhile."""

    job: str
    assignment: int


@dataclass(frozen=True, slots=True)
class StorageBack:
    """There is room again for a job that was paused since there was none."""

    job: str


# ---- what workers say


@dataclass(frozen=True, slots=True)
class Started:
    """The worker has restored a checkpoint: the one that it was told, or an older one if that was corrupt."""

    job: str
    assignment: int
    step: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Progressed:
    """A checkpoint is durable, and these metrics were recorded up to it."""

    job: str
    assignment: int
    step: int
    timeline: int = 0  # the machine fills it in
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Paused:
    """The job waits for somebody to resume it, or for room on the disk."""

    job: str
    assignment: int
    why: Why
    message: str = ""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job has ended since somebody asked."""

    job: str
    assignment: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The job cannot go on; ``line`` is the user's, of the op that failed."""

    job: str
    assignment: int
    reason: str
    message: str
    line: str = ""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The loop is over, or stopped early; the last checkpoint is that of ``step``."""

    job: str
    assignment: int
    step: int
    is_early: bool = False


Event = (
    Submitted | PauseAsked | ResumeAsked | CancelAsked | Extended | Rewound | Removed
    | Assigned | NumericsChanged | Lost | Continued | StorageBack
    | Started | Progressed | Paused | Cancelled | Failed | Succeeded
)  # fmt: skip

KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        Submitted, PauseAsked, ResumeAsked, CancelAsked, Extended, Rewound, Removed,
        Assigned, NumericsChanged, Lost, Continued, StorageBack,
        Started, Progressed, Paused, Cancelled, Failed, Succeeded,
    )
}  # fmt: skip
"""Every event by name, as the journal writes it."""


# ---- commands


@dataclass(frozen=True, slots=True)
class Assign:
    """Let the worker run the job from this checkpoint. A worker that does so already does nothing."""

    job: str
    worker: str
    assignment: int
    step: int
    spec: str


@dataclass(frozen=True, slots=True)
class StopAtCheckpoint:
    """Let the worker write a checkpoint, and stop."""

    job: str
    worker: str
    assignment: int


@dataclass(frozen=True, slots=True)
class StopNow:
    """Let the worker stop as it stands."""

    job: str
    worker: str
    assignment: int


@dataclass(frozen=True, slots=True)
class Extend:
    """Let the worker go on to the end of this spec, which differs by that end only."""

    job: str
    worker: str
    assignment: int
    spec: str


@dataclass(frozen=True, slots=True)
class Release:
    """The worker's part is over: its session of the job can go, if it is still there."""

    job: str
    worker: str
    assignment: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Checkpoints after this step are of an earlier timeline: no restart may find them."""

    job: str
    step: int


@dataclass(frozen=True, slots=True)
class Forget:
    """All that is kept of the job can go."""

    job: str
    tenant: str


Command = Assign | StopAtCheckpoint | StopNow | Extend | Release | Discard | Forget
