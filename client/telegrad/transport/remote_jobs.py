"""Jobs over gRPC, on a channel of their own: a job is followed from any machine. Only to submit needs a session.

Every call may be sent again: what changes something has a request id, or says what shall be and not what to do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import grpc
import numpy.typing as npt

from telegrad.errors import ServerUnavailable, TelegradError
from telegrad.transport.channel import error_of
from telegrad.transport.patience import Patience, as_unavailable
from telegrad.transport.remote_checkpoints import read_checkpoint
from telegrad.wire.job_messages import (
    fork_to_proto,
    info_from_proto,
    news_from_proto,
    report_from_proto,
    tensor_to_proto,
)
from telegrad.wire.jobs import CheckpointHeader, CheckpointReport, FirstTensor, Fork, JobInfo, JobNews
from telegrad.wire.v1 import jobs_pb2 as pb
from telegrad.wire.v1 import jobs_pb2_grpc as services

Metadata = Sequence[tuple[str, str | bytes]]
Who = tuple[str, bytes, Metadata]

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
        patience = Patience(self._patience, self._closing)
        while True:
            request = pb.WatchJobRequest(job=job, after_event=after_event, from_step=from_step)
            call: Any = patience.begin(partial(self._stub.WatchJob, request, metadata=self._metadata))
            has_ended = False
            try:
                for message in call:
                    news = news_from_proto(message)
                    patience.heard()
                    after_event = max([after_event, *[event.number for event in news.events]])
                    if news.goes_back_to is not None:
                        from_step = min(from_step, news.goes_back_to + 1)
                    from_step = max([from_step, *[row.step + 1 for row in news.rows]])
                    has_ended = news.job.has_ended
                    yield news
                if has_ended:
                    return
                failure: TelegradError = ServerUnavailable("the server has ended the stream")
            except grpc.RpcError as error:
                failure = as_unavailable(error_of(error))
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

    def fork(self, job: str, request_id: str, fork: Fork) -> JobInfo:
        request = fork_to_proto(job, request_id, fork)
        return info_from_proto(self._call(self._stub.ForkJob, request, timeout=max(self._timeout, SUBMIT_SECONDS)).job)

    def rewind(self, job: str, request_id: str, step: int) -> JobInfo:
        request = pb.RewindJobRequest(job=job, request_id=request_id, step=step)
        return info_from_proto(self._call(self._stub.RewindJob, request).job)

    def checkpoints(self, job: str) -> list[int]:
        return [*self._call(self._stub.ListCheckpoints, pb.ListCheckpointsRequest(job=job)).steps]

    def checkpoint(
        self, job: str, step: int | None, *, prefix: str = ""
    ) -> tuple[CheckpointHeader, Iterator[npt.NDArray[Any]]]:
        request = pb.ReadCheckpointRequest(job=job, step=step, prefix=prefix)
        patience = Patience(self._patience, self._closing)
        return read_checkpoint(self._stub.ReadCheckpoint, request, metadata=self._metadata, patience=patience)

    def verify(self, job: str) -> CheckpointReport:
        def verify(request: Any, *, metadata: Any, timeout: float) -> Any:
            return self._stub.VerifyCheckpoints(request, metadata=metadata)  # takes as long as reading all of it

        return report_from_proto(self._call(verify, pb.VerifyCheckpointsRequest(job=job)))

    def close(self) -> None:
        """Let go of the server."""
        self._closing.set()
        self._channel.close()

    def _call(
        self, method: Any, request: Any, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Any:
        """What the call returns, tried again while the server cannot be reached."""
        patience = Patience(self._patience, self._closing)
        call = partial(method, request, timeout=timeout or self._timeout, metadata=metadata or self._metadata)
        while True:
            try:
                return patience.begin(call)
            except grpc.RpcError as error:
                failure = as_unavailable(error_of(error))
            patience.wait(failure)
