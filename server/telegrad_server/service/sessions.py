"""The Sessions service over a worker: decode, ask, encode."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from telegrad.errors import GraphError, QuotaExceeded, TelegradError
from telegrad.wire import messages as m
from telegrad.wire import stream
from telegrad.wire.v1 import sessions_pb2 as pb

from telegrad_server.bug import bug
from telegrad_server.config import Config
from telegrad_server.service.edge import END, IS_PEER, TENANT, WEIGHT, checked, guarded, next_of, reader
from telegrad_server.service.listening import MESSAGE_BYTES
from telegrad_server.service.mailbox import Mailbox
from telegrad_server.worker import Worker

PROTOCOLS = ("v1",)
LEASE_SECONDS = 60.0
"""The lease of a client that asks for none."""

ATTACH_SECONDS = 10.0
"""A stream that does not say by then whose it is, is closed."""

LIGHT_BATCH = 4
"""Tiny steps are computed on the event loop, in less time than a thread is woken, but no more at once than these."""

INLINE_SUPPLY_BYTES = 256 << 10
"""Larger functions are hashed beside the event loop."""


class Sessions:
    """The handlers of the Sessions service."""

    def __init__(self, worker: Worker, config: Config) -> None:
        self._worker = worker
        self._config = config

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers under their names."""

        def unary(method: Any, request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(guarded(method), reader(request), _serialized)

        return grpc.method_handlers_generic_handler(
            "telegrad.wire.v1.Sessions",
            {
                "Hello": unary(self.hello, pb.HelloRequest),
                "OpenSession": unary(self.open_session, pb.OpenSessionRequest),
                "KeepAlive": unary(self.keep_alive, pb.KeepAliveRequest),
                "CloseSession": unary(self.close_session, pb.CloseSessionRequest),
                "AttachSession": grpc.stream_stream_rpc_method_handler(
                    guarded(self.attach_session), reader(pb.AttachSessionRequest), _serialized
                ),
            },
        )

    async def hello(self, request: pb.HelloRequest, context: Any) -> pb.HelloResponse:
        """Who is there."""
        hello = self._worker.hello()
        response = hello_response(
            self._config,
            incarnation=hello.incarnation,
            version=hello.server_version,
            ops=hello.ops,
            backend=hello.backend,
            fingerprint=hello.fingerprint,
            warnings=hello.warnings,
        )
        response.held_bytes = self._worker.held_bytes(TENANT.get())
        return response

    async def open_session(self, request: pb.OpenSessionRequest, context: Any) -> pb.OpenSessionResponse:
        """Opens a session."""
        lease = request.lease.ToNanoseconds() / 1e9 if request.HasField("lease") else LEASE_SECONDS
        if not 0 < lease < 1e9:
            raise GraphError(f"a lease of {lease} s is not possible; it must be positive")
        backend = self._worker.hello().backend
        if request.demand.backend not in ("", backend):
            raise QuotaExceeded(
                f"this server computes with {backend!r}, and {request.demand.backend!r} is wanted",
                reason="DEMAND_HOPELESS",
            )
        grant = self._worker.open_session(
            TENANT.get(), request.request_id, lease, is_peers=IS_PEER.get(), weight=WEIGHT.get()
        )
        response = pb.OpenSessionResponse(
            session_id=grant.session_id, session_secret=grant.session_secret, incarnation=grant.incarnation
        )
        hello = self._worker.hello()
        response.backend, response.fingerprint = hello.backend, hello.fingerprint
        response.lease.FromNanoseconds(int(grant.lease_seconds * 1e9))
        return response

    async def keep_alive(self, request: pb.KeepAliveRequest, context: Any) -> pb.KeepAliveResponse:
        """Renews a lease."""
        left = self._worker.keep_alive(TENANT.get(), request.session_id, request.session_secret, request.heard_event)
        response = pb.KeepAliveResponse(incarnation=self._worker.incarnation)
        response.expire_time.GetCurrentTime()
        response.expire_time.FromNanoseconds(response.expire_time.ToNanoseconds() + int(left * 1e9))
        return response

    async def close_session(self, request: pb.CloseSessionRequest, context: Any) -> pb.CloseSessionResponse:
        """Ends a session."""
        freed = self._worker.close_session(TENANT.get(), request.session_id, request.session_secret)
        return pb.CloseSessionResponse(freed_tensors=freed)

    async def attach_session(self, requests: Any, context: Any) -> None:
        """The session's stream: commands in, events out, until one side ends it or another stream takes over."""
        first = await next_of(context, seconds=ATTACH_SECONDS)
        if first is None or first.WhichOneof("message") != "attach":
            raise GraphError("the first message of a session's stream must be attach", reason="MALFORMED_MESSAGE")
        mailbox = Mailbox(asyncio.get_running_loop())
        session_id = first.attach.session_id
        received = self._worker.attach(
            TENANT.get(),
            session_id,
            first.attach.session_secret,
            first.heard_event,
            mailbox.deliver,
            taken=mailbox.taken,
        )
        reading = asyncio.ensure_future(self._read(session_id, context, mailbox))
        try:
            attached = pb.Attached(incarnation=self._worker.incarnation, received_sequence=received)
            if first.attach.wants_memory and (memory := self._worker.share_memory(session_id)) is not None:
                offer = pb.SharedMemory(pid=memory.pid, file=memory.file, bytes=memory.nbytes, token=memory.token)
                attached.memory.CopyFrom(offer)
            await context.write(pb.AttachSessionResponse(attached=attached))
            self._worker.begin_delivery(session_id)
            while (item := await mailbox.next()) is not None:
                await context.write(stream.event_to_proto(*item))
                if isinstance(item[1], m.Ended):
                    return
        finally:
            reading.cancel()
            self._worker.detach(session_id, mailbox.deliver)

    async def _read(self, session_id: str, context: Any, mailbox: Mailbox) -> None:
        """Feed the worker from the stream. What is wrong with a message ends the stream."""
        try:
            while (request := await context.read()) is not END:
                if checked(request).WhichOneof("message") == "batch":
                    messages = request.batch.messages
                    for message in messages:
                        await self._take(session_id, message, takes_light=len(messages) <= LIGHT_BATCH)
                else:
                    await self._take(session_id, request, takes_light=True)
            mailbox.end()
        except TelegradError as error:
            mailbox.end(error)
        except Exception as error:  # the edge
            mailbox.end(bug(error))

    async def _take(self, session_id: str, request: pb.AttachSessionRequest, *, takes_light: bool) -> None:
        if request.WhichOneof("message") == "supply":
            supply = (session_id, request.supply.id, request.supply.function)
            if len(request.supply.function) <= INLINE_SUPPLY_BYTES:
                self._worker.supply(*supply)
            else:
                await asyncio.to_thread(self._worker.supply, *supply)
        else:
            command = stream.command_from_proto(request)
            self._worker.receive(session_id, request.sequence, command, request.heard_event, takes_light=takes_light)


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()


def hello_response(
    config: Config,
    *,
    incarnation: str,
    version: str,
    ops: Sequence[str],
    backend: str,
    fingerprint: str,
    warnings: Sequence[str],
) -> pb.HelloResponse:
    """What a server, or a gateway, says of itself."""
    limits = pb.Limits(
        message_bytes=MESSAGE_BYTES,
        chunk_bytes=stream.CHUNK_BYTES,
        inline_bytes=m.INLINE_BYTES,
        graph_nodes=config.max_graph_nodes,
        tensor_bytes=config.max_tensor_bytes,
    )
    limits.lease.FromNanoseconds(int(config.lease_seconds * 1e9))
    response = pb.HelloResponse(
        server_version=version,
        protocols=PROTOCOLS,
        incarnation=incarnation,
        ops=ops,
        limits=limits,
        warnings=warnings,
        backend=backend,
        fingerprint=fingerprint,
        features=m.FEATURES,
    )
    response.time.GetCurrentTime()
    return response
