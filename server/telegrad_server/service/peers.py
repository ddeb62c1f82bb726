"""A home worker's lines to its peers: a session on another worker, commanded over the same services that clients use.

A line that breaks stays broken: who commands it begins anew, which costs less than to find out how far it had come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
from telegrad.errors import ConnectionFailed, ServerUnavailable, TelegradError, WorkerLost
from telegrad.ir.types import Type
from telegrad.wire import messages as m
from telegrad.wire import stream
from telegrad.wire.status import to_exception
from telegrad.wire.v1 import sessions_pb2 as pb
from telegrad.wire.v1 import sessions_pb2_grpc as services
from telegrad.wire.v1 import tensors_pb2 as tensors
from telegrad.wire.v1 import workers_pb2

from telegrad_server.cluster.groups import can_meet
from telegrad_server.cluster.lines import Candidate
from telegrad_server.cluster.tickets import Key, Ticket
from telegrad_server.service.edge import END
from telegrad_server.service.member import Membership
from telegrad_server.service.pulls import KEEPALIVE, Pulls
from telegrad_server.service.relay import TICKET_KEY, cluster_channel, error_of
from telegrad_server.uploads import Upload

OPEN_SECONDS = 10.0
LEASE_SECONDS = 60.0


class Line:
    """A session on a peer. Made by `Recruits.open`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        candidate: Candidate,
        channel: grpc.aio.Channel,
        *,
        supply: Callable[[bytes], bytes],
        failed: Callable[[m.ErrorRecord], None],
        lost: Callable[[TelegradError], None],
    ) -> None:
        self.candidate = candidate
        self._loop = loop
        self._channel = channel
        self._stub: Any = services.SessionsStub(channel)
        self._supply, self._failed, self._lost = supply, failed, lost
        self._outbox: asyncio.Queue[pb.AttachSessionRequest] = asyncio.Queue()
        self._sequence = 0
        self._heard = 0
        self._fetches: dict[int, Future[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[m.Command, Future[bytes] | None]] = deque()
        self._is_closed = False

    async def begin(self, permission: bytes, session_ticket: Callable[[str], bytes]) -> None:
        """Open the session and its stream."""
        request = pb.OpenSessionRequest()
        request.lease.FromNanoseconds(int(LEASE_SECONDS * 1e9))
        opened = await self._stub.OpenSession(request, timeout=OPEN_SECONDS, metadata=((TICKET_KEY, permission),))
        self._id, self._secret = opened.session_id, opened.session_secret
        self.session_id = self._id
        self._metadata = ((TICKET_KEY, session_ticket(self._id)),)
        self._stream: Any = self._stub.AttachSession(metadata=self._metadata)
        attach = pb.Attach(session_id=self._id, session_secret=self._secret)
        await self._stream.write(pb.AttachSessionRequest(attach=attach))
        await asyncio.wait_for(self._stream.read(), OPEN_SECONDS)
        for work in (self._write(), self._read(), self._beat()):
            self._keep(work)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- any thread

    def send(self, command: m.Command) -> None:
        self._waiting.append((command, None))
        self._call(self._drain)

    def upload(self, name: int, type: Type, data: memoryview) -> None:
        self._call(lambda: self._keep(self._upload(name, type, data)))

    def fetch(self, name: int) -> Future[bytes]:
        future: Future[bytes] = Future()
        self._waiting.append((m.Fetch(name), future))
        self._call(self._drain)
        return future

    def close(self) -> None:
        self._call(lambda: self._loop.create_task(self._close()))

    def _call(self, work: Callable[..., Any], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed, and the peer will notice
            self._loop.call_soon_threadsafe(work, *arguments)

    # ---- the loop

    def _drain(self) -> None:
        """Queue what was sent, in order; names that are released one after the other go in one message."""
        freed: list[int] = []
        while self._waiting:
            command, future = self._waiting.popleft()
            if isinstance(command, m.Release):
                freed += command.names
                continue
            if freed:
                self._queue(m.Release(tuple(freed)), None)
                freed = []
            self._queue(command, future)
        if freed:
            self._queue(m.Release(tuple(freed)), None)

    def _queue(self, command: m.Command, future: Future[bytes] | None) -> None:
        self._sequence += 1
        if future is not None:
            if self._is_closed:
                future.set_exception(self._gone())
                return
            self._fetches[self._sequence] = future
        self._outbox.put_nowait(stream.command_to_proto(self._sequence, command, heard_event=self._heard))

    async def _write(self) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reading side tells
            while True:
                await self._stream.write(await self._outbox.get())

    async def _read(self) -> None:
        failure: TelegradError = ServerUnavailable("the peer ended the stream")
        try:
            while (response := await self._stream.read()) is not END:
                self._heard = max(self._heard, response.event)
                self._hear(stream.event_from_proto(response))
        except grpc.aio.AioRpcError as error:
            failure = error_of(error)
        except asyncio.CancelledError:
            return
        self._end(failure)

    def _hear(self, event: m.Event | None) -> None:
        match event:
            case m.Fetched():
                future = self._fetches.pop(event.sequence, None)
                if future is None:
                    return  # the line was given up meanwhile
                if event.data is not None:
                    future.set_result(event.data)
                else:
                    self._keep(self._download(event.ticket, future))
            case m.Failed():
                future = self._fetches.pop(event.sequence, None)
                if future is not None:
                    future.set_exception(to_exception(event.error))
                self._failed(event.error)
            case m.FunctionNeeded():
                supply = pb.Supply(id=event.function, function=self._supply(event.function))
                self._outbox.put_nowait(pb.AttachSessionRequest(supply=supply))
            case m.Ended():
                self._end(to_exception(event.error))
            case _:
                pass

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            request = pb.KeepAliveRequest(session_id=self._id, session_secret=self._secret, heard_event=self._heard)
            with suppress(grpc.aio.AioRpcError):  # the stream tells
                await self._stub.KeepAlive(request, timeout=OPEN_SECONDS, metadata=self._metadata)

    async def _upload(self, name: int, type: Type, data: memoryview) -> None:
        call: Any = self._channel.stream_unary("/telegrad.wire.v1.Tensors/UploadTensor")(metadata=self._metadata)
        header = tensors.UploadHeader(
            session_id=self._id, session_secret=self._secret, name=name, type=stream.type_to_proto(type)
        )
        try:
            await call.write(tensors.UploadTensorRequest(header=header).SerializeToString())
            for chunk in stream.chunks(data):
                await call.write(stream.encode_upload_chunk(chunk))
            await call.done_writing()
            await call
        except grpc.aio.AioRpcError as error:
            self._end(error_of(error))
        except asyncio.InvalidStateError:
            self._end(ServerUnavailable("an upload to the peer broke off"))

    async def _download(self, ticket: str, future: Future[bytes]) -> None:
        call: Any = self._channel.unary_stream("/telegrad.wire.v1.Tensors/DownloadTensor")
        request = tensors.DownloadTensorRequest(session_id=self._id, session_secret=self._secret, ticket=ticket)
        found = bytearray()
        try:
            async for data in call(request.SerializeToString(), metadata=self._metadata):
                found += stream.decode_chunk(data, tag=1) or b""
            future.set_result(bytes(found))
        except grpc.aio.AioRpcError as error:
            future.set_exception(WorkerLost(f"a value of {self.candidate.worker} did not come: {error_of(error)}"))
        finally:
            if not future.done():
                future.set_exception(self._gone())

    def _gone(self) -> WorkerLost:
        return WorkerLost(f"the line to worker {self.candidate.worker} is gone", worker=self.candidate.worker)

    def _end(self, failure: TelegradError) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._lost(failure)  # first: who waits for an answer asks why there is none
        for future in self._fetches.values():
            future.set_exception(self._gone())
        self._fetches.clear()

    async def _close(self) -> None:
        was_closed, self._is_closed = self._is_closed, True
        for future in self._fetches.values():
            future.set_exception(self._gone())
        self._fetches.clear()
        if not was_closed:
            request = pb.CloseSessionRequest(session_id=self._id, session_secret=self._secret)
            with suppress(grpc.aio.AioRpcError):
                await self._stub.CloseSession(request, timeout=1.0, metadata=self._metadata)
        for task in list(self._tasks):
            task.cancel()
        await self._channel.close()


class Recruits:
    """Finds peers through the gateway, and opens lines to them. For threads other than the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, key: Key, roots: bytes | None) -> None:
        self._loop = loop
        self._key = key
        self._roots = roots
        self._pulls = Pulls(roots)

    def introduce(self, membership: Membership, me: workers_pb2.JoinClusterRequest) -> None:
        """This worker's membership, and what it says of itself there. Before the first session."""
        self._membership = membership
        self._me = Candidate(me.worker, me.incarnation, me.address, me.collectives_address, me.machine, me.device)

    @property
    def moved_bytes(self) -> int:
        """The bytes that have come here from other workers, because sessions' parts needed them here."""
        return self._pulls.moved_bytes

    def myself(self) -> Candidate:
        return self._me

    def find(self, count: int, *, strategy: str, without: Sequence[str]) -> list[Candidate]:
        request = workers_pb2.FindPeersRequest(
            worker=self._me.worker, incarnation=self._me.incarnation, count=count, strategy=strategy, without=without
        )
        try:
            response = self._wait(self._membership.find_peers(request))
        except (grpc.aio.AioRpcError, ConnectionFailed):
            return []
        return [
            Candidate(p.worker, p.incarnation, p.address, p.collectives_address, p.machine, p.device)
            for p in response.peers
            if can_meet(self._me.collectives_address, p.collectives_address)
        ]

    def open(
        self,
        candidate: Candidate,
        *,
        tenant: str,
        supply: Callable[[bytes], bytes],
        failed: Callable[[m.ErrorRecord], None],
        lost: Callable[[TelegradError], None],
    ) -> Line:
        def ticket(session_id: str) -> bytes:
            who = Ticket(session_id, tenant, candidate.worker, candidate.incarnation, is_peers=True)
            return self._key.sign(who)

        async def opened() -> Line:
            channel = cluster_channel(candidate.address, self._roots, more=KEEPALIVE)
            line = Line(self._loop, candidate, channel, supply=supply, failed=failed, lost=lost)
            try:
                await line.begin(ticket(""), ticket)
            except grpc.aio.AioRpcError as error:
                await channel.close()
                raise ConnectionFailed(
                    f"worker {candidate.worker} does not answer: {error_of(error).message}"
                ) from None
            except TimeoutError:
                await channel.close()
                raise ConnectionFailed(f"worker {candidate.worker} does not answer") from None
            return line

        return self._wait(opened())

    def permit(self, producer: Candidate, *, tenant: str, session_id: str, offer: str) -> bytes:
        return self._key.sign(Ticket(session_id, tenant, producer.worker, producer.incarnation, offer=offer))

    def pull(self, pull: m.Pull, begin: Callable[[], Upload]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and with it this worker
            self._loop.call_soon_threadsafe(self._pulls.start, pull, begin)

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(2 * OPEN_SECONDS)
        except FutureTimeout:
            future.cancel()
            raise ConnectionFailed("the cluster does not answer in time") from None
