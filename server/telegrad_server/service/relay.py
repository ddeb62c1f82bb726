"""Splices calls to a worker: bytes go through as they are, with their errors, in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import grpc
import grpc.aio
from telegrad.errors import TelegradError
from telegrad.wire.status import from_code, to_exception
from telegrad.wire.stream import record_from_proto
from telegrad.wire.v1 import sessions_pb2

from telegrad_server.service.edge import END, ERROR_KEY, TICKET_KEY
from telegrad_server.service.listening import MESSAGE_BYTES

__all__ = ["TICKET_KEY", "WORKER_NAME", "Relay", "as_unavailable", "cluster_channel", "error_of", "pass_on"]

Metadata = Sequence[tuple[str, str | bytes]]

OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),  # for bytes that nobody acknowledges: a cut
    ("grpc.http2.ping_timeout_ms", 10_000),  # for a process that stands still while its machine acknowledges
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
]
"""The options of a line inside the cluster."""

WORKER_NAME = "telegrad-worker"
"""The name in the certificate of every worker: they come and go, with addresses that nobody knows beforehand."""


def cluster_channel(
    address: str, roots: bytes | None, *, name: str = WORKER_NAME, more: Sequence[tuple[str, int]] = ()
) -> grpc.aio.Channel:
    """A channel to a member of the cluster; with ``roots``, the certificates of its authority, over TLS.

    ``more`` are options beside, or instead of, the usual ones.
    """
    options: list[tuple[str, Any]] = list((dict(OPTIONS) | dict(more)).items())
    if roots is None:
        return grpc.aio.insecure_channel(address, options=options)
    options.append(("grpc.ssl_target_name_override", name))
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(roots), options=options)


class Relay:
    """The lines to workers, by address: one for what must be quick, one for bulk. Used on the event loop only."""

    def __init__(self, roots: bytes | None) -> None:
        self._roots = roots
        self._channels: dict[tuple[str, bool], grpc.aio.Channel] = {}

    def channel(self, address: str, *, is_bulk: bool = False) -> grpc.aio.Channel:
        """The line to a worker."""
        key = (address, is_bulk)
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = cluster_channel(address, self._roots)
        return channel

    async def forget(self, address: str) -> None:
        """Close the lines to a worker that is gone; calls under way end as unavailable."""
        for key in [key for key in self._channels if key[0] == address]:
            await self._channels.pop(key).close()

    async def close(self) -> None:
        """Close all lines."""
        for address in {address for address, _ in self._channels}:
            await self.forget(address)

    async def unary(self, address: str, method: str, request: bytes, context: Any, metadata: Metadata) -> bytes:
        """One message each way. AioRpcError if the worker refuses, or is not there."""
        call = self.channel(address).unary_unary(method)(request, timeout=context.time_remaining(), metadata=metadata)
        try:
            return await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _cut() from None

    async def splice(
        self, address: str, method: str, context: Any, metadata: Metadata, *, first: bytes | None = None
    ) -> None:
        """Messages both ways until the worker ends the call. ``first`` is the request of a caller that sends one.

        Works for every kind of call: where gRPC has one message, the stream has one.
        """
        call: Any = self.channel(address, is_bulk=not method.endswith("/AttachSession")).stream_stream(method)(
            metadata=metadata
        )
        sending = asyncio.ensure_future(self._send(call, context, first))
        try:
            while (message := await call.read()) is not END:
                await context.write(message)
            code = await call.code()
            if code is not grpc.StatusCode.OK:
                raise grpc.aio.AioRpcError(
                    code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
                )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the caller has gone
            raise _cut() from None  # the line was closed under the call
        finally:
            sending.cancel()
            call.cancel()

    async def _send(self, call: Any, context: Any, first: bytes | None) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reading side tells
            if first is not None:
                await call.write(first)
            else:
                while (message := await context.read()) is not END:
                    await call.write(message)
            await call.done_writing()


def error_of(error: grpc.aio.AioRpcError) -> TelegradError:
    """The exception for a failed call, from the record in its trailing metadata or from its status."""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_KEY:
            return to_exception(record_from_proto(sessions_pb2.ErrorRecord.FromString(cast(bytes, value))))
    return from_code(error.code().name, error.details() or "")


def _cut() -> grpc.aio.AioRpcError:
    """What a call ends with whose worker is gone."""
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "the line to the worker was cut")


def as_unavailable(error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
    """The error; a line that broke just when a call began is reported by gRPC as an error within itself."""
    is_broken = error.code() is grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"
    return _cut() if is_broken else error


async def pass_on(context: Any, error: grpc.aio.AioRpcError) -> None:
    """End the caller's call as the worker ended ours."""
    records = [(key, value) for key, value in error.trailing_metadata() or () if key == ERROR_KEY]
    await context.abort(error.code(), error.details() or "", tuple(records))
