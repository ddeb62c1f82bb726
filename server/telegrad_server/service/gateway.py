"""The gateway: the front door of a cluster. It lets clients in, gives sessions a home, and relays their bytes unread.

Everything it decides is in `telegrad_server.cluster`, pure; here are calls and time. It runs on one event loop.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from telegrad.errors import (
    AccessError,
    GraphError,
    QuotaExceeded,
    ServerUnavailable,
    StateLost,
    TelegradError,
)
from telegrad.ops import registry
from telegrad.wire.v1 import sessions_pb2 as pb

from telegrad_server import __version__
from telegrad_server.access import Gate
from telegrad_server.bug import bug
from telegrad_server.cluster.launcher import Launcher
from telegrad_server.cluster.members import Gone, Member, Members
from telegrad_server.cluster.placement import Demand, Place, Queue, Wait, place
from telegrad_server.cluster.pool import Pool
from telegrad_server.cluster.tickets import Key, Ticket
from telegrad_server.config import Config
from telegrad_server.datasets import Catalog
from telegrad_server.failpoints import chosen
from telegrad_server.foreman import Foreman
from telegrad_server.keeper import Rules
from telegrad_server.metrics import Endpoint, gateway_figures, job_figures
from telegrad_server.service.away import Away
from telegrad_server.service.datasets import Datasets
from telegrad_server.service.edge import TENANT, WEIGHT, Access, Refusals, guarded, reader, refuse
from telegrad_server.service.health import Health
from telegrad_server.service.jobs import Jobs
from telegrad_server.service.listening import bind, credentials, new_server
from telegrad_server.service.loops import Loops
from telegrad_server.service.relay import TICKET_KEY, Relay, as_unavailable, error_of, pass_on
from telegrad_server.service.sessions import hello_response
from telegrad_server.service.snapshot import of_homes
from telegrad_server.service.workers import Workers

TICK_SECONDS = 0.25
RETRY_SECONDS = 1.0
"""A client in the queue asks again after so long."""

MOST_CALLS = 1 << 16
"""A gateway answers those of all workers' sessions."""

OPEN_SECONDS = 10.0
"""A worker that does not open a session within this time is passed over."""

_SESSIONS = "/telegrad.wire.v1.Sessions/"
_TENSORS = "/telegrad.wire.v1.Tensors/"


