"""Runs a function whose parts are on several workers: the home commands, the tensors go from worker to worker.

The home has a session on each of the other workers. A run sends all parts at once; a part waits, by name, for what it
needs, and takes it from the worker that made it. On the others a run only ever makes new names. So nothing is changed
until every worker has said that all its parts are done: then the home's names begin to mean the new values, and what
nobody holds any more is freed where it is. After a failure the new names are freed, and everything is as it was.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, ref

from telegrad.errors import ConnectionFailed, NotFound, TelegradError, WorkerLost
from telegrad.ir.types import Type, uint8
from telegrad.ir.value import Origin
from telegrad.wire import messages as m
from telegrad.wire.codec import encode_function, function_id, nodes_in_order
from telegrad.wire.status import to_exception, to_record

from telegrad_server.cluster.crew import Candidate, PeerLine, Recruiter
from telegrad_server.compiler.parts import Cut, Part
from telegrad_server.compiler.places import HOME
from telegrad_server.compiler.plan import Plan
from telegrad_server.elsewhere import Elsewhere
from telegrad_server.executors import Executor
from telegrad_server.functions import Functions, Known
from telegrad_server.offers import Offered, Offers

Waiting = Callable[[], AbstractContextManager[None]]

MOST_WORKERS = 1024
COPIED_BYTES = 64
"""Of a result without axes the home gets a copy at the end of a run: who reads a loss need not ask for it again."""

FROM = "from"
"""The detail of an error that a worker passes on, of what another one failed with."""


class _Held(ref[Elsewhere]):
    """Knows the name of a value on another worker when nobody at home holds it any more."""

    __slots__ = ("name",)

    def __new__(cls, value: Elsewhere, gone: Callable[[_Held], None], name: int) -> _Held:
        return super().__new__(cls, value, gone)  # type: ignore[arg-type]

    def __init__(self, value: Elsewhere, gone: Callable[[_Held], None], name: int) -> None:
        super().__init__(value, gone)  # type: ignore[arg-type]
        self.name = name


class Peer:
    """Another worker, by its number in the session, and the session there."""

    TOKEN = 1
    """The name of a byte that every session there begins with: when it can be read, all before is done."""

    def __init__(self, worker: int, line: PeerLine) -> None:
        self.worker = worker
        self.line = line
        self.name = line.candidate.worker
        self.lost: TelegradError | None = None
        self.failures: list[m.ErrorRecord] = []
        self._last_name = self.TOKEN
        self._held: dict[int, _Held] = {}
        line.send(m.Put(self.TOKEN, Type((), uint8), b"\0"))

    def new_name(self) -> int:
        """A name that was never used there."""
        self._last_name += 1
        return self._last_name

    def keep(self, name: int, type: Type) -> Elsewhere:
        """What stands at home for a name there; the name is released with it."""
        value = Elsewhere(self, name, type)
        self._held[name] = _Held(value, self._gone, name)
        return value

    def _gone(self, held: _Held) -> None:
        del self._held[held.name]
        if self.lost is None:
            self.line.send(m.Release((held.name,)))


@dataclass(slots=True, eq=False)
class _Ready:
    """A part as its worker takes it: bytes and lines for another worker, a plan for this one."""

    function: bytes = b""
    origins: tuple[object, ...] = ()
    plan: Plan | None = None


@dataclass(slots=True, eq=False)
class _Orders:
    """What a worker is told in one run: first what comes in, then the parts and what goes out."""

    peer: Peer
    coming: list[m.Command] = field(default_factory=list[m.Command])
    work: list[tuple[m.Command, Future[bytes] | None, int]] = field(
        default_factory=list[tuple[m.Command, "Future[bytes] | None", int]]
    )
    names: dict[int, int] = field(default_factory=dict[int, int])
    """By number of a value its name there."""
    fresh: set[int] = field(default_factory=set[int])
    """The numbers of values that this run makes there."""


class Parts:
    """A session's parts on other workers. One run at a time."""

    def __init__(
        self,
        session_id: str,
        tenant: str,
        *,
        recruiter: Recruiter,
        functions: Functions,
        executor: Executor,
        offers: Offers,
    ) -> None:
        self._session_id = session_id
        self._tenant = tenant
        self._recruiter = recruiter
        self._functions = functions
        self._executor = executor
        self._offers = offers
        self._candidates: list[Candidate | None] = []  # of worker 1, 2, …; None where one was lost
        self._peers: dict[int, Peer] = {}
        self._ready: WeakKeyDictionary[Cut, list[_Ready]] = WeakKeyDictionary()
        self._bytes: dict[bytes, bytes] = {}
        self._step = 0
        self._is_closed = False
        self._lock = threading.Lock()

    @property
    def workers(self) -> list[str]:
        """The names of the session's workers as far as they are known, the home first; empty for one that is lost."""
        return [self._recruiter.myself().worker, *["" if c is None else c.worker for c in self._candidates]]

    # ---- runs

    def run(
        self, known: Known, run: m.Run, operands: Sequence[Any], *, brought: Sequence[bool], waiting: Waiting
    ) -> list[Any]:
        """The results of a function: arrays, and `Elsewhere` for those that stay on other workers.

        ``brought`` says which operands came with the call; they are wherever they are used. Raises NotFound
        (WORKER_UNKNOWN) if there are not so many workers, WorkerLost with the names of tensors that are lost.
        """
        places = tuple(
            [
                None if is_brought else x.keeper.worker if isinstance(x, Elsewhere) else HOME
                for x, is_brought in zip(operands, brought, strict=True)
            ]
        )
        cut = self._functions.parts_of(known, places)
        needed = {i for part in cut.parts for i in part.inputs} | {i for i, _ in cut.outputs}
        self._check_there(run, operands, needed)
        peers = self._peers_of(cut, waiting)
        self._step += 1
        step = _Step(self, cut, self._prepared(cut), operands, brought, peers, self._step, waiting)
        try:
            return step.run()
        except WorkerLost as error:
            self._explain(error, run, operands)
            raise

    def fetch(self, value: Elsewhere, *, waiting: Waiting) -> bytes:
        """The bytes of a value that lives on another worker."""
        if value.copy is not None:
            return value.copy
        peer = value.keeper
        assert isinstance(peer, Peer)
        if peer.lost is None:
            try:
                with waiting():
                    return peer.line.fetch(value.name).result()
            except WorkerLost:
                pass
        raise self._loss([(0, value)], peer)

    def close(self) -> None:
        """The session is over."""
        with self._lock:
            self._is_closed = True
            peers = list(self._peers.values())
        for peer in peers:
            peer.line.close()

    # ---- what is lost

    def _check_there(self, run: m.Run, operands: Sequence[Any], needed: set[int]) -> None:
        lost = [
            (run.inputs[i], x)
            for i, x in enumerate(operands)
            if i in needed and isinstance(x, Elsewhere) and x.keeper.lost is not None
        ]
        if lost:
            raise self._loss(lost, lost[0][1].keeper)

    def _explain(self, error: WorkerLost, run: m.Run, operands: Sequence[Any]) -> None:
        """Let the error say which of the run's tensors went with the worker."""
        lost = [
            (run.inputs[i], x) for i, x in enumerate(operands) if isinstance(x, Elsewhere) and x.keeper.lost is not None
        ]
        if lost:
            found = self._loss(lost, lost[0][1].keeper)
            error.message, error.args = found.message, found.args
            error.details |= found.details

    def _loss(self, lost: Sequence[tuple[int, Elsewhere]], keeper: Any) -> WorkerLost:
        first = ", ".join(str(x.type) for _, x in lost[:4]) + (f" and {len(lost) - 4} more" if len(lost) > 4 else "")
        why = keeper.lost.message if keeper.lost is not None else "it does not answer"
        return WorkerLost(
            f"worker:{keeper.worker} ({keeper.name}) is lost ({why}), and with it what lived there: {first}; assign"
            " what is lost anew, everything else is as it was",
            worker=keeper.name,
            tensors=",".join(str(name) for name, _ in lost if name),
        )

    # ---- workers

    def _peers_of(self, cut: Cut, waiting: Waiting) -> dict[int, Peer]:
        wanted = sorted(cut.workers - {HOME})
        found = {worker: peer for worker in wanted if (peer := self._peers.get(worker)) and peer.lost is None}
        if len(found) < len(wanted):
            with waiting():
                found = {worker: self._peer(worker) for worker in wanted}
        return found

    def _peer(self, worker: int) -> Peer:
        """The session on a worker, opened if need be."""
        known = self._peers.get(worker)
        if known is not None and known.lost is None:
            return known
        silent: list[str] = []
        while True:
            candidate = self._candidate(worker, silent)
            try:
                return self._open(worker, candidate)
            except ConnectionFailed as error:  # it is not known yet that it is gone
                logging.info("worker %s cannot take parts: %s", candidate.worker, error.message)
                silent.append(candidate.worker)
                self._candidates[worker - 1] = None

    def _open(self, worker: int, candidate: Candidate) -> Peer:
        found: list[Peer] = []

        def failed(record: m.ErrorRecord) -> None:
            for peer in found:
                peer.failures.append(record)

        def lost(error: TelegradError) -> None:
            for peer in found:
                self._lose(peer, error)

        line = self._recruiter.open(
            candidate, tenant=self._tenant, supply=self._bytes.__getitem__, failed=failed, lost=lost
        )
        peer = Peer(worker, line)
        found.append(peer)
        with self._lock:
            self._peers[worker] = peer
            if self._is_closed:
                line.close()
        return peer

    def _lose(self, peer: Peer, error: TelegradError) -> None:
        logging.info("worker %s is lost to a session: %s", peer.name, error.message)
        peer.lost = error
        if self._peers.get(peer.worker) is peer:
            self._candidates[peer.worker - 1] = None

    def _candidate(self, worker: int, without: Sequence[str]) -> Candidate:
        candidates = self._candidates
        if worker > len(candidates) or candidates[worker - 1] is None:
            for i, known in enumerate(candidates):  # those that are not used yet may take another's place
                peer = self._peers.get(i + 1)
                candidates[i] = known if peer is not None and peer.lost is None else None
            taken = [c.worker for c in candidates if c is not None]
            found = self._recruiter.find(MOST_WORKERS, strategy="pack", without=[*taken, *without])
            for i, known in enumerate(candidates):
                if known is None and found:
                    candidates[i] = found.pop(0)
            candidates += found
        chosen = candidates[worker - 1] if worker <= len(candidates) else None
        if chosen is None:
            there = [0, *[i for i, c in enumerate(candidates, 1) if c is not None]]
            names = ", ".join(f"worker:{i}" for i in there)
            raise NotFound(
                f"there is no worker:{worker}; this session has {len(there)}: {names}, of which worker:0 is its home",
                reason="WORKER_UNKNOWN",
            )
        return chosen

    # ---- for a step

    def _prepared(self, cut: Cut) -> list[_Ready]:
        known = self._ready.get(cut)
        if known is None:
            known = self._ready[cut] = [self._ready_part(part) for part in cut.parts]
        return known

    def _ready_part(self, part: Part) -> _Ready:
        if part.key.worker == HOME:
            return _Ready(plan=self._functions.plan_of_part(part.function))
        data = encode_function(part.function)
        function = function_id(data)
        self._bytes[function] = data
        return _Ready(function, tuple([node.origin for node in nodes_in_order(part.function.graph)]))

    def offer(self, offered: Offered) -> None:
        """Let another worker take a value from here."""
        self._offers.put(self._session_id, offered)

    def to_home(self, key: str) -> bytes:
        """The ticket for an offer of the home."""
        return self._recruiter.permit(
            self._recruiter.myself(), tenant=self._tenant, session_id=self._session_id, offer=key
        )

    def to_peer(self, peer: Peer, key: str) -> bytes:
        """The ticket for an offer of another worker."""
        return self._recruiter.permit(
            peer.line.candidate, tenant=self._tenant, session_id=peer.line.session_id, offer=key
        )

    @property
    def executor(self) -> Executor:
        """What runs the parts of the home."""
        return self._executor

    @property
    def myself(self) -> Candidate:
        """The home."""
        return self._recruiter.myself()


