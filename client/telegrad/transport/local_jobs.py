"""Jobs of a server in this process: calls of its foreman."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from telegrad.wire.arrays import array_from
from telegrad.wire.jobs import CheckpointHeader, CheckpointReport, FirstTensor, Fork, JobInfo, JobNews

LOOK_SECONDS = 0.05
"""How long to wait before looking again whether a job has news."""


class LocalJobs:
    """A tenant's jobs at a foreman. ``ticket`` gives the bytes behind one of the session's."""

    def __init__(self, foreman: Any, tenant: str, ticket: Callable[[str], memoryview]) -> None:
        self._foreman = foreman
        self._tenant = tenant
        self._ticket = ticket

    def submit(self, request_id: str, spec: bytes, tensors: Sequence[FirstTensor]) -> JobInfo:
        return self._foreman.submit(
            self._tenant, request_id, spec, [(t.name, partial(self._bytes, t)) for t in tensors]
        )

    def _bytes(self, tensor: FirstTensor) -> memoryview:
        return memoryview(tensor.data).cast("B") if tensor.data is not None else self._ticket(tensor.ticket)

    def get(self, job: str) -> JobInfo:
        return self._foreman.find(self._tenant, job)

    def list(self) -> list[JobInfo]:
        return self._foreman.all(self._tenant)

    def watch(self, job: str, *, after_event: int = 0, from_step: int = 0) -> Iterator[JobNews]:
        follower = self._foreman.follow(self._tenant, job, after_event=after_event, from_step=from_step)
        pause = threading.Event()
        while True:
            news = follower.news()
            if news is not None:
                yield news
            if follower.is_done:
                return
            if news is None:
                pause.wait(LOOK_SECONDS)

    def pause(self, job: str) -> JobInfo:
        return self._foreman.pause(self._tenant, job)

    def resume(self, job: str) -> JobInfo:
        return self._foreman.resume(self._tenant, job)

    def cancel(self, job: str) -> JobInfo:
        return self._foreman.cancel(self._tenant, job)

    def extend(self, job: str, request_id: str, *, epochs: int | None, steps: int | None) -> JobInfo:
        return self._foreman.extend(self._tenant, job, request_id, epochs=epochs, steps=steps)

    def fork(self, job: str, request_id: str, fork: Fork) -> JobInfo:
        return self._foreman.fork(self._tenant, job, request_id, fork)

    def rewind(self, job: str, request_id: str, step: int) -> JobInfo:
        return self._foreman.rewind(self._tenant, job, request_id, step)

    def checkpoints(self, job: str) -> list[int]:
        return self._foreman.checkpoints(self._tenant, job)

    def checkpoint(
        self, job: str, step: int | None, *, prefix: str = ""
    ) -> tuple[CheckpointHeader, Iterator[npt.NDArray[Any]]]:
        header, tensors = self._foreman.checkpoint(self._tenant, job, step)
        arrays = (np.array(array_from(type, data)) for name, type, data in tensors if name.startswith(prefix))
        return header.under(prefix), arrays

    def verify(self, job: str) -> CheckpointReport:
        return self._foreman.verify(self._tenant, job)
