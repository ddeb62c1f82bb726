"""What a server says of a job: how it stands, what has happened to it, and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

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
    """What is new of a job, and how it stands."""

    job: JobInfo
    events: tuple[JobEvent, ...]
    rows: tuple[MetricRow, ...]


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
