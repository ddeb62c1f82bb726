"""One run of a function in parts: what each worker is told, what the home does itself, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import ref

from telegrad.errors import TelegradError, WorkerLost
from telegrad.ir.types import Type, uint8
from telegrad.ir.value import Origin
from telegrad.wire import messages as m
from telegrad.wire.status import to_exception, to_record

from telegrad_server.cluster.lines import Candidate, PeerLine
from telegrad_server.compiler.parts import Cut, Part
from telegrad_server.compiler.places import HOME
from telegrad_server.compiler.plan import Plan
from telegrad_server.elsewhere import Elsewhere
from telegrad_server.executors import Executor
from telegrad_server.offers import Offered

Waiting = Callable[[], AbstractContextManager[None]]

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
class Ready:
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


class Desk(Protocol):
    """What a step needs of the session that it is for."""

    executor: Executor

    @property
    def myself(self) -> Candidate:
        """The home."""
        ...

    def offer(self, offered: Offered) -> None:
        """Let another worker take a value from here."""
        ...

    def to_home(self, key: str) -> bytes:
        """The ticket for an offer of the home."""
        ...

    def to_peer(self, peer: Peer, key: str) -> bytes:
        """The ticket for an offer of another worker."""
        ...


class Step:
    """One run of a function in parts."""

    def __init__(
        self,
        parts: Desk,
        cut: Cut,
        ready: Sequence[Ready],
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
                if x.peer.worker in self.orders:
                    self.orders[x.peer.worker].names[i] = x.name
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
            silent = [verdict for verdict in verdicts if verdict.exception() is not None]
        try:
            found = self._verdict(failure) or (silent[0].exception() if silent else None)
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
            if worker == HOME:
                continue
            if self._is_immediate(i):
                self._put(i, worker)
            elif cut.makers[i] != worker:
                self._wait_for(i, self.orders[worker])
        self._release_early()

    def _wait_for(self, i: int, orders: _Orders) -> None:
        """Let a worker be done no sooner than a result has come that none of its parts waits for."""
        name = orders.peer.new_name()
        orders.work.append((m.Alias(name, orders.names[i]), None, i))
        orders.work.append((m.Release((name,)), None, -1))

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
            if isinstance(given, Elsewhere) and given.peer.worker == worker:
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
