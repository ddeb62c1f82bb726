"""A worker: one device, the home of its sessions. It carries out what the session machines decide.

A compute thread serves the sessions in turn, a task each; a light task is carried out by the thread that
brings it, if nothing else computes. A lock guards the machines and is never held while something computes or
listens. Events are handed to whoever is attached, in order, one thread at a time.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

from telegrad.errors import (
    DataCorrupt,
    GraphError,
    LeaseExpired,
    NotFound,
    QuotaExceeded,
    ServerUnavailable,
    TelegradError,
)
from telegrad.ir.types import Type
from telegrad.ops import registry
from telegrad.wire import messages as m
from telegrad.wire.status import to_record

from telegrad_server import __version__
from telegrad_server.answers import Grant, Hello
from telegrad_server.bug import bug
from telegrad_server.census import census, validate_accounts
from telegrad_server.cluster.lease import Lease
from telegrad_server.config import Config
from telegrad_server.executors import Executor
from telegrad_server.executors.stopping import WORKING
from telegrad_server.functions import functions_for, read_function
from telegrad_server.line import Claim, Line
from telegrad_server.offers import Offers
from telegrad_server.seats import Deliver, Neighbours, Seat, Tenants, Turn, new_company, new_session, run_errands
from telegrad_server.sessions import Execute, Outcome, Session, Task, function_of
from telegrad_server.shared_memory import SharedMemory
from telegrad_server.sights import SessionSight
from telegrad_server.tally import Tally
from telegrad_server.tasks import Runner
from telegrad_server.uploads import Upload
from telegrad_server.yielding import YieldingLock


class Worker:
    """Sessions on one executor. `start` begins to compute, `stop` ends it. Every method may be called by any thread."""

    def __init__(
        self,
        config: Config,
        executor: Executor,
        *,
        clock: Callable[[], float] = time.monotonic,
        lease: Lease | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        self._config = config
        self._executor = executor
        self._clock = clock
        self.lease = lease or Lease.forever()
        self._neighbours = neighbours
        self._busy_seconds = 0.0
        self.offers = Offers(executor.to_host)
        self.incarnation = secrets.token_hex(16)
        self._lock = YieldingLock()
        self._line = Line[Turn](self._lock)
        self._room = threading.Condition(cast("threading.Lock", self._lock))
        self._waiting_for_room = 0
        self._seats: dict[str, Seat] = {}
        self._grants: dict[tuple[str, str], tuple[float | None, Grant]] = {}
        self._tenants = Tenants(config)
        self._functions = functions_for(config, kernels=executor.kernels, keeps_bytes=neighbours is not None)
        self._runner = Runner(executor, self._functions)
        self.tally = Tally()
        self._is_stopping = False
        self._threads: list[threading.Thread] = []

    # ---- life

    def start(self) -> None:
        """Begin to compute."""
        thread = threading.Thread(target=self._compute, name="telegrad-compute", daemon=True)
        self._threads.append(thread)
        thread.start()

    def end_all(self, record: m.ErrorRecord | None = None) -> None:
        """End every session and tell its client why."""
        record = record or m.ErrorRecord("DRAINING", "the server is shutting down; connect again")
        with self._lock:
            seats = list(self._seats.values())
            for seat in seats:
                self._end(seat, record)
        for seat in seats:
            self._deliver(seat)

    def stop(self) -> None:
        """End all sessions and the compute thread, after the task under way. New sessions are refused."""
        with self._lock:
            self._is_stopping = True
        self.end_all()
        with self._lock:
            self._line.end()
        for thread in self._threads:
            thread.join()

    @property
    def is_stopping(self) -> bool:
        """Whether no session is opened any more."""
        return self._is_stopping

    def hello(self) -> Hello:
        """Who this is."""
        executor, ops = self._executor, tuple(sorted(registry()))
        warnings = () if executor.name != "numpy" else (f"no GPU: running on NumPy ({executor.reason})",)
        return Hello(__version__, self.incarnation, ops, executor.name, executor.fingerprint, warnings)

    # ---- sessions

    def open_session(
        self,
        tenant: str,
        request_id: str,
        lease_seconds: float | None,
        *,
        is_peers: bool = False,
        weight: float = 1.0,
    ) -> Grant:
        """A new session, or the one that the same request opened before.

        A lease of None is for the same process: it never ends, and events are not kept until they are heard.
        ``is_peers`` is for another worker, whose session's replicas this one helps to run. Where sessions compete, each
        gets device time in proportion to its ``weight``.
        Raises QuotaExceeded if there are too many, GraphError (REQUEST_ID_REUSED) if the earlier request differs.
        """
        with self._lock:
            if self._is_stopping:
                raise ServerUnavailable("the server is shutting down", reason="DRAINING")
            self._check_lease()
            asked, grant = self._grants.get((tenant, request_id), (None, None))
            if grant is not None:
                if asked != lease_seconds:
                    raise GraphError(
                        "the request id was used before, for another lease; choose a new one",
                        reason="REQUEST_ID_REUSED",
                    )
                return grant
            if len(self._seats) >= self._config.max_sessions and not is_peers:  # a peer's home has its place already
                raise QuotaExceeded(
                    f"{len(self._seats)} sessions are open, which is the limit; close one", reason="QUOTA_SESSIONS"
                )
            session = new_session(
                tenant,
                lease_seconds=lease_seconds,
                is_peers=is_peers,
                now=self._clock(),
                payer=self._tenants.account(tenant),
                config=self._config,
                functions=self._functions,
            )
            seat = Seat(session, None, claim=Claim(weight))
            if self._neighbours is not None:
                seat.company = new_company(
                    session,
                    self._neighbours,
                    functions=self._functions,
                    executor=self._executor,
                    offers=self.offers,
                    waiting=lambda: self._pausing(seat),
                )
            self._seats[session.id] = seat
            self.offers.open(session.id)
            self.tally.opened_sessions += 1
            grant = Grant(session.id, session.secret, session.lease_seconds or 0.0, self.incarnation)
            if request_id:
                seat.request = (tenant, request_id, lease_seconds)
                self._grants[tenant, request_id] = lease_seconds, grant
            return grant

    def _check_lease(self) -> None:
        if not self.lease.is_running:
            raise ServerUnavailable("the worker cannot reach its gateway and has stopped; it goes on when it can")

    def _seat(self, tenant: str, session_id: str, secret: bytes) -> Seat:
        """The session, for who knows its secret; all others learn nothing, not even whether it exists."""
        seat = self._seats.get(session_id)
        expected = seat.session.secret if seat is not None else b"\0" * 32
        matches = hmac.compare_digest(expected, secret)
        if seat is None or not matches or seat.session.tenant != tenant:
            raise NotFound("there is no such session", reason="SESSION_UNKNOWN")
        return seat

    def _attached_seat(self, session_id: str) -> Seat:
        seat = self._seats.get(session_id)
        if seat is None:
            raise NotFound("there is no such session", reason="SESSION_UNKNOWN")
        return seat

    def attach(
        self,
        tenant: str,
        session_id: str,
        secret: bytes,
        heard_event: int,
        deliver: Deliver,
        *,
        taken: Callable[[], None] | None = None,
    ) -> int:
        """Let ``deliver`` hear the session's events from ``heard_event`` on. Returns the received sequence.

        A former listener hears nothing more; its ``taken`` is called. Events come from `begin_delivery` on.
        """
        with self._lock:
            self._check_lease()
            seat = self._seat(tenant, session_id, secret)
            seat.session.hear(self._clock())
            received = seat.session.attach(heard_event)
            former, seat.deliver, seat.taken = seat.taken, deliver, taken
            self._proceed(seat)
        if former is not None:
            former()
        return received

    def share_memory(self, session_id: str) -> SharedMemory | None:
        """The memory that an attached session shares with a client on this machine; None if this machine has none."""
        with self._lock:
            return self._attached_seat(session_id).share_memory()

    def begin_delivery(self, session_id: str) -> None:
        """Hand over what waited for a listener."""
        seat = self._seats.get(session_id)
        if seat is not None:
            self._deliver(seat)

    def detach(self, session_id: str, deliver: Deliver) -> None:
        """The listener is gone; the session lives on for its lease."""
        with self._lock:
            seat = self._seats.get(session_id)
            if seat is not None and seat.deliver == deliver:
                seat.deliver = seat.taken = None

    def receive(
        self, session_id: str, sequence: int, command: m.Command, heard_event: int, *, takes_light: bool = True
    ) -> bool:
        """Take a command of an attached session. Returns whether there is room for more; see `wait_for_room`.

        With ``takes_light`` the caller carries out what is over sooner than another thread is woken.
        """
        with self._lock:
            self._check_lease()
            seat = self._attached_seat(session_id)
            session = seat.session
            session.hear(self._clock(), heard_event)
            session.receive(sequence, seat.placed(sequence, command, self.tally))
            self._advance(seat)
            turn = self._line.take(self._is_light if takes_light else lambda _: False)
        if session.events.outbox:
            self._deliver(seat)
        while turn is not None:
            turn = self._carry_out(turn, lambda next: next.seat is seat and self._is_light(next))
        return session.has_room

    def wait_for_room(self, session_id: str, *, timeout_seconds: float | None = None) -> bool:
        """Wait while more commands of a session are queued than its window holds. Returns whether there is room."""
        with self._lock:
            seat = self._seats.get(session_id)
            self._waiting_for_room += 1
            try:
                return self._room.wait_for(
                    lambda: seat is None or seat.session.is_over or seat.session.has_room, timeout_seconds
                )
            finally:
                self._waiting_for_room -= 1

    def supply(self, session_id: str, function: bytes, data: bytes) -> None:
        """Take a function's bytes. GraphError (FUNCTION_MISMATCH) if they are not those of the id."""
        known = read_function(function, data)
        with self._lock:
            seat = self._attached_seat(session_id)
            seat.session.hear(self._clock())
            self._functions.add(seat.session.tenant, function, known)
            seat.session.supplied(function)
            self._proceed(seat)
        self._deliver(seat)

    def keep_alive(self, tenant: str, session_id: str, secret: bytes, heard_event: int) -> float:
        """Renew the lease; returns how many seconds it now lasts."""
        with self._lock:
            seat = self._seat(tenant, session_id, secret)
            seat.session.hear(self._clock(), heard_event)
            self._proceed(seat)
            lease_seconds = seat.session.lease_seconds or 0.0
        self._deliver(seat)
        return lease_seconds

    def close_session(self, tenant: str, session_id: str, secret: bytes) -> int:
        """Free everything of a session; returns how many tensors that were."""
        with self._lock:
            return self._end(self._seat(tenant, session_id, secret))

    def _end(self, seat: Seat, record: m.ErrorRecord | None = None) -> int:
        session = seat.session
        if self._seats.pop(session.id, None) is None:
            return 0
        if seat.request is not None:
            del self._grants[seat.request[:2]]
        freed = session.end(record)
        seat.close_memory()
        self.offers.end(session.id)
        if seat.company is not None:  # closing waits for threads, and the lock is held
            threading.Thread(target=seat.company.close, name="telegrad-dismiss", daemon=True).start()
        for upload in list(seat.uploads):
            self._give_back_room(seat, upload)
            upload.cancel()
        self._collect(seat)
        if not any(other.session.tenant == session.tenant for other in self._seats.values()):
            self._tenants.forget(session.tenant)
        self._room.notify_all()
        return freed

    def tick(self) -> None:
        """Free sessions whose lease is over, and acknowledge what came since. To be called twice a second."""
        with self._lock:
            now = self._clock()
            live = list(self._seats.values())
            for seat in live:
                session = seat.session
                session.acknowledge()
                if session.has_expired(now):
                    error = LeaseExpired(
                        f"the session expired: nothing was heard for {now - session.heard_at:.1f} s (lease"
                        f" {session.lease_seconds:g} s); connect again and upload"
                    )
                    self._end(seat, to_record(error))
                    self.tally.expired_sessions += 1
                elif seat.deliver is not None:
                    session.forget_downloads(now - self._config.download_grace_seconds)
                    self._collect(seat)
        for seat in live:
            self._deliver(seat)

    # ---- for operators and tests

    def statistics(self) -> dict[str, int]:
        """How many sessions, tensors and bytes there are."""
        with self._lock:
            return {
                "sessions": len(self._seats),
                "tensors": sum(len(seat.session.names) for seat in self._seats.values()),
                "bytes": self._tenants.nbytes,
            }

    @property
    def client_sessions(self) -> int:
        """How many sessions are at home here: those whose replicas it helps to run go on without it."""
        with self._lock:
            return sum(not seat.session.is_peers for seat in self._seats.values())

    def loads(self) -> dict[str, int]:
        """How many tasks wait or are computed, and what functions are kept."""
        with self._lock:
            return {
                "queued_tasks": len(self._line),
                "cached_functions": len(self._functions),
                "cached_function_bytes": self._functions.nbytes,
            }

    @property
    def busy_seconds(self) -> float:
        """How long the device has computed since the worker began."""
        return self._busy_seconds

    def held_bytes(self, tenant: str) -> int:
        """How many bytes a tenant's sessions hold."""
        with self._lock:
            return self._tenants.held_bytes(tenant)

    def census(self, tenant: str | None = None) -> list[SessionSight]:
        """A tenant's sessions, or all, and what they hold."""
        with self._lock:
            return census(self._seats.values(), self._clock(), tenant)

    def is_idle(self) -> bool:
        """Whether nothing is computed, and nothing waits that could be."""
        with self._lock:
            return self._line.is_idle()

    def validate(self) -> None:
        """Assert the invariants of every session, and that the accounts add up."""
        with self._lock:
            validate_accounts(self._seats.values(), self._tenants)

    # ---- bulk

    def begin_upload(self, tenant: str, session_id: str, secret: bytes, name: int, type: Type) -> Upload:
        """Room for a tensor that is announced by Expect, before or after.

        QuotaExceeded if there is none, DataCorrupt (DATA_LENGTH) if it was announced with another type; the name
        then carries the error.
        """
        with self._lock:
            seat = self._seat(tenant, session_id, secret)
            session = seat.session
            session.hear(self._clock())
            refusal: TelegradError | None = None
            upload = Upload(self, session_id, name, type)
            try:
                session.names.check_upload(name, type)
                session.account.add(type.nbytes)
                seat.uploads.add(upload)
            except (QuotaExceeded, DataCorrupt) as error:
                refusal = error
                session.upload_failed(name, type, to_record(error))
                self._proceed(seat)
        if refusal is not None:
            self._deliver(seat)
            raise refusal
        upload.begin(self._executor.receive)
        return upload

    def uploaded(self, upload: Upload, buffer: Any) -> None:
        """An upload is complete."""
        value = self._executor.received(buffer)
        self._upload_ended(upload, lambda s: s.uploaded(upload.name, upload.type, value, self._executor.nbytes(value)))

    def upload_failed(self, upload: Upload, record: m.ErrorRecord) -> None:
        """An upload brought the wrong bytes."""
        self._upload_ended(upload, lambda s: s.upload_failed(upload.name, upload.type, record))

    def upload_abandoned(self, upload: Upload) -> None:
        """An upload stopped without a verdict."""
        self._upload_ended(upload, lambda s: None)

    def _upload_ended(self, upload: Upload, tell: Callable[[Session], None]) -> None:
        with self._lock:
            seat = self._seats.get(upload.session_id)
            if seat is None or not self._give_back_room(seat, upload):
                return
            self.tally.uploaded_bytes += upload.received_bytes
            seat.session.hear(self._clock())
            tell(seat.session)
            self._proceed(seat)
        self._deliver(seat)

    def _give_back_room(self, seat: Seat, upload: Upload) -> bool:
        if upload not in seat.uploads:
            return False
        seat.uploads.remove(upload)
        seat.session.account.add(-upload.type.nbytes)
        return True

    def download(self, tenant: str, session_id: str, secret: bytes, ticket: str) -> memoryview:
        """The bytes behind a ticket; they stay valid while the view is held."""
        with self._lock:
            seat = self._seat(tenant, session_id, secret)
            seat.session.hear(self._clock())
            found = seat.session.tickets.get(ticket)
            if found is None:
                raise NotFound("there is no such ticket", reason="NOT_FOUND")
            found.sent_at = None
            return found.data

    def download_sent(self, tenant: str, session_id: str, secret: bytes, ticket: str) -> None:
        """All bytes are on their way: the ticket is good for a while yet, since the last of them may be lost."""
        with self._lock:
            found = self._seat(tenant, session_id, secret).session.tickets.get(ticket)
            if found is not None:
                found.sent_at = self._clock()
                self.tally.downloaded_bytes += len(found.data)

    def download_done(self, tenant: str, session_id: str, secret: bytes, ticket: str) -> None:
        """The bytes have been downloaded: the ticket is used up."""
        with self._lock:
            seat = self._seat(tenant, session_id, secret)
            seat.session.downloaded(ticket)
            self._collect(seat)

    # ---- progress

    def _proceed(self, seat: Seat) -> None:
        """Let the session's commands take effect. The lock is held."""
        self._advance(seat)
        self._line.wake()

    def _advance(self, seat: Seat) -> None:
        """Let the session's commands take effect; what needs computing joins the line. The lock is held.

        The session's next task joins the line anew: sessions take turns.
        """
        session = seat.session
        try:
            task = session.proceed()
        except Exception as error:  # a machine in an unknown state serves nobody
            self._end(seat, to_record(bug(error)))
            return
        if task is not None:
            known = self._functions.find(session.tenant, function_of(task))
            self._line.join(Turn(seat, task, known), seat.claim)
        if session.errands:
            run_errands(session, self.offers, self._neighbours, self.begin_upload)
        seat.settle()
        self._collect(seat)
        if self._waiting_for_room and session.has_room:
            self._room.notify_all()

    def _collect(self, seat: Seat) -> None:
        """Freed values go to the compute thread: giving back much memory takes time."""
        freed = seat.session.names.freed
        if freed:
            self._line.let_go([value for value in freed if not self._runner.is_small(value)])
            freed.clear()

    def _deliver(self, seat: Seat) -> None:
        """Hand over the session's events in order; if another thread is at it, it goes on until none is left."""
        with self._lock:
            if seat.is_delivering:
                return
            seat.is_delivering = True
        while True:
            with self._lock:
                outbox, deliver = seat.session.events.outbox, seat.deliver
                if deliver is None or not outbox:
                    seat.is_delivering = False
                    return
                number, event = outbox.popleft()
            try:
                deliver(number, event)
            except Exception as error:  # the edge: a listener that fails hears no more, and harms nobody else
                bug(error)
                self.detach(seat.session.id, deliver)

    # ---- computing

    def _compute(self) -> None:
        """Serve the line."""
        while (turn := self._line.wait()) is not None:
            while turn is not None:
                turn = self._carry_out(turn, lambda _: True)

    @contextmanager
    def _pausing(self, seat: Seat) -> Generator[None, None, None]:
        """Inside the ``with`` the turn under way waits for other workers, and the device is free for other sessions."""
        with self._lock:
            self._line.give_back()
            if not self._line.is_served and not self._is_stopping:
                self.start()
            self._line.wake()
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._line.take_again()
            seat.paused_seconds += time.perf_counter() - began

    def _is_light(self, turn: Turn) -> bool:
        return self._runner.is_light(turn.task, turn.known)

    def _carry_out(self, turn: Turn, suits: Callable[[Turn], bool]) -> Turn | None:
        """Compute, commit and deliver. Returns the next turn, if there is one that suits."""
        seat, task, known = turn
        began = time.perf_counter()
        WORKING.party, WORKING.spans = seat.session, seat.spans
        outcome = self._runner.carry_out(task, known, seat.session.account, company=seat.company)
        WORKING.party = WORKING.spans = None
        seconds = time.perf_counter() - began - seat.paused_seconds
        seat.paused_seconds = 0.0
        seat.claim.used += seconds / seat.claim.weight
        self._busy_seconds += seconds
        may_commit = self.lease.wait()
        with self._lock:  # once for a turn, from one to the next
            self._line.give_back()
            if isinstance(task, Execute):
                self.tally.runs.add(seconds)
            if outcome.error is not None:
                self.tally.failed[outcome.error.reason] += 1
            if may_commit:
                self._commit(seat, task, outcome)
            else:  # nobody may hear of it: another worker may do the same work
                self._end(seat, m.ErrorRecord("STATE_LOST", "the gateway has given the worker up; connect again"))
            del turn, task, known, outcome
            following = self._line.take(suits)
        if seat.session.events.outbox:
            self._deliver(seat)
        return following

    def _commit(self, seat: Seat, task: Task, outcome: Outcome) -> None:
        try:
            seat.session.finish(task, outcome)
        except Exception as error:  # a machine in an unknown state serves nobody
            self._end(seat, to_record(bug(error)))
        else:
            self._advance(seat)
