"""The Tensors service over a worker: bytes go straight to where they stay, and come from where they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
from telegrad.errors import AccessError, DataCorrupt, GraphError
from telegrad.wire import stream
from telegrad.wire.status import to_exception
from telegrad.wire.v1 import tensors_pb2 as pb

from telegrad_server.offers import Offered
from telegrad_server.service.edge import OFFER, TENANT, guarded, guarded_stream, next_of, reader
from telegrad_server.worker import Worker

IDLE_SECONDS = 60.0
"""An upload on which nothing comes for so long is given up, and its room with it."""

BREAK_SECONDS = 0.5
INLINE_BYTES = 8 << 20
"""Room for larger tensors is made beside the event loop."""


class Tensors:
    """The handlers of the Tensors service."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers under their names."""
        return grpc.method_handlers_generic_handler(
            "telegrad.wire.v1.Tensors",
            {
                "UploadTensor": grpc.stream_unary_rpc_method_handler(
                    guarded(self.upload_tensor), _read_upload, pb.UploadTensorResponse.SerializeToString
                ),
                "PullTensor": grpc.unary_stream_rpc_method_handler(
                    guarded_stream(self.pull_tensor), reader(pb.PullTensorRequest), _as_it_is
                ),
                "DownloadTensor": grpc.unary_stream_rpc_method_handler(
                    guarded_stream(self.download_tensor), reader(pb.DownloadTensorRequest), _as_it_is
                ),
            },
        )

    async def upload_tensor(self, requests: Any, context: Any) -> pb.UploadTensorResponse:
        """Takes one tensor in chunks."""
        first = await next_of(context, seconds=IDLE_SECONDS)
        if first is None or isinstance(first, memoryview) or first.WhichOneof("part") != "header":
            raise GraphError("the first message of an upload must be its header", reason="MALFORMED_MESSAGE")
        h = first.header
        type = stream.type_from_proto(h.type)
        begin = (TENANT.get(), h.session_id, h.session_secret, h.name, type)
        if type.nbytes <= INLINE_BYTES:
            upload = self._worker.begin_upload(*begin)
        else:
            upload = await asyncio.to_thread(self._worker.begin_upload, *begin)
        try:
            while (part := await next_of(context, seconds=IDLE_SECONDS)) is not None:
                if not isinstance(part, memoryview):
                    raise upload.abort(DataCorrupt("an upload holds something that is no chunk", reason="DATA_LENGTH"))
                upload.write(part)
            if not upload.is_whole:
                # A broken connection also looks like the end of the stream, and cancels this call a moment later.
                # Then the client will try again, so the name must not fail.
                await asyncio.sleep(BREAK_SECONDS)
            return pb.UploadTensorResponse(received_bytes=await asyncio.to_thread(upload.finish))
        finally:
            upload.abandon()

    async def download_tensor(self, request: pb.DownloadTensorRequest, context: Any) -> AsyncIterator[bytes]:
        """Gives one tensor in chunks."""
        who = (TENANT.get(), request.session_id, request.session_secret, request.ticket)
        data = self._worker.download(*who)
        if request.offset_bytes > len(data):
            raise DataCorrupt(f"offset {request.offset_bytes} lies beyond {len(data)} bytes", reason="DATA_LENGTH")
        for chunk in stream.chunks(data[request.offset_bytes :]):
            yield stream.encode_download_chunk(chunk)
        self._worker.download_sent(*who)

    async def pull_tensor(self, request: pb.PullTensorRequest, context: Any) -> AsyncIterator[bytes]:
        """Gives another worker one tensor, once it is there."""
        session_id, key = OFFER.get()
        if not key:
            raise AccessError("only a worker may take what another one offers", reason="ACCESS_DENIED")
        loop = asyncio.get_running_loop()
        offered: asyncio.Future[Offered] = loop.create_future()

        def taken(found: Offered) -> None:
            with suppress(RuntimeError):  # the loop is closed, and so is the call
                loop.call_soon_threadsafe(lambda: offered.done() or offered.set_result(found))

        offers = self._worker.offers
        offers.take(session_id, key, taken)
        found = await offered
        if found.error is not None:
            raise to_exception(found.error)
        for chunk in stream.chunks(offers.bytes_of(found.value)):
            yield stream.encode_download_chunk(chunk)


def _read_upload(data: bytes) -> Any:
    chunk = stream.decode_chunk(data, tag=2)
    return chunk if chunk is not None else reader(pb.UploadTensorRequest)(data)


def _as_it_is(data: bytes) -> bytes:
    return data