class _Step:
    """One run of a function in parts."""

    def __init__(
        self,
        parts: Parts,
        cut: Cut,
        ready: Sequence[_Ready],
        operands: Sequence[Any],
        brought: Sequence[bool],
        peers: dict[int, Peer],
        number: int,
        waiting: Waiting,
    ) -> None:
        self.parts, self.cut, self.ready, self.operands = parts, cut, ready, operands
        self.brought, self.peers, self.number, self.waiting = brought, peers, number, waiting
        self.executor = parts.executor
        self.home: dict[int, Any] = {}  # by number the arrays that are here
        self.fetches: dict[int, Future[bytes]] = {}  # what comes here
        self.offers: dict[int, list[str]] = {}  # by number the keys under which other workers take a value from here
        self.orders = {worker: _Orders(peer) for worker, peer in peers.items()}
        self.keys = 0
        for i, x in enumerate(operands):
            if isinstance(x, Elsewhere):
                if x.keeper.worker in self.orders:
                    self.orders[x.keeper.worker].names[i] = x.name
            else:
                self.home[i] = x

    def run(self) -> list[Any]:
        """The results; nothing has been changed if this raises."""
        for peer in self.peers.values():
            peer.failures.clear()
        self._plan()
        verdicts = self._send()
        failure: tuple[int, TelegradError] | None = None
        try:
            for i in [i for i in self.offers if i in self.home]:
                self._offer(i)
            for number, part in enumerate(self.cut.parts):
                if part.key.worker == HOME:
                    try:
                        self._run_here(number, part)
                    except TelegradError as error:
                        failure = number, error
                        break
        finally:
            withheld = to_record(failure[1]) if failure else m.ErrorRecord("CANCELLED", "the run was given up")
            for keys in self.offers.values():  # what was not made: whoever waits for it must hear so
                for key in keys:
                    self.parts.offer(Offered(key, error=_passed_on(withheld, self.parts.myself.worker)))
        with self.waiting():
            for verdict in verdicts:
                verdict.exception()
        try:
            found = self._verdict(failure)
            if found is not None:
                raise found
            return self._results()
        except TelegradError:
            self._undo()
            raise

    # ---- orders

    def _plan(self) -> None:
        """Write down what each of the other workers is told."""
        cut = self.cut
        wanted: dict[tuple[int, int], None] = {}  # (value, worker) that it must be brought to
        for part in cut.parts:
            for i in part.inputs:
                wanted[i, part.key.worker] = None
        for j, (i, worker) in enumerate(cut.outputs):
            wanted[i, worker] = None
            if self._is_copied(j):
                wanted[i, HOME] = None
        leaving: dict[int, list[tuple[str, int]]] = {}  # by value: (key, worker), no key for those that come home
        for i, worker in wanted:
            maker = HOME if cut.makers[i] is None else cut.makers[i]
            assert maker is not None
            if maker == worker or self._is_immediate(i):
                continue
            if worker == HOME:
                leaving.setdefault(i, []).append(("", HOME))
            elif self._is_small(i):
                self._put(i, worker)
            else:
                self.keys += 1
                key = f"{self.number}/{self.keys}"
                self._pull(i, maker, worker, key)
                leaving.setdefault(i, []).append((key, worker))
        for worker, orders in self.orders.items():
            for i in [i for i in leaving if cut.makers[i] == worker and i < len(self.operands)]:
                self._leave(orders, i, leaving[i])
        for i, going in leaving.items():
            if cut.makers[i] in (HOME, None):
                self.offers[i] = [key for key, _ in going]
        for number, part in enumerate(cut.parts):
            if part.key.worker != HOME:
                self._order(number, part, leaving)
        for i, worker in dict.fromkeys(cut.outputs):
            if worker != HOME and self._is_immediate(i):
                self._put(i, worker)
        self._release_early()

    def _put(self, i: int, worker: int) -> None:
        """Send a few bytes along."""
        orders = self.orders[worker]
        data = bytes(self.executor.to_host(self.home[i]))
        orders.coming.append(m.Put(self._fresh(orders, i), self.cut.types[i], data))

    def _is_immediate(self, i: int) -> bool:
        return i < len(self.operands) and self.brought[i]

    def _is_small(self, i: int) -> bool:
        """Whether the value is known at once and travels inside a command."""
        return i in self.home and self.cut.types[i].nbytes <= m.INLINE_BYTES

    def _is_copied(self, j: int) -> bool:
        i, worker = self.cut.outputs[j]
        type = self.cut.types[i]
        return (
            self.cut.makers[i] == worker != HOME
            and not type.shape
            and type.nbytes <= COPIED_BYTES
            and j not in [k for _, k in self.cut.updates]
        )

    def _fresh(self, orders: _Orders, i: int) -> int:
        name = orders.names.get(i)
        if name is None:
            name = orders.names[i] = orders.peer.new_name()
            orders.fresh.add(i)
        return name

    def _pull(self, i: int, maker: int, worker: int, key: str) -> None:
        orders = self.orders[worker]
        name = self._fresh(orders, i)
        if maker == HOME:
            source, ticket = self.parts.myself, self.parts.to_home(key)
        else:
            peer = self.orders[maker].peer
            source, ticket = peer.line.candidate, self.parts.to_peer(peer, key)
        orders.coming.append(m.Pull(name, self.cut.types[i], source.worker, source.address, ticket))

    def _leave(self, orders: _Orders, i: int, going: Sequence[tuple[str, int]]) -> None:
        """Let a value that is on a worker go where it is wanted."""
        for key, worker in going:
            if worker == HOME:
                future: Future[bytes] = Future()
                self.fetches[i] = future
                orders.work.append((m.Fetch(orders.names[i]), future, i))
            else:
                orders.work.append((m.Offer(orders.names[i], key), None, i))

    def _order(self, number: int, part: Part, leaving: dict[int, list[tuple[str, int]]]) -> None:
        orders = self.orders[part.key.worker]
        inputs = [0 if self._is_immediate(i) else orders.names[i] for i in part.inputs]
        immediates = [bytes(self.executor.to_host(self.home[i])) for i in part.inputs if self._is_immediate(i)]
        outputs = [self._fresh(orders, i) for i in part.outputs]
        run = m.Run(self.ready[number].function, tuple(inputs), tuple(outputs), b"".join(immediates))
        orders.work.append((run, None, -1))
        for i in part.outputs:
            self._leave(orders, i, leaving.get(i, ()))

    def _release_early(self) -> None:
        """Free what a part has made for others of this run when the last of them is done."""
        for worker, orders in self.orders.items():
            kept = {i for i, place in self.cut.outputs if place == worker}
            number_of = {orders.names[i]: i for i in orders.fresh - kept}
            done: list[tuple[m.Command, Future[bytes] | None, int]] = []
            for item in reversed(orders.work):
                command = item[0]
                used: tuple[int, ...] = ()
                if isinstance(command, m.Run):
                    used = (*command.inputs, *command.outputs)
                elif isinstance(command, m.Fetch | m.Offer):
                    used = (command.name,)
                last = tuple([name for name in dict.fromkeys(used) if number_of.pop(name, None) is not None])
                if last:
                    done.append((m.Release(last), None, -1))
                done.append(item)
            orders.work = done[::-1]

    def _send(self) -> list[Future[bytes]]:
        """Tell all workers everything. Returns what is there when each has done it."""
        verdicts: list[Future[bytes]] = []
        for orders in self.orders.values():
            line = orders.peer.line
            for command in orders.coming:
                line.send(command)
        for orders in self.orders.values():
            line = orders.peer.line
            for command, future, _ in orders.work:
                if future is not None and isinstance(command, m.Fetch):
                    _hand_on(line.fetch(command.name), future)
                else:
                    line.send(command)
            verdicts.append(line.fetch(Peer.TOKEN))
        return verdicts

    # ---- the home's own parts

    def _run_here(self, number: int, part: Part) -> None:
        given = [self._here(i) for i in part.inputs]
        plan = self.ready[number].plan
        assert plan is not None
        for i, value in zip(part.outputs, self.executor.run(plan, given), strict=True):
            self.home[i] = value
            self._offer(i)

    def _offer(self, i: int) -> None:
        for key in self.offers.pop(i, ()):
            self.parts.offer(Offered(key, self.home[i]))

    def _here(self, i: int) -> Any:
        if i not in self.home:
            with self.waiting():
                data = self.fetches[i].result()
            self.home[i] = self.executor.from_host(self.cut.types[i], data)
        return self.home[i]

    # ---- the end

    def _verdict(self, failure: tuple[int, TelegradError] | None) -> TelegradError | None:
        """What a worker failed with, that of the first part if several did; None if all is well."""
        lost = [peer for peer in self.peers.values() if peer.lost is not None]
        if lost:
            why = lost[0].lost
            return WorkerLost(f"worker {lost[0].name} is lost: {why.message if why else ''}", worker=lost[0].name)
        order = {ready.function: i for i, ready in reversed(list(enumerate(self.ready))) if ready.function}
        found: list[tuple[int, TelegradError]] = []
        others: list[TelegradError] = []
        for peer in self.peers.values():
            for record in peer.failures:
                error = self._translated(record, order)
                if FROM in record.details:
                    others.append(error)
                else:
                    found.append((order.get(record.function, len(order)), error))
        if failure is not None:
            is_own = not any(failure[1] is f.exception() for f in self.fetches.values() if f.done())
            found.append(failure) if is_own else others.append(failure[1])
        if found:
            return min(found, key=lambda x: x[0])[1]
        return others[0] if others else None

    def _translated(self, record: m.ErrorRecord, order: dict[bytes, int]) -> TelegradError:
        """The error with the client's node, of which a worker knows only its part's."""
        error = to_exception(record)
        number = order.get(record.function)
        origins = self.ready[number].origins if number is not None else ()
        if 0 <= record.node < len(origins):
            origin = origins[record.node]
            if isinstance(origin, Origin):
                error.details |= {"node": origin.node, "is_backward": origin.is_backward or record.is_backward}
        return error

    def _results(self) -> list[Any]:
        kept: dict[tuple[int, int], Elsewhere] = {}
        found: list[Any] = []
        for j, (i, worker) in enumerate(self.cut.outputs):
            if worker == HOME:
                found.append(self._here(i))
                continue
            given = self.operands[i] if i < len(self.operands) else None
            if isinstance(given, Elsewhere) and given.keeper.worker == worker:
                found.append(given)
                continue
            if (i, worker) not in kept:
                orders = self.orders[worker]
                value = kept[i, worker] = orders.peer.keep(orders.names[i], self.cut.types[i])
                if self._is_copied(j):
                    value.copy = self.fetches[i].result()
            found.append(kept[i, worker])
        return found

    def _undo(self) -> None:
        """Free what the run has made on the other workers."""
        for orders in self.orders.values():
            made = tuple([orders.names[i] for i in orders.fresh])
            if made and orders.peer.lost is None:
                orders.peer.line.send(m.Release(made))


def _passed_on(record: m.ErrorRecord, worker: str) -> m.ErrorRecord:
    return m.ErrorRecord(record.reason, record.message, details={**record.details, FROM: worker})


def _hand_on(source: Future[bytes], target: Future[bytes]) -> None:
    """Let the target have what the source comes to."""

    def done(finished: Future[bytes]) -> None:
        error = finished.exception()
        if error is not None:
            target.set_exception(error)
        else:
            target.set_result(finished.result())

    source.add_done_callback(done)
