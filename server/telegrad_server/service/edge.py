"""The edge of the service: bytes that may be no message, callers who may not come in, errors on their way out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from telegrad.errors import AccessError, GraphError, StateLost, TelegradError, TimedOut
from telegrad.wire import messages as m
from telegrad.wire import stream
from telegrad.wire.status import REASONS, to_record

from telegrad_server.access import Gate
from telegrad_server.bug import bug
from telegrad_server.cluster.tickets import Key

ERROR_KEY = "telegrad-error-bin"
TICKET_KEY = "telegrad-ticket-bin"
OPEN_METHODS = (
    "/telegrad.wire.v1.Sessions/Hello",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
)
"""Methods that want no token; a wrong one is refused all the same."""

READ_METHODS = (
    *OPEN_METHODS,
    *[f"/telegrad.wire.v1.Jobs/{name}" for name in ("GetJob", "ListJobs", "WatchJob")],
    *[f"/telegrad.wire.v1.Jobs/{name}" for name in ("ListCheckpoints", "ReadCheckpoint")],
    *[f"/telegrad.wire.v1.Datasets/{name}" for name in ("ListDatasets", "DescribeDataset", "ReadDataset")],
)
"""All that a token which may only read can call."""

STATUS_BYTES = 480
MESSAGE_BYTES = 1000
DETAIL_BYTES = 100
DETAILS = 8
"""Limits on an error in metadata, all of which must stay well below 8 KiB, else gRPC refuses it at random. A byte of
the status takes up to three, one of the record one and a third."""

TENANT: ContextVar[str] = ContextVar("telegrad_tenant")
"""The tenant of the call that is being answered; empty for a caller without a token where one is wanted."""

REFUSED: ContextVar[Counter[str] | None] = ContextVar("telegrad_refused", default=None)
"""Where the server that is answering counts what it refuses, by reason."""

END: Any = grpc.aio.EOF  # pyright: ignore[reportAttributeAccessIssue]  # missing in grpc's stubs
"""What reading from a stream returns at its end."""

IS_PEER: ContextVar[bool] = ContextVar("telegrad_is_peer", default=False)
"""Whether another worker makes the call that is being answered, and no client."""

OFFER: ContextVar[tuple[str, str]] = ContextVar("telegrad_offer", default=("", ""))
"""The session and the key of the offer that the call may take; empty for all other calls."""

PULL_METHOD = "/telegrad.wire.v1.Tensors/PullTensor"

WEIGHT: ContextVar[float] = ContextVar("telegrad_weight", default=1.0)
"""The share of the device that the caller's sessions get, beside others'."""

_MALFORMED: Any = object()
"""What a deserialiser returns for bytes that are no message; gRPC itself would answer INTERNAL."""

_Answer = TypeVar("_Answer")


# ---- in


def reader(cls: Any) -> Callable[[bytes], Any]:
    """A deserialiser for messages of a class; give what it returns to `checked`."""

    def read(data: bytes) -> Any:
        try:
            return cls.FromString(data)
        except DecodeError:
            return _MALFORMED

    return read


def checked(message: Any) -> Any:
    """The message. GraphError (MALFORMED_MESSAGE) if its bytes were none."""
    if message is _MALFORMED:
        raise GraphError("the message's bytes are not of its type", reason="MALFORMED_MESSAGE")
    return message


async def next_of(context: Any, *, seconds: float) -> Any:
    """The stream's next message, None at its end. TimedOut if nothing comes for too long."""
    try:
        async with asyncio.timeout(seconds):
            message = await context.read()
    except TimeoutError:
        raise TimedOut(f"nothing came on the stream for {seconds:g} s") from None
    return None if message is END else checked(message)


class Refusals(grpc.aio.ServerInterceptor):
    """Counts, by reason, what the server refuses. The first interceptor, so that it counts what the others refuse."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The handler of the call, in a context that knows where to count."""
        REFUSED.set(self._counts)
        return await continuation(handler_call_details)


