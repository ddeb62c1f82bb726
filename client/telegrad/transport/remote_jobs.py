"""Jobs over gRPC, on a channel of their own: a job is followed from any machine. Only to submit needs a session.

Every call may be sent again: what changes something has a request id, or says what shall be and not what to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from telegrad.errors import DataCorrupt, ServerUnavailable, TelegradError
from telegrad.transport.channel import error_of
from telegrad.wire.arrays import array_from
from telegrad.wire.job_messages import header_from_proto, info_from_proto, news_from_proto, tensor_to_proto
from telegrad.wire.jobs import FirstTensor, JobInfo, JobNews
from telegrad.wire.v1 import jobs_pb2 as pb
from telegrad.wire.v1 import jobs_pb2_grpc as services

Metadata = Sequence[tuple[str, str | bytes]]
Who = tuple[str, bytes, Metadata]

LONGEST_PAUSE_SECONDS = 2.0
SUBMIT_SECONDS = 60.0
"""Checkpoint 0 is written before a submission is answered."""


class RemoteJobs:
    """The jobs of a token's tenant. ``who`` is the session that has tickets: its id, its secret, its call's metadata.

    ``patience_seconds``: for so long a server that is not there is waited for.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        metadata: Metadata,
        *,
        who: Callable[[], Who],
        timeout_seconds: float,
        patience_seconds: float,
    ) -> None:
        self._channel = channel
        self._metadata = list(metadata)
        self._who = who
        self._timeout = timeout_seconds
        self._patience = patience_seconds
        self._closing = threading.Event()
        self._stub: Any = services.JobsStub(channel)

    def submit(self, request_id: str, spec: bytes, tensors: Sequence[FirstTensor]) -> JobInfo:
        request = pb.SubmitJobRequest(request_id=request_id, spec=spec, tensors=map(tensor_to_proto, tensors))
        metadata = self._metadata
        if any(tensor.ticket for tensor in tensors):
            request.session_id, request.session_secret, metadata = self._who()
        timeout = max(self._timeout, SUBMIT_SECONDS)
        answer = self._call(self._stub.SubmitJob, request, timeout=timeout, metadata=metadata)
        return info_from_proto(answer.job)

    def get(self, job: str) -> JobInfo:
        return info_from_proto(self._call(self._stub.GetJob, pb.GetJobRequest(job=job)).job)

    def list(self) -> list[JobInfo]:
        return [info_from_proto(found) for found in self._call(self._stub.ListJobs, pb.ListJobsRequest()).jobs]

    def watch(self, job: str, *, after_event: int = 0, from_step: int = 0) -> Iterator[JobNews]:
        patience = _Patience(self._patience, self._closing)
        while True:
            request = pb.WatchJobRequest(job=job, after_event=after_event, from_step=from_step)
            call: Any = self._stub.WatchJob(request, metadata=self._metadata)
            has_ended = False
            try:
                for message in call:
                    news = news_from_proto(message)
                    patience.heard()
                    after_event = max([after_event, *[event.number for event in news.events]])
                    from_step = max([from_step, *[row.step + 1 for row in news.rows]])
                    has_ended = news.job.has_ended
                    yield news
                if has_ended:
                    return
                failure: TelegradError = ServerUnavailable("the server has ended the stream")
            except grpc.RpcError as error:
                failure = _as_unavailable(error_of(error))
            finally:
                call.cancel()
            patience.wait(failure)

    def pause(self, job: str) -> JobInfo:
        return info_from_proto(self._call(self._stub.PauseJob, pb.PauseJobRequest(job=job)).job)

    def resume(self, job: str) -> JobInfo:
        return info_from_proto(self._call(self._stub.ResumeJob, pb.ResumeJobRequest(job=job)).job)

    def cancel(self, job: str) -> JobInfo:
        return info_from_proto(self._call(self._stub.CancelJob, pb.CancelJobRequest(job=job)).job)

    def extend(self, job: str, request_id: str, *, epochs: int | None, steps: int | None) -> JobInfo:
        request = pb.ExtendJobRequest(job=job, request_id=request_id, epochs=epochs, steps=steps)
        return info_from_proto(self._call(self._stub.ExtendJob, request).job)

    def checkpoints(self, job: str) -> list[int]:
        return [*self._call(self._stub.ListCheckpoints, pb.ListCheckpointsRequest(job=job)).steps]

    def checkpoint(self, job: str, step: int | None) -> tuple[int, dict[str, npt.NDArray[Any]]]:
        request = pb.ReadCheckpointRequest(job=job, step=step)

        def read(_: Any, *, metadata: Any, timeout: float) -> tuple[pb.CheckpointHeader, bytearray]:
            parts = self._stub.ReadCheckpoint(request, metadata=metadata)
            first = next(iter(parts))
            data = bytearray()
            for part in parts:
                data += part.chunk
            return first.header, data

        message, data = self._call(read, request)
        header = header_from_proto(message)
        wanted = sum(type.nbytes for _, type in header.tensors)
        if len(data) != wanted:
            raise DataCorrupt(f"a checkpoint of {wanted} bytes came with {len(data)}; ask again", expected=wanted)
        found: dict[str, npt.NDArray[Any]] = {}
        at = 0
        for name, type in header.tensors:
            found[name] = np.array(array_from(type, memoryview(data)[at : at + type.nbytes]))
            at += type.nbytes
        return header.step, found

    def close(self) -> None:
        """Let go of the server."""
        self._closing.set()
        self._channel.close()

    def _call(
        self, method: Any, request: Any, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Any:
        """What the call returns, tried again while the server cannot be reached."""
        patience = _Patience(self._patience, self._closing)
        while True:
            try:
                return method(request, timeout=timeout or self._timeout, metadata=metadata or self._metadata)
            except grpc.RpcError as error:
                failure = _as_unavailable(error_of(error))
            patience.wait(failure)


class _Patience:
    """Waits between tries, and raises when that has been too long."""

    def __init__(self, seconds: float, closing: threading.Event) -> None:
        self._seconds, self._closing = seconds, closing
        self.heard()

    def heard(self) -> None:
        self._began, self._pause = time.monotonic(), 0.05

    def wait(self, failure: TelegradError) -> None:
        if not isinstance(failure, ServerUnavailable) or time.monotonic() - self._began > self._seconds:
            raise failure
        if self._closing.wait(self._pause):
            raise failure
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)


def _as_unavailable(error: TelegradError) -> TelegradError:
    """A call that was broken off, as a proxy or a server that stops does it, may be sent again as well."""
    if error.reason in ("CANCELLED", "DEADLINE_EXCEEDED", "CONNECTION_FAILED"):
        return ServerUnavailable(error.message)
    return error
