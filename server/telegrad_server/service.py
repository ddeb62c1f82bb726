"""The gRPC front: decode, ask the worker, encode. No decisions, and nothing that computes on the event loop."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from telegrad.errors import DataCorrupt, GraphError, ServerBug, TelegradError
from telegrad.wire import messages as m
from telegrad.wire import stream
from telegrad.wire.status import REASONS, to_record
from telegrad.wire.v1 import sessions_pb2 as pb
from telegrad.wire.v1 import tensors_pb2 as tensors

from telegrad_server.access import Gate
from telegrad_server.config import Config
from telegrad_server.worker import Worker

OPTIONS = [
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.settings_timeout", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.max_connection_age_ms", 1_800_000),
    ("grpc.max_connection_age_grace_ms", 70_000),
]
"""The server's half of the limits that reliability asks for; the client's half is in telegrad.transport.remote."""

PROTOCOLS = ("v1",)
ERROR_KEY = "telegrad-error-bin"
TICK_SECONDS = 0.5
BREAK_SECONDS = 0.5

_TENANT: ContextVar[str] = ContextVar("telegrad_tenant")
_MALFORMED: Any = object()
"""What a deserialiser returns for bytes that are no message; gRPC itself would answer INTERNAL."""


def _reader(cls: Any) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return cls.FromString(data)
        except DecodeError:
            return _MALFORMED

    return read


def _read_upload(data: bytes) -> Any:
    chunk = stream.decode_chunk(data, tag=2)
    return chunk if chunk is not None else _reader(tensors.UploadTensorRequest)(data)


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()


def _checked(message: Any) -> Any:
    if message is _MALFORMED:
        raise GraphError("the message's bytes are not of its type", reason="MALFORMED_MESSAGE")
    return message


async def _refuse(context: Any, error: TelegradError) -> None:
    record = stream.record_to_proto(to_record(error)).SerializeToString()
    row = REASONS.get(error.reason)
    code = getattr(grpc.StatusCode, row.code if row else "INTERNAL")
    await context.abort(code, error.message, ((ERROR_KEY, record),))


def _guarded(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A unary handler whose errors become statuses; what we did not foresee tells the caller only a number."""

    async def handler(request: Any, context: Any) -> Any:
        try:
            return await method(_checked(request) if not isinstance(request, AsyncIterator) else request, context)
        except TelegradError as error:
            await _refuse(context, error)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            await _refuse(context, _bug(error))

    return handler