class Access(grpc.aio.ServerInterceptor):
    """Checks the token before the body of a call is parsed."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The handler of the call, or one that refuses."""
        headers = dict(handler_call_details.invocation_metadata or ())
        try:
            caller = self._gate.caller_of(headers.get("authorization"))
            if caller.may_only_read and handler_call_details.method not in READ_METHODS:
                raise AccessError("the token may only read: its line in the server's token file says so")
            TENANT.set(caller.tenant)
            WEIGHT.set(caller.weight)
        except AccessError as error:
            if error.reason != "TOKEN_MISSING" or handler_call_details.method not in OPEN_METHODS:
                return _refusal(await continuation(handler_call_details), error)
            TENANT.set("")
        return await continuation(handler_call_details)


class TicketAccess(grpc.aio.ServerInterceptor):
    """Checks a gateway's ticket before the body of a call is parsed: what a cluster's worker wants, instead of tokens.

    A ticket of another process of this worker gives StateLost, since that process held the session.
    """

    def __init__(self, key: Key, incarnation: str) -> None:
        self._key = key
        self._incarnation = incarnation

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The handler of the call, or one that refuses."""
        headers = dict(handler_call_details.invocation_metadata or ())
        try:
            TENANT.set(self._tenant(headers.get(TICKET_KEY), handler_call_details.method))
        except (AccessError, StateLost) as error:
            return _refusal(await continuation(handler_call_details), error)
        return await continuation(handler_call_details)

    def _tenant(self, data: bytes | None, method: str) -> str:
        if data is None:
            if method in OPEN_METHODS:
                return ""
            raise AccessError("a worker of a cluster is called through its gateway", reason="TICKET_INVALID")
        ticket = self._key.read(data)
        if ticket.incarnation != self._incarnation:
            raise StateLost(f"worker {ticket.worker} was started anew, and its sessions are lost; connect again")
        if bool(ticket.offer) != (method == PULL_METHOD):
            raise AccessError("the ticket is not for calls of this kind", reason="TICKET_INVALID")
        OFFER.set((ticket.session_id, ticket.offer))
        IS_PEER.set(ticket.is_peers)
        WEIGHT.set(ticket.weight)
        return ticket.tenant


def _refusal(handler: Any, error: TelegradError) -> Any:
    """A handler of the same kind that refuses, and reads no body."""
    if handler is None:
        return None

    async def refuse_call(request: Any, context: Any) -> None:
        await refuse(context, error)

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(refuse_call, _unread, _unread)


def _unread(data: bytes) -> bytes:
    return data


# ---- out


async def refuse(context: Any, error: TelegradError) -> None:
    """End the call with the error's status, and the error as data beside it."""
    record = stream.record_to_proto(_trimmed(to_record(error))).SerializeToString()
    row = REASONS.get(error.reason)
    if (refused := REFUSED.get()) is not None:
        refused[error.reason] += 1
    code = getattr(grpc.StatusCode, row.code if row else "INTERNAL")
    await context.abort(code, _cut(error.message, STATUS_BYTES), ((ERROR_KEY, record),))


def guarded(
    method: Callable[[Any, Any], Awaitable[_Answer]],
) -> Callable[[Any, Any], Coroutine[Any, Any, _Answer | None]]:
    """A handler whose errors become statuses; of what we did not foresee the caller is told only a number."""

    async def handler(request: Any, context: Any) -> _Answer | None:
        try:
            return await method(request if isinstance(request, AsyncIterator) else checked(request), context)
        except TelegradError as error:
            await refuse(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the edge
            await refuse(context, bug(error))
        return None

    return handler


def guarded_stream(
    method: Callable[[Any, Any], AsyncIterator[_Answer]],
) -> Callable[[Any, Any], AsyncIterator[_Answer]]:
    """The same for a handler that yields its answers."""

    async def handler(request: Any, context: Any) -> AsyncIterator[_Answer]:
        try:
            async for answer in method(checked(request), context):
                yield answer
        except TelegradError as error:
            await refuse(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the edge
            await refuse(context, bug(error))

    return handler


def _trimmed(record: m.ErrorRecord) -> m.ErrorRecord:
    """The record within what metadata can carry."""
    details = {key: _cut(value, DETAIL_BYTES) for key, value in list(record.details.items())[:DETAILS]}
    return replace(record, message=_cut(record.message, MESSAGE_BYTES), details=details)


def _cut(text: str, nbytes: int) -> str:
    """The beginning of a text that takes at most so many bytes in UTF-8."""
    return text.encode()[:nbytes].decode(errors="ignore")
