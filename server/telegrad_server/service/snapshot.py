"""Where the large tensors of a checkpoint 0 are when a job is submitted: in the session that lives here, or elsewhere.

Each is read when its turn to be written has come, so that a gateway holds one at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc.aio
from telegrad.errors import DataCorrupt, ServerUnavailable
from telegrad.wire import stream
from telegrad.wire.v1 import jobs_pb2 as jobs
from telegrad.wire.v1 import tensors_pb2 as tensors

from telegrad_server.service.edge import TENANT
from telegrad_server.service.relay import TICKET_KEY, Relay, as_unavailable, error_of
from telegrad_server.worker import Worker

Reading = Callable[[str], memoryview]
"""The bytes behind a ticket of the submitting session. Called on a thread beside the event loop."""

Snapshots = Callable[[jobs.SubmitJobRequest, Any], Reading]
"""Called on the event loop, with the request and the context of its call."""

_DOWNLOAD = "/telegrad.wire.v1.Tensors/DownloadTensor"
TENSOR_SECONDS = 600.0


def of_worker(worker: Worker) -> Snapshots:
    """The tensors of sessions that live on this worker."""

    def begin(request: jobs.SubmitJobRequest, context: Any) -> Reading:
        who = (TENANT.get(), request.session_id, request.session_secret)
        return lambda ticket: worker.download(*who, ticket)

    return begin


def of_homes(relay: Relay, home: Callable[[Any], tuple[str, bytes]]) -> Snapshots:
    """Those of sessions that live on workers. ``home`` is the address and the session's ticket for a call's context."""

    def begin(request: jobs.SubmitJobRequest, context: Any) -> Reading:
        loop = asyncio.get_running_loop()
        found: list[tuple[str, bytes]] = [home(context)] if any(t.ticket for t in request.tensors) else []

        def read(ticket: str) -> memoryview:
            wanted = tensors.DownloadTensorRequest(
                session_id=request.session_id, session_secret=request.session_secret, ticket=ticket
            )
            work = _download(relay, *found[0], wanted)
            return memoryview(asyncio.run_coroutine_threadsafe(work, loop).result())

        return read

    return begin


async def _download(relay: Relay, address: str, permission: bytes, wanted: tensors.DownloadTensorRequest) -> bytearray:
    call: Any = relay.channel(address, is_bulk=True).unary_stream(_DOWNLOAD)(
        wanted.SerializeToString(), metadata=((TICKET_KEY, permission),), timeout=TENSOR_SECONDS
    )
    data = bytearray()
    try:
        async for message in call:
            chunk = stream.decode_chunk(message, tag=1)
            if chunk is None:
                raise DataCorrupt("a download holds something that is no chunk", reason="DATA_LENGTH")
            data += chunk
    except grpc.aio.AioRpcError as error:
        error = as_unavailable(error)
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise ServerUnavailable("the session's worker does not answer; submit again") from None
        raise error_of(error) from None
    return data
