"""The connection over gRPC: one ordered stream, kept alive, taken up again after a break.

Commands wait in ``_unacknowledged`` until the server has them; after a reconnect the server says how far it
got and the rest is sent again, so every effect happens once. Two threads serve a session: one runs the
stream, one beats the heart; uploads have a small pool of their own.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, cast

import grpc
import numpy as np
import numpy.typing as npt

from telegrad.critical import SLICE_SECONDS, Critical
from telegrad.errors import (
    ConnectionFailed,
    LeaseExpired,
    NotFound,
    QuotaExceeded,
    ServerUnavailable,
    SessionError,
    StateLost,
    TelegradError,
)
from telegrad.ir.types import Type
from telegrad.transport import ANYWHERE, DatasetCalls, Deliver, Demand, JobCalls, Lost, OnQueued, UploadFailed
from telegrad.transport.access import Address, find_token, parse_address
from telegrad.transport.beside import Beside
from telegrad.transport.channel import error_of, open_channel
from telegrad.transport.hello import PROTOCOL, access_metadata, hello
from telegrad.transport.shared_memory import SharedMemory, opened
from telegrad.wire import messages as m
from telegrad.wire import stream
from telegrad.wire.arrays import array_bytes, array_from
from telegrad.wire.shared_memory import can_share
from telegrad.wire.status import to_exception
from telegrad.wire.v1 import sessions_pb2 as pb
from telegrad.wire.v1 import sessions_pb2_grpc as services
from telegrad.wire.v1 import tensors_pb2 as tensors

UNACKNOWLEDGED_BYTES = 4 << 20
UPLOADS_IN_FLIGHT_BYTES = 64 << 20
BATCH_BYTES = 256 << 10
TICKET_KEY = "telegrad-ticket-bin"

FIRST_PAUSE_SECONDS = 0.05

WORKER_NAME = "telegrad-worker"
"""The name in the certificate of every worker, whatever its address."""


class _Outbox:
    """The requests of one stream, as gRPC wants them: an iterator that waits for the next."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[pb.AttachSessionRequest | None] = SimpleQueue()

    def put(self, request: pb.AttachSessionRequest) -> None:
        self._queue.put(request)

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[pb.AttachSessionRequest]:
        yield self._queue.get() or pb.AttachSessionRequest()  # attach goes alone
        while True:
            request = self._queue.get()
            if request is None:
                return
            if self._queue.empty():
                yield request
                continue
            batch = pb.AttachSessionRequest()
            batch.batch.messages.append(request)
            size = request.ByteSize()
            while size < BATCH_BYTES and not self._queue.empty():
                request = self._queue.get()
                if request is None:
                    self._queue.put(None)
                    break
                batch.batch.messages.append(request)
                size += request.ByteSize()
            yield batch


