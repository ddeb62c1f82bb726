"""What the page asks of a server, whatever its role: protocols, all of whose look-ups take the tenant.

Methods are called by the page's own threads, several at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from telegrad.wire.datasets import Description
from telegrad.wire.jobs import Fork, JobEvent, JobInfo, MetricRow

from telegrad_server.sights import SessionSight


class JobBook(Protocol):
    """The jobs of a server. A job is looked up by its id, or by name; NotFound (JOB_UNKNOWN)."""

    def all(self, tenant: str) -> Sequence[JobInfo]:
        """The tenant's jobs, in the order they were submitted."""
        ...

    def find(self, tenant: str, key: str) -> JobInfo:
        """One of them."""
        ...

    def events(self, tenant: str, key: str, after: int) -> Sequence[JobEvent]:
        """What has happened to it after the event of a number."""
        ...

    def metrics(self, tenant: str, key: str, after_step: int) -> Sequence[MetricRow]:
        """Its metrics of steps after one, by step: a good many, or all that there are."""
        ...

    def checkpoints(self, tenant: str, key: str) -> Sequence[int]:
        """The steps of which there is a checkpoint."""
        ...

    def pause(self, tenant: str, key: str) -> JobInfo:
        """Let it stop at a checkpoint and wait."""
        ...

    def resume(self, tenant: str, key: str) -> JobInfo:
        """Let it go on."""
        ...

    def cancel(self, tenant: str, key: str) -> JobInfo:
        """Let it end."""
        ...

    def extend(self, tenant: str, key: str, request_id: str, *, epochs: int | None, steps: int | None) -> JobInfo:
        """Let its loop end later."""
        ...

    def numbers(self, tenant: str, key: str) -> Mapping[str, float | None]:
        """The numbers that a fork of it may change; None for one that is not the same all the time."""
        ...

    def fork(self, tenant: str, key: str, request_id: str, fork: Fork) -> JobInfo:
        """A new job that goes on from a checkpoint of it."""
        ...

    def rewind(self, tenant: str, key: str, request_id: str, step: int) -> JobInfo:
        """Let it go on from an earlier checkpoint."""
        ...


class Shelf(Protocol):
    """The datasets of a server."""

    def list(self, tenant: str) -> Sequence[Description]:
        """All that the tenant can read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A worker's device. ``memory_bytes`` is all its memory, ``used_bytes`` what is used of it by whomever; 0 where
    that is not known. ``tensor_bytes`` are those of all sessions, ``own_bytes`` the tenant's of them.
    """

    worker: str
    state: str
    backend: str
    machine: str
    memory_bytes: int
    used_bytes: int
    tensor_bytes: int
    own_bytes: int
    sessions: int
    busy_seconds: float
    fingerprint: str


class Hardware(Protocol):
    """The devices of a server, and what goes on there."""

    def devices(self, tenant: str) -> Sequence[Device]:
        """All devices; of what is on them, others' things only as sums."""
        ...

    def sessions(self, tenant: str) -> Sequence[tuple[str, SessionSight]]:
        """The tenant's sessions, each with the worker where it is at home."""
        ...

    def waiting(self) -> int:
        """How many sessions wait for a place."""
        ...


@dataclass(frozen=True, slots=True)
class Sources:
    """All that a page shows. None: this server has none of it."""

    role: str
    version: str
    hardware: Hardware
    jobs: JobBook | None
    datasets: Shelf | None
