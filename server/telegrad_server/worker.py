"""A worker: one device, the home of its sessions. It carries out what the session machines decide.

One compute thread serves the sessions in turn, a task each; a lock guards the machines and is never held
while something computes. Events are handed to whoever is attached, in order, by the thread that caused them.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from telegrad.errors import (
    DataCorrupt,
    GraphError,
    LeaseExpired,
    NotFound,
    QuotaExceeded,
    ServerBug,
    SessionError,
    TelegradError,
)
from telegrad.ir.op import REGISTRY
from telegrad.ir.types import Type
from telegrad.wire import messages as m
from telegrad.wire.arrays import from_numpy_dtype
from telegrad.wire.status import to_record

from telegrad_server import __version__
from telegrad_server.compiler.limits import Limits
from telegrad_server.config import Config
from telegrad_server.executors import Executor
from telegrad_server.functions import Functions
from telegrad_server.sessions import Answer, Execute, Make, Outcome, Session, Task

Deliver = Callable[[int, m.Event], None]


@dataclass(frozen=True, slots=True)
class Hello:
    """What the worker says of itself."""

    server_version: str
    incarnation: str
    ops: tuple[str, ...]
    backend: str
    fingerprint: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """A session as opened."""

    session_id: str
    session_secret: bytes
    lease_seconds: float
    incarnation: str


@dataclass(slots=True, eq=False)
class _Seat:
    """A session and who listens to it."""

    session: Session
    deliver: Deliver | None = None
    delivering: Any = field(default_factory=threading.RLock)  # keeps events in order


class Upload:
    """A tensor on its way: write its bytes in order, then finish."""

    def __init__(self, worker: Worker, seat: _Seat, name: int, type: Type, buffer: Any, view: memoryview) -> None:
        self._worker, self._seat, self._name, self._type = worker, seat, name, type
        self._buffer, self._view = buffer, view
        self._filled = 0

    def write(self, chunk: bytes | memoryview) -> None:
        """The next bytes; DataCorrupt at the first one too many."""
        end = self._filled + len(chunk)
        if end > len(self._view):
            raise self._fail("DATA_LENGTH", f"{self._type} takes {len(self._view)} bytes; the upload brought more")
        self._view[self._filled : end] = chunk
        self._filled = end

    @property
    def is_whole(self) -> bool:
        """Whether all bytes have come."""
        return self._filled == len(self._view)

    def finish(self) -> int:
        """All bytes have come; DataCorrupt if some are missing. Returns their number."""
        if not self.is_whole:
            raise self._fail(
                "DATA_TRUNCATED", f"{self._type} takes {len(self._view)} bytes; the upload ended after {self._filled}"
            )
        self._worker.uploaded(self._seat, self._name, self._type, self._buffer)
        return self._filled

    def _fail(self, reason: str, message: str) -> DataCorrupt:
        self._worker.upload_failed(self._seat, self._name, m.ErrorRecord(reason, message))
        return DataCorrupt(message, reason=reason)


class Worker:
    """Sessions on one executor. `start` begins to compute, `stop` ends it."""

    def __init__(self, config: Config, executor: Executor, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._executor = executor
        self._clock = clock
        self.incarnation = secrets.token_hex(16)
        self._lock = threading.RLock()
        self._seats: dict[str, _Seat] = {}
        self._requests: dict[tuple[str, str], Grant] = {}
        limits = Limits(tensor_bytes=config.max_tensor_bytes, flops=config.max_flops)
        self._functions = Functions(capacity=config.cached_functions, max_nodes=config.max_graph_nodes, limits=limits)
        self._ready: deque[tuple[_Seat, Task]] = deque()
        self._wake = threading.Condition(threading.Lock())
        self._stopping = False
        self._thread: threading.Thread | None = None

    # ---- life

    def start(self) -> None:
        """Begin to compute."""
        self._thread = threading.Thread(target=self._compute, name="telegrad-compute", daemon=True)
        self._thread.start()

    def end_all(self) -> None:
        """End every session and tell its client."""
        with self._lock:
            seats = list(self._seats.values())
            record = m.ErrorRecord("DRAINING", "the server is shutting down; connect again")
            for seat in seats:
                seat.session.end(record)
            self._seats.clear()
        for seat in seats:
            self._deliver(seat)

    def stop(self) -> None:
        """End all sessions and the compute thread, after the task under way."""
        self.end_all()
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()

    def hello(self) -> Hello:
        """Who this is."""
        warnings = () if self._executor.name != "numpy" else (f"no GPU: running on NumPy ({self._executor.reason})",)
        return Hello(
            __version__,
            self.incarnation,
            tuple(sorted(REGISTRY)),
            self._executor.name,
            self._executor.fingerprint,
            warnings,
        )

    # ---- sessions

    def open_session(self, tenant: str, request_id: str, lease_seconds: float | None) -> Grant:
        """A new session, or the one that the same request opened before. QuotaExceeded if there are too many."""
        with self._lock:
            known = self._requests.get((tenant, request_id)) if request_id else None
            if known is not None and known.session_id in self._seats:
                return known
            if len(self._seats) >= self._config.max_sessions:
                raise QuotaExceeded(
                    f"{len(self._seats)} sessions are open, which is the limit", reason="QUOTA_SESSIONS"
                )
            if lease_seconds is not None:
                lease_seconds = min(lease_seconds, self._config.lease_seconds)
            session = Session(
                id=secrets.token_hex(16),
                tenant=tenant,
                secret=secrets.token_bytes(32),
                lease_seconds=lease_seconds,
                heard_at=self._clock(),
                is_known=lambda function: self._functions.knows(tenant, function),
                updated_by=lambda run: self._functions.updated_by(tenant, run.function),
                max_bytes=self._config.max_session_bytes,
                max_names=self._config.max_names,
            )
            self._seats[session.id] = _Seat(session)
            grant = Grant(session.id, session.secret, lease_seconds or 0.0, self.incarnation)
            if request_id:
                self._requests[tenant, request_id] = grant
            return grant

    def _seat(self, tenant: str, session_id: str, secret: bytes) -> _Seat:
        """The session, for who knows its secret; all others learn nothing, not even whether it exists."""
        seat = self._seats.get(session_id)
        expected = seat.session.secret if seat is not None else b"\0" * 32
        matches = hmac.compare_digest(expected, secret)
        if seat is None or not matches or seat.session.tenant != tenant:
            raise NotFound("there is no such session", reason="SESSION_UNKNOWN")
        return seat

    def attach(self, tenant: str, session_id: str, secret: bytes, heard_event: int, deliver: Deliver) -> int:
        """Let ``deliver`` hear the session's events from ``heard_event`` on. Returns the received sequence.

        A former listener hears nothing more.
        """
        with self._lock:
            seat = self._seat(tenant, session_id, secret)
            seat.session.hear(self._clock())
            received = seat.session.attach(heard_event)
            seat.deliver = deliver
            return received

    def begin_delivery(self, session_id: str) -> None:
        """Hand over what waited for a listener."""
        seat = self._seats.get(session_id)
        if seat is not None:
            self._deliver(seat)

    def detach(self, session_id: str, deliver: Deliver) -> None:
        """The listener is gone; the session lives on for its lease."""
        with self._lock:
            seat = self._seats.get(session_id)
            if seat is not None and seat.deliver is deliver:
                seat.deliver = None

    def receive(self, session_id: str, sequence: int, command: m.Command, heard_event: int) -> None:
        """Take a command of an attached session."""
        with self._lock:
            seat = self._known_seat(session_id)
            seat.session.hear(self._clock())
            seat.session.heard(heard_event)
            self._schedule(seat, seat.session.receive(sequence, command))
        self._deliver(seat)

    def supply(self, session_id: str, function: bytes, data: bytes) -> None:
        """Take a function's bytes. GraphError if they are not those of the id."""
        with self._lock:
            seat = self._known_seat(session_id)
            self._functions.add(seat.session.tenant, function, data)
            self._schedule(seat, seat.session.supplied(function))
        self._deliver(seat)

    def _known_seat(self, session_id: str) -> _Seat:
        seat = self._seats.get(session_id)
        if seat is None:
            raise NotFound("there is no such session", reason="SESSION_UNKNOWN")
        return seat

    def keep_alive(self, tenant: str, session_id: str, secret: bytes, heard_event: int) -> float:
        """Renew the lease; returns how many seconds it now lasts."""
        with self._lock:
            seat = self._seat(tenant, session_id, secret)
            seat.session.hear(self._clock())
            seat.session.heard(heard_event)
            return seat.session.lease_seconds or 0.0

    def close_session(self, tenant: str, session_id: str, secret: bytes) -> int:
        """Free everything of a session; returns how many tensors that were."""
        with self._lock:
            seat = self._seat(tenant, session_id, secret)
            self._forget(seat)
            return seat.session.end()

    def _forget(self, seat: _Seat) -> None:
        del self._seats[seat.session.id]
        for key, grant in list(self._requests.items()):
            if grant.session_id == seat.session.id:
                del self._requests[key]

    def tick(self) -> None:
        """Free sessions whose lease is over, and acknowledge what came since. To be called twice a second."""
        with self._lock:
            now = self._clock()
            live = list(self._seats.values())
            for seat in live:
                seat.session.acknowledge()
                if seat.session.has_expired(now):
                    silent = now - seat.session.heard_at
                    error = LeaseExpired(
                        f"the session expired: nothing was heard for {silent:.1f} s (lease"
                        f" {seat.session.lease_seconds:g} s); connect again and upload"
                    )
                    self._forget(seat)
                    seat.session.end(to_record(error))
        for seat in live:
            self._deliver(seat)

    def statistics(self) -> dict[str, int]:
        """How many sessions, tensors and bytes there are."""
        with self._lock:
            sessions = [seat.session for seat in self._seats.values()]
            return {
                "sessions": len(sessions),
                "tensors": sum(len(s.names) for s in sessions),
                "bytes": sum(s.nbytes for s in sessions),
            }

    def held_bytes(self, tenant: str) -> int:
        """How many bytes a tenant's sessions hold."""
        with self._lock:
            return sum(seat.session.nbytes for seat in self._seats.values() if seat.session.tenant == tenant)

    def validate(self) -> None:
        """Assert the invariants of every session."""
        with self._lock:
            for seat in self._seats.values():
                seat.session.validate()

    # ---- bulk

    def begin_upload(self, tenant: str, session_id: str, secret: bytes, name: int, type: Type) -> Upload:
        """Room for a tensor that is announced by Expect, before or after. QuotaExceeded if there is none."""
        with self._lock:
            seat = self._seat(tenant, session_id, secret)
            if name <= 0:
                raise GraphError(f"the name {name} is no positive number", reason="NAME_INVALID")
            session = seat.session
            session.hear(self._clock())
            if session.nbytes + type.nbytes > session.max_bytes:
                raise QuotaExceeded(
                    f"{type} does not fit: the session holds {session.nbytes} of {session.max_bytes} bytes"
                )
        buffer, view = self._executor.receive(type)
        return Upload(self, seat, name, type, buffer, view)

    def uploaded(self, seat: _Seat, name: int, type: Type, buffer: Any) -> None:
        """An upload is complete."""
        value = self._executor.received(buffer)
        with self._lock:
            nbytes = self._executor.nbytes(value)
            self._schedule(seat, seat.session.uploaded(name, type, value, nbytes))
        self._deliver(seat)

    def upload_failed(self, seat: _Seat, name: int, record: m.ErrorRecord) -> None:
        """An upload brought the wrong bytes."""
        with self._lock:
            self._schedule(seat, seat.session.upload_failed(name, record))
        self._deliver(seat)

    def download(self, tenant: str, session_id: str, secret: bytes, ticket: str) -> memoryview:
        """The bytes behind a ticket; they stay valid while the view is held."""
        with self._lock:
            seat = self._seat(tenant, session_id, secret)
            seat.session.hear(self._clock())
            if ticket not in seat.session.tickets:
                raise NotFound("there is no such ticket", reason="NOT_FOUND")
            return seat.session.tickets[ticket]

    def download_done(self, tenant: str, session_id: str, secret: bytes, ticket: str) -> None:
        """The bytes have been downloaded: the ticket is used up."""
        with self._lock:
            self._seat(tenant, session_id, secret).session.tickets.pop(ticket, None)

    # ---- computing

    def _schedule(self, seat: _Seat, task: Task | None) -> None:
        if task is not None:
            with self._wake:
                self._ready.append((seat, task))
                self._wake.notify()

    def _deliver(self, seat: _Seat) -> None:
        """Hand over the session's events, in order, whichever thread brings them."""
        if not seat.session.outbox:
            return
        with seat.delivering:
            while True:
                with self._lock:
                    deliver = seat.deliver
                    if deliver is None or not seat.session.outbox:
                        return
                    number, event = seat.session.outbox.popleft()
                deliver(number, event)

    def _compute(self) -> None:
        while True:
            with self._wake:
                while not self._ready and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return
                seat, task = self._ready.popleft()
            outcome = self._carry_out(seat, task)
            with self._lock:
                # the next task of this session goes to the end of the line: sessions take turns
                self._schedule(seat, seat.session.finish(task, outcome))
            self._deliver(seat)
            del seat, task, outcome

    def _carry_out(self, seat: _Seat, task: Task) -> Outcome:
        try:
            match task:
                case Execute():
                    return self._execute(seat.session, task)
                case Make():
                    value = self._make(task.put)
                    return Outcome([(value, self._executor.nbytes(value))])
                case Answer():
                    self._answer(seat.session, task)
                    return Outcome()
        except TelegradError as error:
            return Outcome(error=error)
        except Exception as error:  # the edge: a bug of ours must not end the thread that serves everyone
            return Outcome(error=_bug(error))

    def _make(self, put: m.Put) -> Any:
        if len(put.data) != put.type.nbytes:
            raise DataCorrupt(f"{put.type} takes {put.type.nbytes} bytes, got {len(put.data)}", reason="DATA_LENGTH")
        return self._executor.from_host(put.type, put.data)

    def _execute(self, session: Session, task: Execute) -> Outcome:
        with self._lock:
            known = self._functions.find(session.tenant, task.run.function)
        if known is None:
            raise SessionError("the function was forgotten between its arrival and its run; send it again")
        plan = self._functions.compile(known)
        operands = self._operands(plan.input_types, task)
        if len(task.run.outputs) != len(plan.outputs):
            raise GraphError(
                f"the function has {len(plan.outputs)} results, the Run names {len(task.run.outputs)}",
                reason="GRAPH_ARITY",
            )
        for i, _ in plan.updates:
            if not task.run.inputs[i]:
                raise GraphError(f"input {i} is updated, so it must be a name", reason="GRAPH_ARITY")
        values = self._executor.run(plan, operands)
        return Outcome([(v, self._executor.nbytes(v)) for v in values], plan.updates)

    def _operands(self, types: tuple[Type, ...], task: Execute) -> list[Any]:
        """The values of a Run's inputs, each of the type that the function takes."""
        if len(task.operands) != len(types):
            raise GraphError(
                f"the function takes {len(types)} operands, the Run gives {len(task.operands)}", reason="GRAPH_ARITY"
            )
        data, position, found = memoryview(task.run.immediates), 0, []
        for i, (value, type) in enumerate(zip(task.operands, types, strict=True)):
            if value is None:
                end = position + type.nbytes
                if end > len(data):
                    raise DataCorrupt(f"the Run's immediates end before input {i} ({type})", reason="DATA_LENGTH")
                value = self._executor.from_host(type, data[position:end])
                position = end
            elif tuple(value.shape) != type.shape or value.dtype.name != type.dtype.name:
                raise GraphError(
                    f"input {i} of the function is {type}, given was {value.dtype.name}{list(value.shape)}",
                    reason="SHAPE_INVALID",
                )
            found.append(value)
        if position != len(data):
            raise DataCorrupt(
                f"the Run brings {len(data)} bytes of immediates, its inputs take {position}", reason="DATA_LENGTH"
            )
        return found

    def _answer(self, session: Session, task: Answer) -> None:
        data = self._executor.to_host(task.value)
        type = Type(tuple(task.value.shape), from_numpy_dtype(task.value.dtype))
        with self._lock:
            if session.is_over:
                return
            if len(data) <= m.INLINE_BYTES:
                session.answered(task.sequence, type, data=bytes(data))
            else:
                ticket = secrets.token_urlsafe(16)
                session.answered(task.sequence, type, data=None, ticket=ticket, value=data)


def _bug(error: Exception) -> ServerBug:
    """A failure that is our fault: the user gets an id, the log gets the traceback."""
    number = secrets.token_hex(6)
    logging.getLogger("telegrad").exception("internal error %s", number, exc_info=error)
    return ServerBug(f"the server failed in a way it does not explain; please report error {number}")