def _guarded_stream(method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for item in method(request, context):
                yield item
        except TelegradError as error:
            await _refuse(context, error)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            await _refuse(context, _bug(error))

    return handler


def _bug(error: Exception) -> ServerBug:
    number = secrets.token_hex(6)
    logging.getLogger("telegrad").exception("internal error %s", number, exc_info=error)
    return ServerBug(f"the server failed in a way it does not explain; please report error {number}")


class Access(grpc.aio.ServerInterceptor):
    """Checks the token before the body of a call is parsed."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        headers = dict(handler_call_details.invocation_metadata or ())
        try:
            tenant = self._gate.tenant_of(headers.get("authorization"))
        except TelegradError as error:
            return _refusal(await continuation(handler_call_details), error)
        _TENANT.set(tenant)
        return await continuation(handler_call_details)


def _refusal(handler: Any, error: TelegradError) -> Any:
    """A handler of the same kind that refuses, and reads no body."""
    if handler is None:
        return None

    async def unary(request: Any, context: Any) -> None:
        await _refuse(context, error)

    async def streaming(request: Any, context: Any) -> AsyncIterator[Any]:
        await _refuse(context, error)
        yield b""

    raw: Callable[[bytes], bytes] = lambda data: data  # noqa: E731
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(streaming if handler.response_streaming else unary, raw, raw)


class Sessions:
    """The Sessions service over a worker."""

    def __init__(self, worker: Worker, config: Config) -> None:
        self._worker = worker
        self._config = config

    async def hello(self, request: pb.HelloRequest, context: Any) -> pb.HelloResponse:
        hello = self._worker.hello()
        limits = pb.Limits(
            message_bytes=16 << 20,
            chunk_bytes=stream.CHUNK_BYTES,
            inline_bytes=m.INLINE_BYTES,
            graph_nodes=self._config.max_graph_nodes,
            tensor_bytes=self._config.max_tensor_bytes,
        )
        limits.lease.FromNanoseconds(int(self._config.lease_seconds * 1e9))
        return pb.HelloResponse(
            server_version=hello.server_version,
            protocols=PROTOCOLS,
            incarnation=hello.incarnation,
            ops=hello.ops,
            limits=limits,
            warnings=hello.warnings,
            backend=hello.backend,
            fingerprint=hello.fingerprint,
            held_bytes=self._worker.held_bytes(_TENANT.get()),
        )

    async def open_session(self, request: pb.OpenSessionRequest, context: Any) -> pb.OpenSessionResponse:
        lease = request.lease.ToNanoseconds() / 1e9 if request.HasField("lease") else self._config.lease_seconds
        if not 0 < lease < 1e9:
            raise GraphError(f"a lease of {lease} s is not possible; it must be positive")
        grant = self._worker.open_session(_TENANT.get(), request.request_id, lease)
        response = pb.OpenSessionResponse(
            session_id=grant.session_id, session_secret=grant.session_secret, incarnation=grant.incarnation
        )
        response.lease.FromNanoseconds(int(grant.lease_seconds * 1e9))
        return response

    async def keep_alive(self, request: pb.KeepAliveRequest, context: Any) -> pb.KeepAliveResponse:
        left = self._worker.keep_alive(_TENANT.get(), request.session_id, request.session_secret, request.heard_event)
        response = pb.KeepAliveResponse(incarnation=self._worker.incarnation)
        response.expire_time.GetCurrentTime()
        response.expire_time.FromNanoseconds(response.expire_time.ToNanoseconds() + int(left * 1e9))
        return response

    async def close_session(self, request: pb.CloseSessionRequest, context: Any) -> pb.CloseSessionResponse:
        freed = self._worker.close_session(_TENANT.get(), request.session_id, request.session_secret)
        return pb.CloseSessionResponse(freed_tensors=freed)

    async def attach_session(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        first = _checked(await anext(requests, None))
        if first is None or first.WhichOneof("message") != "attach":
            raise GraphError("the first message of a session's stream must be attach", reason="MALFORMED_MESSAGE")
        loop = asyncio.get_running_loop()
        mailbox = _Mailbox(loop)
        session_id = first.attach.session_id
        received = self._worker.attach(
            _TENANT.get(), session_id, first.attach.session_secret, first.heard_event, mailbox.deliver
        )
        reader = asyncio.ensure_future(self._read(session_id, requests, mailbox))
        try:
            yield pb.AttachSessionResponse(
                attached=pb.Attached(incarnation=self._worker.incarnation, received_sequence=received)
            )
            self._worker.begin_delivery(session_id)
            async for number, event in mailbox:
                yield stream.event_to_proto(number, event)
            if mailbox.error is not None:
                raise mailbox.error
        finally:
            reader.cancel()
            self._worker.detach(session_id, mailbox.deliver)

    async def _read(self, session_id: str, requests: AsyncIterator[Any], mailbox: _Mailbox) -> None:
        """Feed the worker from the stream. What is wrong with a message ends the stream."""
        try:
            async for request in requests:
                _checked(request)
                if request.WhichOneof("message") == "batch":
                    for message in request.batch.messages:
                        self._take(session_id, message)
                else:
                    self._take(session_id, request)
            mailbox.end()
        except TelegradError as error:
            mailbox.end(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            mailbox.end(_bug(error))

    def _take(self, session_id: str, request: pb.AttachSessionRequest) -> None:
        if request.WhichOneof("message") == "supply":
            self._worker.supply(session_id, request.supply.id, request.supply.function)
        else:
            command = stream.command_from_proto(request)
            self._worker.receive(session_id, request.sequence, command, request.heard_event)


class _Mailbox:
    """Events from the worker's threads to the loop that writes them, woken once for many."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: list[tuple[int, m.Event]] = []
        self._filled = asyncio.Event()
        self._ended = False
        self.error: TelegradError | None = None

    def deliver(self, number: int, event: m.Event) -> None:
        """Take an event, on any thread."""
        self._events.append((number, event))
        if len(self._events) == 1:
            self._loop.call_soon_threadsafe(self._filled.set)

    def end(self, error: TelegradError | None = None) -> None:
        """The client is done, or wrong."""
        self._ended, self.error = True, error
        self._filled.set()

    async def __aiter__(self) -> AsyncIterator[tuple[int, m.Event]]:
        while True:
            await self._filled.wait()
            self._filled.clear()
            events, self._events = self._events, []
            for number, event in events:
                yield number, event
                if isinstance(event, m.Ended):
                    return
            if self._ended and not self._events:
                return


class Tensors:
    """The Tensors service over a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def upload_tensor(self, requests: AsyncIterator[Any], context: Any) -> tensors.UploadTensorResponse:
        first = _checked(await anext(requests, None))
        if first is None or isinstance(first, memoryview) or first.WhichOneof("part") != "header":
            raise GraphError("the first message of an upload must be its header", reason="MALFORMED_MESSAGE")
        h = first.header
        type = stream.type_from_proto(h.type)
        upload = self._worker.begin_upload(_TENANT.get(), h.session_id, h.session_secret, h.name, type)
        async for part in requests:
            if not isinstance(_checked(part), memoryview):
                raise DataCorrupt("an upload holds something that is no chunk", reason="DATA_LENGTH")
            upload.write(part)
        if not upload.is_whole:
            # A broken connection also looks like the end of the stream, and cancels this call a moment later. Then the
            # client will try again, so the name must not fail.
            await asyncio.sleep(BREAK_SECONDS)
        received = await asyncio.to_thread(upload.finish)
        return tensors.UploadTensorResponse(received_bytes=received)

    async def download_tensor(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        request = _checked(request)
        who = (_TENANT.get(), request.session_id, request.session_secret, request.ticket)
        data = self._worker.download(*who)
        if request.offset_bytes > len(data):
            raise DataCorrupt(f"offset {request.offset_bytes} lies beyond {len(data)} bytes", reason="DATA_LENGTH")
        for chunk in stream.chunks(data[request.offset_bytes :]):
            yield stream.encode_download_chunk(chunk)
        self._worker.download_done(*who)


def _handlers(worker: Worker, config: Config) -> list[Any]:
    sessions, bulk = Sessions(worker, config), Tensors(worker)

    def unary(method: Any, request: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(_guarded(method), _reader(request), _serialized)

    return [
        grpc.method_handlers_generic_handler(
            "telegrad.wire.v1.Sessions",
            {
                "Hello": unary(sessions.hello, pb.HelloRequest),
                "OpenSession": unary(sessions.open_session, pb.OpenSessionRequest),
                "KeepAlive": unary(sessions.keep_alive, pb.KeepAliveRequest),
                "CloseSession": unary(sessions.close_session, pb.CloseSessionRequest),
                "AttachSession": grpc.stream_stream_rpc_method_handler(
                    _guarded_stream(sessions.attach_session),
                    _reader(pb.AttachSessionRequest),
                    _serialized,
                ),
            },
        ),
        grpc.method_handlers_generic_handler(
            "telegrad.wire.v1.Tensors",
            {
                "UploadTensor": grpc.stream_unary_rpc_method_handler(
                    _guarded(bulk.upload_tensor), _read_upload, _serialized
                ),
                "DownloadTensor": grpc.unary_stream_rpc_method_handler(
                    _guarded_stream(bulk.download_tensor),
                    _reader(tensors.DownloadTensorRequest),
                    lambda data: data,
                ),
            },
        ),
    ]


class Server:
    """A worker behind gRPC on one address."""

    def __init__(self, worker: Worker, config: Config, gate: Gate) -> None:
        self._worker = worker
        self._config = config
        self._server = grpc.aio.server(
            interceptors=[Access(gate)], options=OPTIONS, maximum_concurrent_rpcs=4 * config.max_sessions
        )
        self._server.add_generic_rpc_handlers(_handlers(worker, config))
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; returns the port. OSError if the address cannot be bound."""
        target = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        address = f"{target}:{self._config.port}"
        try:
            if self._config.tls_cert is not None and self._config.tls_key is not None:
                port = self._server.add_secure_port(address, _credentials(self._config))
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise OSError(f"cannot listen on {address}: another program does, or the address is not this machine's")
        await self._server.start()
        self._ticking = asyncio.create_task(self._tick())
        return port

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._worker.tick()

    async def stop(self, grace_seconds: float) -> None:
        """Answer no new calls, end the sessions, and wait for calls under way."""
        if self._ticking is not None:
            self._ticking.cancel()
        await asyncio.to_thread(self._worker.stop)
        await self._server.stop(grace_seconds)


def _credentials(config: Config) -> grpc.ServerCredentials:
    assert config.tls_cert is not None and config.tls_key is not None
    with open(config.tls_cert, "rb") as cert, open(config.tls_key, "rb") as key:
        return grpc.ssl_server_credentials([(key.read(), cert.read())])
