"""The Jobs service over a foreman: decode, ask beside the event loop, encode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from telegrad.errors import ResourceError
from telegrad.wire import stream
from telegrad.wire.job_messages import (
    fork_from_proto,
    header_to_proto,
    info_to_proto,
    news_to_proto,
    report_to_proto,
    tensor_from_proto,
)
from telegrad.wire.jobs import FirstTensor
from telegrad.wire.v1 import jobs_pb2 as pb

from telegrad_server.foreman import Foreman
from telegrad_server.service.edge import TENANT, guarded, guarded_stream, reader
from telegrad_server.service.snapshot import Reading, Snapshots

LOOK_SECONDS = 0.2
"""How often a stream looks whether its job has news."""

QUIET_LOOKS = 50
"""After so many looks without news the stream says how the job stands all the same: its client knows that it lives."""


class Jobs:
    """The handlers of the Jobs service; without a foreman all of them say that no jobs are run here."""

    def __init__(self, foreman: Foreman | None, snapshots: Snapshots | None) -> None:
        self._found = foreman
        self._snapshots = snapshots

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers under their names."""

        def unary(method: Callable[[Any, Any], Awaitable[Any]], request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(guarded(method), reader(request), _serialized)

        def streaming(method: Callable[[Any, Any], AsyncIterator[Any]], request: Any) -> Any:
            return grpc.unary_stream_rpc_method_handler(guarded_stream(method), reader(request), _serialized)

        return grpc.method_handlers_generic_handler(
            "telegrad.wire.v1.Jobs",
            {
                "SubmitJob": unary(self.submit_job, pb.SubmitJobRequest),
                "GetJob": unary(self.get_job, pb.GetJobRequest),
                "ListJobs": unary(self.list_jobs, pb.ListJobsRequest),
                "WatchJob": streaming(self.watch_job, pb.WatchJobRequest),
                "PauseJob": unary(self.pause_job, pb.PauseJobRequest),
                "ResumeJob": unary(self.resume_job, pb.ResumeJobRequest),
                "CancelJob": unary(self.cancel_job, pb.CancelJobRequest),
                "ExtendJob": unary(self.extend_job, pb.ExtendJobRequest),
                "ForkJob": unary(self.fork_job, pb.ForkJobRequest),
                "RewindJob": unary(self.rewind_job, pb.RewindJobRequest),
                "ListCheckpoints": unary(self.list_checkpoints, pb.ListCheckpointsRequest),
                "ReadCheckpoint": streaming(self.read_checkpoint, pb.ReadCheckpointRequest),
                "VerifyCheckpoints": unary(self.verify_checkpoints, pb.VerifyCheckpointsRequest),
            },
        )

    @property
    def _foreman(self) -> Foreman:
        if self._found is None:
            raise ResourceError(
                "this server runs no jobs: it was started without --data-dir, which its operator can give; in a cluster"
                " the gateway has the jobs, and is asked for them",
                reason="STORAGE_MISSING",
            )
        return self._found

    async def submit_job(self, request: pb.SubmitJobRequest, context: Any) -> pb.SubmitJobResponse:
        """Takes a job in."""
        foreman, tenant = self._foreman, TENANT.get()
        assert self._snapshots is not None
        read = self._snapshots(request, context)
        tensors = [(t.name, partial(_bytes, t, read)) for t in map(tensor_from_proto, request.tensors)]
        info = await asyncio.to_thread(foreman.submit, tenant, request.request_id, request.spec, tensors)
        return pb.SubmitJobResponse(job=info_to_proto(info))

    async def get_job(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        """Tells how one stands."""
        info = await asyncio.to_thread(self._foreman.find, TENANT.get(), request.job)
        return pb.GetJobResponse(job=info_to_proto(info))

    async def list_jobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        """Tells how all stand."""
        return pb.ListJobsResponse(jobs=map(info_to_proto, await asyncio.to_thread(self._foreman.all, TENANT.get())))

    async def watch_job(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:
        """Tells what is new, until it has ended."""
        follower = self._foreman.follow(
            TENANT.get(), request.job, after_event=request.after_event, from_step=request.from_step
        )
        quiet = 0
        while True:
            news = await asyncio.to_thread(follower.news)
            if news is not None:
                yield news_to_proto(news)
            if follower.is_done:
                return
            quiet = quiet + 1 if news is None else 0
            if quiet == QUIET_LOOKS:
                follower.repeat()
                quiet = 0
            elif news is None:
                await asyncio.sleep(LOOK_SECONDS)

    async def pause_job(self, request: pb.PauseJobRequest, context: Any) -> pb.PauseJobResponse:
        """Lets one stop at a checkpoint."""
        info = await asyncio.to_thread(self._foreman.pause, TENANT.get(), request.job)
        return pb.PauseJobResponse(job=info_to_proto(info))

    async def resume_job(self, request: pb.ResumeJobRequest, context: Any) -> pb.ResumeJobResponse:
        """Lets one go on."""
        info = await asyncio.to_thread(self._foreman.resume, TENANT.get(), request.job)
        return pb.ResumeJobResponse(job=info_to_proto(info))

    async def cancel_job(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        """Ends one."""
        info = await asyncio.to_thread(self._foreman.cancel, TENANT.get(), request.job)
        return pb.CancelJobResponse(job=info_to_proto(info))

    async def extend_job(self, request: pb.ExtendJobRequest, context: Any) -> pb.ExtendJobResponse:
        """Lets one end later."""
        epochs = request.epochs if request.HasField("epochs") else None
        steps = request.steps if request.HasField("steps") else None
        extend = self._foreman.extend
        info = await asyncio.to_thread(
            extend, TENANT.get(), request.job, request.request_id, epochs=epochs, steps=steps
        )
        return pb.ExtendJobResponse(job=info_to_proto(info))

    async def fork_job(self, request: pb.ForkJobRequest, context: Any) -> pb.ForkJobResponse:
        """Makes one that goes on from a checkpoint of another."""
        fork, asked = self._foreman.fork, fork_from_proto(request)
        info = await asyncio.to_thread(fork, TENANT.get(), request.job, request.request_id, asked)
        return pb.ForkJobResponse(job=info_to_proto(info))

    async def rewind_job(self, request: pb.RewindJobRequest, context: Any) -> pb.RewindJobResponse:
        """Lets one go on from an earlier checkpoint."""
        rewind = self._foreman.rewind
        info = await asyncio.to_thread(rewind, TENANT.get(), request.job, request.request_id, request.step)
        return pb.RewindJobResponse(job=info_to_proto(info))

    async def list_checkpoints(self, request: pb.ListCheckpointsRequest, context: Any) -> pb.ListCheckpointsResponse:
        """Tells which checkpoints there are."""
        steps = await asyncio.to_thread(self._foreman.checkpoints, TENANT.get(), request.job)
        return pb.ListCheckpointsResponse(steps=steps)

    async def read_checkpoint(
        self, request: pb.ReadCheckpointRequest, context: Any
    ) -> AsyncIterator[pb.ReadCheckpointResponse]:
        """Gives the tensors of one, from some byte on."""
        step = request.step if request.HasField("step") else None
        header, tensors = await asyncio.to_thread(self._foreman.checkpoint, TENANT.get(), request.job, step)
        yield pb.ReadCheckpointResponse(header=header_to_proto(header.under(request.prefix)))
        left_out = request.offset_bytes
        while (tensor := await asyncio.to_thread(next, tensors, None)) is not None:
            name, _, data = tensor
            if name.startswith(request.prefix):
                for chunk in stream.chunks(data[left_out:]):
                    yield pb.ReadCheckpointResponse(chunk=bytes(chunk))
                left_out = max(0, left_out - len(data))

    async def verify_checkpoints(
        self, request: pb.VerifyCheckpointsRequest, context: Any
    ) -> pb.VerifyCheckpointsResponse:
        """Reads all of them again."""
        return report_to_proto(await asyncio.to_thread(self._foreman.verify, TENANT.get(), request.job))


def _bytes(tensor: FirstTensor, read: Reading) -> memoryview:
    return memoryview(tensor.data) if tensor.data is not None else read(tensor.ticket)


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()