class GrpcConnection:
    """A session on a server. Raises on construction if nobody answers, or if versions or access do not fit."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None,
        ca_cert: str | None,
        lease_seconds: float,
        timeout_seconds: float,
        demand: Demand = ANYWHERE,
        on_queued: OnQueued | None = None,
    ) -> None:
        self._address = parse_address(address)
        self._ca_cert = ca_cert
        self._demand = demand
        self._on_queued = on_queued
        self._timeout = timeout_seconds
        self._lease_seconds = lease_seconds
        self._metadata = access_metadata(self._address, find_token(token))
        self._beside = Beside(
            (self._address, ca_cert, self._metadata),
            who=lambda: (self._id, self._secret, self._metadata),
            timeout_seconds=timeout_seconds,
            patience_seconds=lease_seconds,
        )
        self._channel = open_channel(self._address, ca_cert)
        self._sessions: Any = services.SessionsStub(self._channel)
        self._ways: tuple[Address, Address] | None = (
            None  # the gateway's and the home's, where that is reached directly
        )
        self._critical = Critical()
        self._changed = threading.Condition()
        self._heard = 0
        self._last_heard_at = 0.0
        self._unacknowledged: deque[tuple[int, pb.AttachSessionRequest, int]] = deque()
        self._unacknowledged_bytes = 0
        self._outbox: _Outbox | None = None
        self._stream: Any = None
        self._ending = threading.Event()
        self._is_lost = False
        self.memory: SharedMemory | None = None
        self._uploads_bytes = 0
        self._uploads = ThreadPoolExecutor(2, thread_name_prefix="telegrad-upload")
        try:
            self.greeting = hello(self._channel, self._address, metadata=self._metadata, timeout_seconds=self._timeout)
        except BaseException:
            self._channel.close()
            raise

    # ---- the session

    def open(self, deliver: Deliver, lost: Lost, upload_failed: UploadFailed) -> None:
        request = pb.OpenSessionRequest(request_id=uuid.uuid4().hex)
        request.lease.FromNanoseconds(int(self._lease_seconds * 1e9))
        if self._demand != ANYWHERE:
            wanted = self._demand
            request.demand.CopyFrom(
                pb.Demand(backend=wanted.backend, worker=wanted.worker, memory_bytes=wanted.memory_bytes)
            )
        response = self._place(request)
        self._id: str = response.session_id
        self._secret: bytes = response.session_secret
        self._incarnation: str = response.incarnation
        self._lease_seconds = response.lease.ToNanoseconds() / 1e9
        self._last_heard_at = time.monotonic()
        self._deliver, self._lost, self._upload_failed = deliver, lost, upload_failed
        threading.Thread(target=self._serve, name="telegrad-stream", daemon=True).start()
        threading.Thread(target=self._beat, name="telegrad-heart", daemon=True).start()

    def _place(self, request: pb.OpenSessionRequest) -> pb.OpenSessionResponse:
        """The session, once the cluster has a place for it; QuotaExceeded (QUEUE_TIMEOUT) if that takes too long."""
        began = time.monotonic()
        while True:
            response = self._retried(self._sessions.OpenSession, request)
            if not response.HasField("queued"):
                break
            queued, waited = response.queued, time.monotonic() - began
            if waited > self._demand.queue_seconds:
                request.is_withdrawn = True
                self._retried(self._sessions.OpenSession, request)
                raise QuotaExceeded(
                    f"no place in the cluster after {waited:.0f} s: place {queued.position} in the queue"
                    f" ({queued.reason}); wait longer with queue_seconds=",
                    reason="QUEUE_TIMEOUT",
                    position=queued.position,
                )
            if self._on_queued is not None:
                self._on_queued(queued.position, queued.reason)
            self._ending.wait(queued.retry_after.ToNanoseconds() / 1e9)
        if response.ticket:
            self._metadata = [*self._metadata, (TICKET_KEY, response.ticket)]
        if response.worker:
            self.greeting = replace(
                self.greeting, backend=response.backend, fingerprint=response.fingerprint, worker=response.worker
            )
        if response.direct_address:
            self._go_directly(response.direct_address)
        return response

    def _go_directly(self, target: str) -> None:
        """Speak to the session's home itself, if it answers where the operator says it does."""
        address = Address(target, self._address.is_secure, self._address.is_loopback)
        channel = open_channel(address, self._ca_cert, name=WORKER_NAME)
        sessions: Any = services.SessionsStub(channel)
        try:
            request = pb.HelloRequest(protocols=[PROTOCOL])
            sessions.Hello(request, timeout=self._timeout, metadata=self._metadata, wait_for_ready=True)
        except grpc.RpcError:
            channel.close()  # through the gateway, then
            return
        self._ways = self._address, address
        self._take_way(channel, address, is_direct=True)

    def _take_way(self, channel: grpc.Channel, address: Address, *, is_direct: bool) -> None:
        former = self._channel
        self._channel, self._sessions, self._address = channel, services.SessionsStub(channel), address
        self.greeting = replace(self.greeting, is_direct=is_direct)
        former.close()

    def _change_ways(self) -> None:
        """From the direct line to the gateway, which knows what has become of a home that does not answer, and back."""
        if self._ways is not None:
            is_direct = not self.greeting.is_direct
            address = self._ways[is_direct]
            channel = open_channel(address, self._ca_cert, name=WORKER_NAME if is_direct else None)
            self._take_way(channel, address, is_direct=is_direct)

    def _retried(self, method: Any, request: Any, *, attempts: int = 5) -> Any:
        """The answer, trying again (with the same request id) while the server is unavailable."""
        pause = 0.1
        for attempt in range(attempts):
            try:
                return method(request, timeout=self._timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                call = cast("grpc.Call", error)
                if call.code() is not grpc.StatusCode.UNAVAILABLE or attempt == attempts - 1:
                    raise error_of(error) from None
            if self._ending.wait(pause):
                break
            pause = min(2 * pause, 5.0)
        raise ServerUnavailable("the connection was closed while waiting for the server")

    @property
    def datasets(self) -> DatasetCalls:
        return self._beside.datasets

    @property
    def jobs(self) -> JobCalls:
        return self._beside.jobs

    @property
    def is_open(self) -> bool:
        return not self._ending.is_set() and not self._is_lost

    def send(self, sequence: int, command: m.Command) -> None:
        with self._changed:
            request = stream.command_to_proto(sequence, command, heard_event=self._heard)
            size = request.ByteSize()
            self._unacknowledged.append((sequence, request, size))
            self._unacknowledged_bytes += size
            if self._outbox is not None:
                self._outbox.put(request)

    def wait_for_room(self) -> None:
        while not self._has_room():
            with self._critical, self._changed:
                self._changed.wait_for(self._has_room, SLICE_SECONDS)

    def _has_room(self) -> bool:
        return self._unacknowledged_bytes < UNACKNOWLEDGED_BYTES or not self.is_open

    def supply(self, function: bytes, data: bytes) -> None:
        request = pb.AttachSessionRequest(supply=pb.Supply(id=function, function=data))
        with self._changed:
            if self._outbox is not None:
                self._outbox.put(request)  # else the server asks again after the reconnect

    def _serve(self) -> None:
        """Run the stream, and again after each break, until the session ends or its lease is over."""
        pause = FIRST_PAUSE_SECONDS
        while not self._ending.is_set():
            outbox = _Outbox()
            attach = pb.Attach(session_id=self._id, session_secret=self._secret)
            attach.wants_memory = self.memory is None and self._address.is_loopback and can_share()
            outbox.put(pb.AttachSessionRequest(heard_event=self._heard, attach=attach))
            try:
                self._stream = self._sessions.AttachSession(iter(outbox), metadata=self._metadata)
                for response in self._stream:
                    pause = FIRST_PAUSE_SECONDS
                    self._last_heard_at = time.monotonic()
                    self._handle(response, outbox)
                failure: TelegradError = ServerUnavailable("the server ended the stream")
            except grpc.RpcError as error:
                failure = error_of(error)
            finally:
                outbox.end()
                with self._changed:
                    self._outbox = None
            if self._is_lost or self._ending.is_set():
                return
            end = self._final(failure)
            if end is not None:
                self._lose(end)
                return
            if pause > FIRST_PAUSE_SECONDS:
                self._change_ways()
            self._ending.wait(pause)
            pause = min(2 * pause, 2.0)

    def _final(self, failure: TelegradError) -> TelegradError | None:
        """What the failure of the stream means if it is not worth another try."""
        silent = time.monotonic() - self._last_heard_at
        if isinstance(failure, NotFound):
            return self._gone(silent)
        if isinstance(failure, (ServerUnavailable, ConnectionFailed)) or failure.reason in (
            "CANCELLED",
            "DEADLINE_EXCEEDED",
        ):
            if silent <= self._lease_seconds:
                return None
            return ServerUnavailable(
                f"the server at {self._address.target} has not answered for {silent:.0f} s, longer than the lease of"
                f" {self._lease_seconds:g} s: the session's tensors are freed; connect again"
            )
        return failure

    def _gone(self, silent: float) -> TelegradError:
        try:
            incarnation = self._sessions.Hello(
                pb.HelloRequest(protocols=[PROTOCOL]), timeout=self._timeout, metadata=self._metadata
            ).incarnation
        except grpc.RpcError:
            return ServerUnavailable(
                f"the server at {self._address.target} is shutting down or gone, and this session with it;"
                " connect again"
            )
        if incarnation != self._incarnation:
            return StateLost(
                f"the server at {self._address.target} was restarted: this session's tensors and variables are lost;"
                " connect again and upload or load a checkpoint"
            )
        if silent < self._lease_seconds:
            return SessionError("the session was closed on the server; connect again", reason="SESSION_CLOSED")
        return LeaseExpired(
            f"the session expired: nothing was heard from this client for {silent:.0f} s (lease"
            f" {self._lease_seconds:g} s); connect again and upload"
        )

    def _handle(self, response: pb.AttachSessionResponse, outbox: _Outbox) -> None:
        if response.WhichOneof("message") == "attached":
            if response.attached.HasField("memory") and self.memory is None:
                offer = response.attached.memory
                self.memory = opened(offer.pid, offer.file, offer.token)
            with self._changed:
                self._acknowledge(response.attached.received_sequence)
                for _, request, _ in self._unacknowledged:
                    outbox.put(request)
                self._outbox = outbox
            return
        if response.event <= self._heard:
            return
        self._heard = response.event
        event = stream.event_from_proto(response)
        if isinstance(event, m.Acknowledged):
            with self._changed:
                self._acknowledge(event.sequence)
        elif isinstance(event, m.Ended):
            self._lose(to_exception(event.error))
        elif event is not None:
            self._deliver(event)

    def _acknowledge(self, sequence: int) -> None:
        while self._unacknowledged and self._unacknowledged[0][0] <= sequence:
            self._unacknowledged_bytes -= self._unacknowledged.popleft()[2]
        self._changed.notify_all()

    def _lose(self, error: TelegradError) -> None:
        with self._changed:
            self._is_lost = True
            self._changed.notify_all()
        self._lost(error)

    def _beat(self) -> None:
        """Renew the lease, three times in its length, on a path of its own."""
        interval = self._lease_seconds / 3
        while not self._ending.wait(interval) and not self._is_lost:
            request = pb.KeepAliveRequest(session_id=self._id, session_secret=self._secret, heard_event=self._heard)
            try:
                self._sessions.KeepAlive(request, timeout=interval, metadata=self._metadata)
                self._last_heard_at = time.monotonic()
            except grpc.RpcError as error:
                if isinstance(error_of(error), NotFound) and not self._ending.is_set():
                    self._lose(self._gone(time.monotonic() - self._last_heard_at))
                    return

    def close(self) -> None:
        self._ending.set()
        self._uploads.shutdown(wait=False, cancel_futures=True)
        try:
            if not self._is_lost:
                request = pb.CloseSessionRequest(session_id=self._id, session_secret=self._secret)
                self._sessions.CloseSession(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError:
            pass  # the lease frees it
        finally:
            with self._changed:
                if self._outbox is not None:
                    self._outbox.end()
                self._changed.notify_all()
            if self._stream is not None:
                self._stream.cancel()
            self._channel.close()
            self._beside.close()

    # ---- bulk

    def upload(self, name: int, type: Type, array: npt.NDArray[Any]) -> None:
        if type.nbytes > UPLOADS_IN_FLIGHT_BYTES:
            self._upload(name, type, array_bytes(array))  # no copy: the caller waits instead
            return

        def work(copy: memoryview) -> None:
            try:
                self._upload(name, type, copy)
            finally:
                self._give_back_room(type.nbytes)

        is_sent = False
        while not is_sent:
            with self._critical:
                is_sent = self._take_room(type.nbytes)
                if is_sent:
                    try:
                        data = array_bytes(array)
                        shares = np.may_share_memory(array, np.frombuffer(data, np.uint8))
                        self._uploads.submit(work, memoryview(bytearray(data)) if shares else data)
                    except BaseException:
                        self._give_back_room(type.nbytes)
                        raise

    def _take_room(self, nbytes: int) -> bool:
        """Wait a little for room for an upload, and take it."""
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: self._uploads_bytes + nbytes <= UPLOADS_IN_FLIGHT_BYTES or not self.is_open, SLICE_SECONDS
            )
            if has_room:
                self._uploads_bytes += nbytes
            return has_room

    def _give_back_room(self, nbytes: int) -> None:
        with self._changed:
            self._uploads_bytes -= nbytes
            self._changed.notify_all()

    def _upload(self, name: int, type: Type, data: memoryview) -> None:
        call: Any = self._channel.stream_unary(
            "/telegrad.wire.v1.Tensors/UploadTensor",
            request_serializer=_serialized,
            response_deserializer=tensors.UploadTensorResponse.FromString,
        )
        header = tensors.UploadTensorRequest(
            header=tensors.UploadHeader(
                session_id=self._id, session_secret=self._secret, name=name, type=stream.type_to_proto(type)
            )
        )

        def parts() -> Iterator[Any]:
            yield header
            for chunk in stream.chunks(data):
                yield stream.encode_upload_chunk(chunk)

        failure: TelegradError | None = None
        pause = 0.1
        while self.is_open and time.monotonic() - self._last_heard_at <= self._lease_seconds:
            try:
                call(parts(), metadata=self._metadata)
                return
            except grpc.RpcError as error:
                failure = error_of(error)
                if not isinstance(failure, ServerUnavailable):
                    break
            self._ending.wait(pause)
            pause = min(2 * pause, 2.0)
        if failure is None or not self.is_open:
            return
        self._upload_failed(name, m.ErrorRecord(failure.reason, f"an upload of {type} failed: {failure.message}"))

    def download(self, type: Type, ticket: str) -> npt.NDArray[Any]:
        buffer = np.empty(type.nbytes, np.uint8)
        view = buffer.data
        filled = 0
        pause = 0.1
        while True:
            try:
                for chunk in self._chunks(ticket, filled):
                    view[filled : filled + len(chunk)] = chunk
                    filled += len(chunk)
                return array_from(type, buffer.data)
            except grpc.RpcError as error:
                failure = error_of(error)
                if not isinstance(failure, ServerUnavailable) or not self.is_open:
                    raise failure from None
            if time.monotonic() - self._last_heard_at > self._lease_seconds or self._ending.wait(pause):
                raise failure
            pause = min(2 * pause, 2.0)

    def _chunks(self, ticket: str, offset: int) -> Iterator[memoryview]:
        """The bytes behind a ticket from an offset on."""
        call: Any = self._channel.unary_stream(
            "/telegrad.wire.v1.Tensors/DownloadTensor",
            request_serializer=tensors.DownloadTensorRequest.SerializeToString,
            response_deserializer=lambda data: stream.decode_chunk(data, tag=1),
        )
        request = tensors.DownloadTensorRequest(
            session_id=self._id, session_secret=self._secret, ticket=ticket, offset_bytes=offset
        )
        return call(request, metadata=self._metadata)

    def dismiss(self, type: Type, ticket: str) -> None:
        def work() -> None:
            with suppress(grpc.RpcError):  # if it fails, the session's end frees it
                list(self._chunks(ticket, type.nbytes))  # as if all had been received

        with suppress(RuntimeError):  # closed: nothing is left to free
            self._uploads.submit(work)


def _serialized(part: Any) -> bytes:
    """A part of an upload: a chunk that is serialised already, or the header."""
    return part if isinstance(part, bytes) else part.SerializeToString()
