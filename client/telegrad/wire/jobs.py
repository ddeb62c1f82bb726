"""What a server says of a job: how it stands, what has happened to it, and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from telegrad.errors import NotFound
from telegrad.ir.types import Type
from telegrad.wire.job_words import in_words

ENDED = frozenset(("SUCCEEDED", "FAILED", "CANCELLED"))
"""The states of a job that has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """A job as it stands. ``step`` is that of its last checkpoint; ``live_step`` and what follows are beyond it.

    ``position`` is its place in the line; 0 unless it is queued. Times are seconds since 1970.
    """

    id: str
    name: str
    state: str
    reason: str
    message: str
    line: str
    step: int
    last_step: int
    steps_per_epoch: int
    position: int
    restarts: int
    worker: str
    submitted_at: float
    changed_at: float
    live_step: int
    steps_per_second: float
    live_metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    best_metric: str = ""  # of which the best checkpoint is kept
    best_mode: str = ""
    fingerprint: str = ""  # of the worker that has it, or had it last: versions, and the device by its name

    @property
    def has_ended(self) -> bool:
        """Whether it has reached its end."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job; ``number`` grows, ``details`` are for people."""

    number: int
    at: float
    kind: str
    details: Mapping[str, str]

    @property
    def words(self) -> str:
        """What happened and why, as a sentence."""
        return in_words(self.kind, self.details)


class MetricRow(NamedTuple):
    """A metric at a step that a checkpoint covers."""

    step: int
    epoch: int
    name: str
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class JobNews:
    """What is new of a job, and how it stands.

    News of a job that goes back ends with the event of that and has no rows: those of the steps after the one that it
    went back to, told before, are past, and come again with the next news.
    """

    job: JobInfo
    events: tuple[JobEvent, ...]
    rows: tuple[MetricRow, ...]

    @property
    def goes_back_to(self) -> int | None:
        """The step that it went back to, if it did."""
        return min([int(event.details["step"]) for event in self.events if event.kind == "Rewound"], default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """What a fork shall be.

    ``step`` None: from the newest checkpoint; neither ``epochs`` nor ``steps``: to the same end. ``numbers``
    are those that shall be others, by the names that the program gave them: "lr".
    """

    name: str
    step: int | None = None
    epochs: int | None = None
    steps: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class FirstTensor:
    """A tensor of checkpoint 0: its bytes if they are few, else the ticket of a Fetch."""

    name: str
    data: bytes | None
    ticket: str


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """What a checkpoint holds: its step, and names and types in the order of the bytes."""

    step: int
    tensors: tuple[tuple[str, Type], ...]
    digest: str = ""  # tells its bytes from those of any other

    def under(self, prefix: str) -> CheckpointHeader:
        """Only the tensors whose names begin so. NotFound if none does."""
        found = tuple([tensor for tensor in self.tensors if tensor[0].startswith(prefix)])
        if prefix and not found:
            roots = ", ".join(sorted({name.partition(".")[0] for name, _ in self.tensors}))
            raise NotFound(
                f"the checkpoint of step {self.step} has no tensor whose name begins with {prefix!r}; it has {roots}"
            )
        return replace(self, tensors=found)


@dataclass(frozen=True, slots=True)
class DamagedCheckpoint:
    """A checkpoint that is not as it was written: what was expected and found in which file."""

    step: int
    file: str
    expected: str
    found: str
    message: str


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """What reading a job's checkpoints again has found: the steps of whole ones, and those that are not."""

    whole: tuple[int, ...]
    damaged: tuple[DamagedCheckpoint, ...]
