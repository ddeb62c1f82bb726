"""The seam between a session and its server: one Protocol, over gRPC or in process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from telegrad.errors import TelegradError
from telegrad.ir.types import Type
from telegrad.transport.shared_memory import SharedMemory
from telegrad.wire.datasets import Column, Description, Missing
from telegrad.wire.jobs import CheckpointHeader, CheckpointReport, FirstTensor, Fork, JobInfo, JobNews
from telegrad.wire.messages import Command, ErrorRecord, Event

Deliver = Callable[[Event], None]
Lost = Callable[[TelegradError], None]
UploadFailed = Callable[[int, ErrorRecord], None]


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker of a cluster, as its gateway sees it."""

    name: str
    machine: str
    backend: str
    state: str
    sessions: int
    held_bytes: int
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server says of itself."""

    server_version: str
    incarnation: str
    ops: frozenset[str]
    backend: str
    fingerprint: str
    warnings: tuple[str, ...]
    worker: str = ""  # the session's home in a cluster
    is_direct: bool = False  # whether it is reached without the gateway
    workers: tuple[WorkerInfo, ...] = ()  # of the cluster, when the session was opened
    waiting_sessions: int = 0
    held_bytes: int = 0  # of tensors, in all the tenant's sessions; a gateway does not say
    features: tuple[str, ...] = ()  # what sessions take beside the first commands
    time: float | None = None  # the server's clock when it answered, in seconds since 1970; None from an older one


@dataclass(frozen=True, slots=True)
class Demand:
    """Where in a cluster a session should live, and how long to wait for a place there."""

    backend: str = ""
    worker: str = ""
    memory_bytes: int = 0
    queue_seconds: float = 600.0


ANYWHERE = Demand()
"""No wish."""

OnQueued = Callable[[int, str], None]
"""Told the place in the queue, and what the session waits for."""


class DatasetCalls(Protocol):
    """What a server does with its tenant's datasets. It is waited for while it cannot be reached."""

    def offer(self, name: str, columns: Sequence[Column]) -> Description | tuple[Missing, ...]:
        """Let a name stand for a dataset; or what must be uploaded before."""
        ...

    def upload(self, column: Column, data: memoryview, offset: int) -> None:
        """Send a column's bytes from an offset on. ServerUnavailable if that breaks: offer tells how far it came."""
        ...

    def list(self) -> list[Description]:
        """All of them."""
        ...

    def describe(self, name: str) -> Description:
        """One of them, or NotFound."""
        ...

    def read(self, dataset: Description, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """These rows of each column; NotFound if the name stands for something else by now."""
        ...

    def verify(self, name: str) -> None:
        """DataCorrupt if the disk has changed it."""
        ...

    def delete(self, name: str) -> None:
        """Forget a name, or NotFound."""
        ...


class JobCalls(Protocol):
    """What a server does with its tenant's jobs, each by id or name. It is waited for while it cannot be reached."""

    def submit(self, request_id: str, spec: bytes, tensors: Sequence[FirstTensor]) -> JobInfo:
        """Take a job in; tickets are those of the connection's session. The same request again is the same job."""
        ...

    def get(self, job: str) -> JobInfo:
        """A job as it stands, or NotFound."""
        ...

    def list(self) -> list[JobInfo]:
        """All of them, in the order they were submitted."""
        ...

    def watch(self, job: str, *, after_event: int = 0, from_step: int = 0) -> Iterator[JobNews]:
        """What has happened to a job and happens, until it has ended."""
        ...

    def pause(self, job: str) -> JobInfo:
        """Let it stop at a checkpoint."""
        ...

    def resume(self, job: str) -> JobInfo:
        """Let it go on."""
        ...

    def cancel(self, job: str) -> JobInfo:
        """End it."""
        ...

    def extend(self, job: str, request_id: str, *, epochs: int | None, steps: int | None) -> JobInfo:
        """Let it end later."""
        ...

    def fork(self, job: str, request_id: str, fork: Fork) -> JobInfo:
        """Make a new job that goes on from a checkpoint of this one."""
        ...

    def rewind(self, job: str, request_id: str, step: int) -> JobInfo:
        """Let it go on from an earlier checkpoint."""
        ...

    def checkpoints(self, job: str) -> list[int]:
        """The steps of which there is a checkpoint."""
        ...

    def checkpoint(
        self, job: str, step: int | None, *, prefix: str = ""
    ) -> tuple[CheckpointHeader, Iterator[npt.NDArray[Any]]]:
        """What is in a checkpoint, and its tensors in that order, each when it is asked for; None: of the newest one.

        Only those whose names begin with ``prefix``. Close the iterator if not all of them are wanted.
        """
        ...

    def verify(self, job: str) -> CheckpointReport:
        """What reading every byte of its checkpoints again finds."""
        ...


class Connection(Protocol):
    """A session's line to its server. Commands take effect once and in order, whatever the network does."""

    greeting: Greeting
    memory: SharedMemory | None
    """Memory that the server reads: what is placed there need not be uploaded. None where there is none, or not yet."""

    def open(self, deliver: Deliver, lost: Lost, upload_failed: UploadFailed) -> None:
        """Open the session; events go to ``deliver`` in order, the end of everything to ``lost``.

        ``upload_failed`` gets the name of a tensor whose bytes will never come. All three are called on any thread.
        """
        ...

    def send(self, sequence: int, command: Command) -> None:
        """Hand over a command with the next sequence number, from 1. One caller at a time; never waits."""
        ...

    def wait_for_room(self) -> None:
        """Wait while so much is on its way that a sender should stop."""
        ...

    def supply(self, function: bytes, data: bytes) -> None:
        """Give the server a function's bytes, outside the sequence."""
        ...

    def upload(self, name: int, type: Type, array: npt.NDArray[Any]) -> None:
        """Send the bytes of a tensor that was announced by Expect. The array may be changed afterwards."""
        ...

    def download(self, type: Type, ticket: str) -> npt.NDArray[Any]:
        """The array behind a ticket."""
        ...

    def dismiss(self, type: Type, ticket: str) -> None:
        """Nobody wants the array behind a ticket any more. Never waits, may be called on any thread."""
        ...

    def close(self) -> None:
        """End the session and free everything."""
        ...

    @property
    def datasets(self) -> DatasetCalls:
        """The server's datasets; they need no open session."""
        ...

    @property
    def jobs(self) -> JobCalls:
        """The server's jobs; only to submit one, a session must be open."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the session is still there, as far as is known."""
        ...