class _NoAnswer(Exception):
    """A worker that should open a session did not answer; it may have died."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def _most_seconds(context: Any) -> float:
    """How long a worker may take to open a session, so that the caller still hears of it if it does not."""
    left = context.time_remaining()
    return OPEN_SECONDS if left is None else min(OPEN_SECONDS, left / 2)


class Gateway:
    """Clients on one address, workers on another. ``launcher`` makes workers; without one they join by themselves."""

    def __init__(
        self,
        config: Config,
        gate: Gate,
        key: Key,
        launcher: Launcher | None = None,
        *,
        catalog: Catalog | None = None,
    ) -> None:
        self._config = config
        self._key = key
        self._launcher = launcher
        self.incarnation = secrets.token_hex(16)
        self.members = Members(lease_seconds=config.worker_lease_seconds)
        self.queue = Queue()
        self._pool = Pool(most=config.workers or None, strategy=config.worker_strategy)
        self._placed: dict[tuple[str, str], tuple[str, float]] = {}  # request -> worker, until when that is remembered
        self._silent: dict[str, float] = {}  # incarnation -> until when others are asked before it
        roots = _read(config.cluster_ca) if config.cluster_ca else None
        self._relay = Relay(roots)
        self._is_stopping = False
        self._health = Health(lambda: not self._is_stopping)
        self._refused = Counter[str]()
        self._metrics: Endpoint | None = None
        self._away = Away(self.members, most=config.worker_jobs)
        self._foreman: Foreman | None = None
        inside = [Workers(self, key).handlers()]
        if catalog is not None and config.data_dir is not None:
            reached = chosen(config.failpoints, testing=config.testing)
            self._foreman = Foreman(
                self._away,
                catalog,
                Path(config.data_dir),
                reached=reached,
                rules=Rules.of(config),
                checkpoints=config.checkpoint_store,
            )
            inside.append(Loops(self._foreman, self._away, self.members, key).handlers())
        self._server = new_server(
            config,
            [Refusals(self._refused), Access(gate)],
            [
                self._handlers(),
                Datasets(catalog).handlers(),
                Jobs(self._foreman, of_homes(self._relay, self._home_of)).handlers(),
                self._health.handlers(),
            ],
            most_calls=MOST_CALLS,
        )
        self._inner = new_server(config, [], inside, is_inside=True)
        self._ticking: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._started_at = 0.0
        self._is_launching = False

    # ---- life

    async def start(self) -> tuple[int, int]:
        """Listen; returns the clients' port and the workers'. OSError if an address cannot be bound."""
        config = self._config
        port = bind(self._server, config.host, config.port, credentials(config.tls_cert, config.tls_key))
        inner = bind(
            self._inner,
            config.cluster_host,
            config.cluster_port,
            credentials(config.cluster_cert, config.cluster_cert_key),
        )
        figures = partial(gateway_figures, self.members, self.queue, self._refused)
        self._metrics = Endpoint.of(config, figures, partial(job_figures, self._foreman))
        if self._foreman is not None:
            await asyncio.to_thread(self._foreman.start)
            self._looking = asyncio.create_task(self._look())
        await self._server.start()
        await self._inner.start()
        self._started_at = time.monotonic()
        self._loop = asyncio.get_running_loop()
        return port, inner

    async def launch(self) -> None:
        """Begin to watch the members and to make workers. Raises what the launcher raises if it cannot."""
        self._ticking = asyncio.create_task(self._tick())
        if self._launcher is not None:
            await asyncio.to_thread(self._launcher.open, self._ended_on_a_thread, lambda: self._call(self._fill))
            self._is_launching = True
            self._fill()

    def _call(self, work: Any, *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is to be told
            self._loop.call_soon_threadsafe(work, *arguments)

    def _ended_on_a_thread(self, name: str, why: str) -> None:
        self._call(self._ended, name, why)

    async def stop(self, grace_seconds: float) -> None:
        """End everything: workers that were made here, then the calls."""
        self._is_stopping = True
        self._health.end()
        for task in (self._ticking, self._looking):
            if task is not None:
                task.cancel()
        if self._launcher is not None:
            await asyncio.to_thread(self._launcher.close)
        if self._foreman is not None:
            await asyncio.to_thread(self._foreman.tick)  # the workers that have just left did so in good order
        await self._relay.close()
        await self._server.stop(grace_seconds)
        await self._inner.stop(0)
        if self._foreman is not None:
            await asyncio.to_thread(self._foreman.stop)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)

    @property
    def jobs(self) -> Foreman | None:
        """The cluster's jobs; None without a folder to keep them in."""
        return self._foreman

    # ---- members

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                now = time.monotonic()
                self.queue.forget(now)
                for gone in self.members.tick(now):
                    self.gone(gone)
                self._silent = {one: until for one, until in self._silent.items() if until > now}
                for request in [r for r, (_, until) in self._placed.items() if now > until]:
                    del self._placed[request]
                self._fill()
            except Exception as error:  # the edge: what failed once must not end the watch over the members
                bug(error)

    async def _look(self) -> None:
        """Watch over jobs, beside the event loop: it waits for the disk."""
        assert self._foreman is not None
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await asyncio.to_thread(self._away.tick)
                await asyncio.to_thread(self._foreman.tick)
            except Exception as error:  # the edge: as in `_tick`
                bug(error)

    def _fill(self) -> None:
        if self._launcher is None or not self._is_launching:
            return
        names = {member.facts.name for member in self.members.all()}
        due = self._pool.due(self._launcher.devices(), time.monotonic(), taken=names)
        for spec in due.start:
            self._launcher.start(spec)
        for name in due.drain:
            self.members.drain(name)

    def _ended(self, name: str, why: str) -> None:
        self._pool.ended(name, time.monotonic())
        self.gone(self.members.ended(name, why))

    def gone(self, gone: Gone | None) -> None:
        """A worker is no member any more: its lines are cut, and it is killed if it was made here and may still run."""
        if gone is None:
            return
        self._away.gone(gone)
        if gone.may_run and self._launcher is not None:
            self._launcher.stop(gone.name)
        task = self._loop.create_task(self._relay.forget(gone.address))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # ---- clients

    def _handlers(self) -> grpc.GenericRpcHandler:
        handlers: dict[str, Any] = {
            _SESSIONS + "Hello": grpc.unary_unary_rpc_method_handler(guarded(self.hello), reader(pb.HelloRequest)),
            _SESSIONS + "OpenSession": grpc.unary_unary_rpc_method_handler(
                guarded(self.open_session), reader(pb.OpenSessionRequest), _serialized
            ),
            _SESSIONS + "KeepAlive": grpc.unary_unary_rpc_method_handler(self._unary(_SESSIONS + "KeepAlive")),
            _SESSIONS + "CloseSession": grpc.unary_unary_rpc_method_handler(self._close_session),
            _SESSIONS + "AttachSession": grpc.stream_stream_rpc_method_handler(
                self._stream(_SESSIONS + "AttachSession")
            ),
            _TENSORS + "UploadTensor": grpc.stream_stream_rpc_method_handler(self._stream(_TENSORS + "UploadTensor")),
            _TENSORS + "DownloadTensor": grpc.unary_stream_rpc_method_handler(
                self._stream_of_one(_TENSORS + "DownloadTensor")
            ),
        }
        return _Table(handlers)

    async def hello(self, request: pb.HelloRequest, context: Any) -> bytes:
        """Who is there: the home of a caller with a ticket, else the gateway."""
        if _ticket_bytes(context) is not None:
            return await self._relayed(_SESSIONS + "Hello", request.SerializeToString(), context)
        backends = sorted({member.facts.backend for member in self.members.all()}) or ["none yet"]
        response = hello_response(
            self._config,
            incarnation=self.incarnation,
            version=__version__,
            ops=tuple(sorted(registry())),
            backend=", ".join(backends),
            fingerprint="",
            warnings=(),
        )
        if TENANT.get():
            response.workers.extend(_info(member) for member in self.members.all())
            response.waiting_sessions = len(self.queue)
        return response.SerializeToString()

    async def open_session(self, request: pb.OpenSessionRequest, context: Any) -> pb.OpenSessionResponse:
        """Gives a session a home, or a place in the queue.

        QuotaExceeded if no worker will ever do. One that does not answer may have died: who asked for it waits.
        """
        tenant, now = TENANT.get(), time.monotonic()
        demand = Demand(request.demand.backend, request.demand.worker, request.demand.memory_bytes)
        if not request.request_id:
            raise GraphError("a session in a cluster is opened with a request id", reason="MALFORMED_MESSAGE")
        key = (tenant, request.request_id)
        if request.is_withdrawn:
            self.queue.withdraw(*key)
            return pb.OpenSessionResponse()
        before = self._placed.get(key)
        member = self.members.find(before[0]) if before is not None else None
        if member is None:
            waiting = self.queue.ask(*key, demand, now)
            members = self.members.all()
            heard = [m for m in members if self._silent.get(m.facts.incarnation, now) <= now]
            found = place(demand, heard)
            if isinstance(found, Wait):
                found = place(demand, members, starting=self._pool.workers())
            if isinstance(found, Wait):
                if found.is_hopeless and members and now > self._started_at + self._config.worker_lease_seconds:
                    self.queue.leave(waiting, is_served=False)
                    raise QuotaExceeded(found.why, reason="DEMAND_HOPELESS")
                return self._queued(self.queue.position(waiting), found.why)
            if not self.queue.is_first(waiting, members):
                return self._queued(self.queue.position(waiting), "others came before")
            assert isinstance(found, Place)
            member = found.member
            self.queue.leave(waiting, is_served=True)
            self.members.opened(member.facts.name, request.request_id, now)
            self._placed[key] = (member.facts.name, now + request.lease.seconds + 600)
        try:
            return await self._open_on(member, key, request, _most_seconds(context))
        except _NoAnswer as failure:
            now = time.monotonic()
            self._silent[member.facts.incarnation] = now + self._config.worker_lease_seconds
            return self._queued(self.queue.position(self.queue.ask(*key, demand, now)), failure.why)

    async def _open_on(
        self, member: Member, key: tuple[str, str], request: pb.OpenSessionRequest, most_seconds: float
    ) -> pb.OpenSessionResponse:
        facts, tenant = member.facts, key[0]
        permission = self._key.sign(Ticket("", tenant, facts.name, facts.incarnation, weight=WEIGHT.get()))
        call = self._relay.channel(facts.address).unary_unary(_SESSIONS + "OpenSession")
        try:
            answer = await call(request.SerializeToString(), timeout=most_seconds, metadata=((TICKET_KEY, permission),))
        except grpc.aio.AioRpcError as error:
            self._placed.pop(key, None)
            self.members.closed(facts.name, request.request_id, time.monotonic())
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise _NoAnswer(f"worker {facts.name} does not answer") from None
            failure = error_of(error)
            if isinstance(failure, StateLost):  # another process is at its address
                raise _NoAnswer(f"worker {facts.name} was started anew") from None
            raise failure from None
        response = pb.OpenSessionResponse.FromString(answer)
        self.members.named(facts.name, request.request_id, response.session_id)
        response.ticket = self._key.sign(Ticket(response.session_id, tenant, facts.name, facts.incarnation))
        response.worker = facts.name
        response.direct_address = facts.direct_address
        return response

    def _queued(self, position: int, why: str) -> pb.OpenSessionResponse:
        response = pb.OpenSessionResponse(queued=pb.Queued(position=position, reason=why))
        response.queued.retry_after.FromNanoseconds(int(RETRY_SECONDS * 1e9))
        return response

    # ---- relayed calls

    def _home(self, context: Any) -> tuple[Member, bytes]:
        """The worker on which the caller's session lives, and the ticket."""
        data = _ticket_bytes(context)
        if data is None:
            raise AccessError("the call carries no ticket; open a session first", reason="TICKET_INVALID")
        ticket = self._key.read(data)
        if ticket.tenant != TENANT.get():
            raise AccessError("the ticket is not this token's", reason="TICKET_INVALID")
        member = self.members.find(ticket.worker, ticket.incarnation)
        if member is not None:
            return member, data
        lost = self.members.lost(ticket.worker, ticket.incarnation)
        if lost is not None:
            raise lost
        if time.monotonic() < self._started_at + self._config.worker_lease_seconds:
            raise ServerUnavailable(f"worker {ticket.worker} has not joined this gateway yet")
        raise StateLost(
            f"worker {ticket.worker}, the home of this session, is gone: its tensors and variables are lost; connect"
            " again and upload or load a checkpoint",
            worker=ticket.worker,
        )

    def _home_of(self, context: Any) -> tuple[str, bytes]:
        """The address of the caller's session's home, and the ticket."""
        member, ticket = self._home(context)
        return member.facts.address, ticket

    async def _relayed(self, method: str, request: bytes, context: Any) -> bytes:
        member, ticket = self._home(context)
        return await self._relay.unary(member.facts.address, method, request, context, ((TICKET_KEY, ticket),))

    def _unary(self, method: str) -> Any:
        async def handler(request: bytes, context: Any) -> Any:
            return await self._passed(context, self._relayed(method, request, context))

        return handler

    async def _close_session(self, request: bytes, context: Any) -> Any:
        answer = await self._passed(context, self._relayed(_SESSIONS + "CloseSession", request, context))
        ticket = self._key.read(_ticket_bytes(context) or b"")
        self.members.closed(ticket.worker, ticket.session_id, time.monotonic())
        return answer

    def _stream(self, method: str) -> Any:
        async def handler(requests: Any, context: Any) -> None:
            await self._passed(context, self._spliced(method, None, context))

        return handler

    def _stream_of_one(self, method: str) -> Any:
        async def handler(request: bytes, context: Any) -> None:
            await self._passed(context, self._spliced(method, request, context))

        return handler

    async def _spliced(self, method: str, first: bytes | None, context: Any) -> None:
        member, ticket = self._home(context)
        await self._relay.splice(member.facts.address, method, context, ((TICKET_KEY, ticket),), first=first)

    async def _passed(self, context: Any, work: Any) -> Any:
        """The outcome of a relayed call, or its error as the caller should see it."""
        try:
            return await work
        except grpc.aio.AioRpcError as found:
            error = as_unavailable(found)
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                with suppress(ServerUnavailable):  # as it was
                    try:
                        self._home(context)
                    except StateLost as lost:
                        await refuse(context, lost)
            await pass_on(context, error)
        except TelegradError as error:
            await refuse(context, error)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:  # the edge
            await refuse(context, bug(error))


class _Table(grpc.GenericRpcHandler):
    """Handlers by their whole names."""

    def __init__(self, handlers: dict[str, Any]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call, None if there is none."""
        return self._handlers.get(handler_call_details.method)


def _info(member: Member) -> pb.WorkerInfo:
    facts = member.facts
    return pb.WorkerInfo(
        name=facts.name,
        machine=facts.machine,
        backend=facts.backend,
        state=member.state.value,
        sessions=member.sessions,
        held_bytes=member.held_bytes,
        busy_seconds=member.busy_seconds,
    )


def _ticket_bytes(context: Any) -> bytes | None:
    for key, value in context.invocation_metadata() or ():
        if key == TICKET_KEY:
            return value
    return None


def _serialized(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}") from error
