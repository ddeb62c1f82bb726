"""One session as a pure state machine: commands and outcomes go in, tasks and events come out.

It holds no thread, no clock and no socket, and never looks inside a value. Commands take effect once and in
the order of their numbers; at most one task is under way.

The queue is *parked* while its head waits for a function's bytes, for an upload, or for a client that lets
events pile up. A client may send on into a parked or busy queue, up to a window: beyond it nothing more is
acknowledged, and a client that does not stop at what is not acknowledged is refused.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from telegrad.errors import AccessError, DataCorrupt, GraphError, ResourceError, SessionError, TelegradError
from telegrad.ir.types import Type
from telegrad.wire import messages as m
from telegrad.wire.status import to_record

from telegrad_server.events import Events
from telegrad_server.names import Announced, Blamed, Names
from telegrad_server.offers import Offered
from telegrad_server.store import Account, Stored

ACKNOWLEDGE_COMMANDS = 64
ACKNOWLEDGE_BYTES = 1 << 20
WINDOW_BYTES = 4 << 20
REFUSED_BYTES = 256 << 20
COMMAND_BYTES = 256
"""What a command costs beside its data."""


@dataclass(frozen=True, slots=True)
class Execute:
    """Task: run a function. ``operands`` holds a value, or None for the next of the immediates."""

    sequence: int
    run: m.Run
    operands: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Make:
    """Task: make a value from bytes."""

    sequence: int
    put: m.Put


@dataclass(frozen=True, slots=True)
class Answer:
    """Task: bring a value to the host for a Fetch."""

    sequence: int
    stored: Stored


@dataclass(frozen=True, slots=True)
class Join:
    """Task: become a member of a group."""

    sequence: int
    group: m.JoinGroup


@dataclass(frozen=True, slots=True)
class Describe:
    """Task: say what running a function would take."""

    sequence: int
    explain: m.Explain


@dataclass(frozen=True, slots=True)
class Clock:
    """Task: tell the time, and what was recorded if that ends."""

    sequence: int
    profile: m.Profile


Task = Execute | Make | Answer | Join | Describe | Clock


@dataclass(frozen=True, slots=True)
class Fetched:
    """A value on the host. If ``ticket`` is not empty, it is kept under it until it has been downloaded."""

    type: Type
    data: Any
    ticket: str = ""


@dataclass(slots=True)
class Outcome:
    """What a task brought: values (with their bytes) and updates, a value on the host, an answer, or an error."""

    values: Sequence[tuple[Any, int]] = ()
    updates: Sequence[tuple[int, int]] = ()
    fetched: Fetched | None = None
    answer: m.Explained | m.Profiled | None = None
    error: TelegradError | None = None


@dataclass(slots=True)
class Ticket:
    """A value on the host that waits to be downloaded, and when all of it was sent."""

    data: Any
    stored: Stored
    sent_at: float | None = None


@dataclass(slots=True, eq=False)
class Session:
    """A session's names, queue and events."""

    id: str
    tenant: str
    secret: bytes
    lease_seconds: float | None  # None: embedded, lives as long as its process
    heard_at: float
    names: Names
    events: Events
    is_known: Callable[[bytes], bool]  # whether a function's bytes are there
    updated_by: Callable[[bytes], Iterable[int]]  # which inputs of a function are variables that it updates
    is_peers: bool = False  # whether another worker commands it, which may form groups
    received: int = 0
    acknowledged: int = 0
    is_over: bool = False
    queue: deque[tuple[int, m.Command]] = field(default_factory=deque[tuple[int, m.Command]])
    queued_bytes: int = 0
    under_way: Task | None = None
    tickets: dict[str, Ticket] = field(default_factory=dict[str, Ticket])
    errands: list[m.Pull | Offered] = field(default_factory=list[m.Pull | Offered])
    """What is to be got from other workers, or given to them, by whoever drives the machine."""
    _asked: bytes = b""
    _unacknowledged_bytes: int = 0

    @property
    def account(self) -> Account:
        """What pays for the session's values."""
        return self.names.account

    # ---- life

    def hear(self, now: float, event: int = 0) -> None:
        """A sign of life: the lease begins anew, and events up to a number have been handled."""
        self.heard_at = max(self.heard_at, now)
        self.events.hear(event)

    def has_expired(self, now: float) -> bool:
        """Whether the client has been silent for longer than its lease."""
        return self.lease_seconds is not None and now > self.heard_at + self.lease_seconds

    def end(self, error: m.ErrorRecord | None = None) -> int:
        """Free everything; returns how many names were freed. A task under way ends without effect."""
        if self.is_over:
            return 0
        self.is_over = True
        if isinstance(self.under_way, Answer):
            self.names.let_go(self.under_way.stored)
        for ticket in self.tickets.values():
            self.names.let_go(ticket.stored)
        self.tickets.clear()
        self.queue.clear()
        self.queued_bytes = 0
        self.errands.clear()
        self.events.clear()
        freed = self.names.clear()
        if error is not None:
            self.events.add(m.Ended(error))
        return freed

    def attach(self, heard_event: int) -> int:
        """A new stream: what the client has not heard is delivered again. Returns the received sequence."""
        self.events.hear(heard_event)
        self.events.deliver_again()
        self._note_acknowledged()
        if self._asked:
            self.events.add(m.FunctionNeeded(self._asked))
        return self.received

    # ---- the queue

    def receive(self, sequence: int, command: m.Command) -> None:
        """Take a command; `proceed` lets it take effect. One that was received before is ignored.

        Raises SessionError (SEQ_GAP) if one is missing before it, ResourceError if too much waits already.
        """
        if self.is_over:
            return
        if sequence <= self.received:
            self.acknowledged = max(0, min(self.acknowledged, sequence - 1))  # so that it is said again
            return
        if sequence != self.received + 1:
            raise SessionError(
                f"command {sequence} came after {self.received}; the ones between are missing", reason="SEQ_GAP"
            )
        cost = _cost(command)
        if self.queued_bytes + cost > REFUSED_BYTES:
            raise ResourceError(
                f"{len(self.queue)} commands wait already; a client stops when {WINDOW_BYTES >> 20} MiB are not"
                " acknowledged"
            )
        self.received = sequence
        self.queue.append((sequence, command))
        self.queued_bytes += cost
        self._unacknowledged_bytes += cost
        if sequence - self.acknowledged >= ACKNOWLEDGE_COMMANDS or self._unacknowledged_bytes >= ACKNOWLEDGE_BYTES:
            self.acknowledge()

    @property
    def has_room(self) -> bool:
        """Whether the client should send more."""
        return self.queued_bytes <= WINDOW_BYTES

    def acknowledge(self) -> None:
        """Tell the client what has been received, unless so much waits that it should stop.

        For batches and idle moments: an event for each command would halve the speed.
        """
        if self.received > self.acknowledged and self.has_room and not self.is_over:
            self._note_acknowledged()
            self.events.add(m.Acknowledged(self.received))

    def _note_acknowledged(self) -> None:
        self.acknowledged = self.received
        self._unacknowledged_bytes = 0

    def proceed(self) -> Task | None:
        """Let commands take effect until one needs a task, must wait, or none is left; returns that task."""
        had_room = self.has_room
        task: Task | None = None
        while self.under_way is None and self.queue and not self.events.is_full:
            sequence, command = self.queue[0]
            if self._must_wait(command):
                break
            self.queue.popleft()
            self.queued_bytes -= _cost(command)
            try:
                task = self.under_way = self._begin(sequence, command)
            except Blamed as blamed:
                self._fail(sequence, command, blamed.record)
            except TelegradError as error:
                self._fail(sequence, command, _record(error, sequence, command))
        if not had_room:
            self.acknowledge()
        return task

    @property
    def settled(self) -> int:
        """The last of the commands that are over, each with all before it: their bytes are no longer needed."""
        if self.under_way is not None:
            return self.under_way.sequence - 1
        return self.queue[0][0] - 1 if self.queue else self.received

    def supplied(self, function: bytes) -> None:
        """A function's bytes are there; `proceed` goes on with the Run that waited for them."""
        if self._asked == function:
            self._asked = b""

    def _must_wait(self, command: m.Command) -> bool:
        """Whether the command is parked: for a function's bytes, or for an upload."""
        match command:
            case m.Run():
                return self._must_ask(command.function) or self.names.any_arriving(command.inputs)
            case m.Explain():
                return self._must_ask(command.function)
            case m.Fetch() | m.Offer():
                return self.names.any_arriving((command.name,))
            case m.Alias():
                return self.names.any_arriving((command.source,))
            case _:
                return False

    def _must_ask(self, function: bytes) -> bool:
        """Whether a function's bytes are not there; asks for them."""
        if self.is_known(function):
            self._asked = b""
            return False
        if self._asked != function:
            self._asked = function
            self.events.add(m.FunctionNeeded(function))
        return True

    # ---- commands

    def _begin(self, sequence: int, command: m.Command) -> Task | None:
        names = self.names
        match command:
            case m.Run():
                return self._begin_run(sequence, command)
            case m.Put():
                return self._begin_put(sequence, command)
            case m.Fetch():
                return Answer(sequence, names.usable(command.name).hold())
            case m.Release():
                for name in command.names:
                    names.drop(name)
            case m.Expect():
                record = names.expect(command.name, command.scope, Announced(command.type, sequence))
                if record is not None:
                    self.events.add(m.Failed(sequence, record))
            case m.Pull():
                self._check_peer()
                names.expect(command.name, command.scope, Announced(command.type, sequence))
                self.errands.append(command)
            case m.Offer():
                self._check_peer()
                self.errands.append(Offered(command.key, names.usable(command.name).value))
            case m.Alias():
                stored = names.usable(command.source)
                names.check_new((command.name,), (command.scope,))
                names.add(command.name, command.scope, stored.hold())
            case m.OpenScope():
                names.check_room(1)
                names.scopes.open(command.scope, command.parent)
            case m.CloseScope():
                names.close_scope(command.scope, command.keep)
            case m.Resume():
                names.resume(command.sequence)
            case m.JoinGroup():
                self._check_peer()
                return Join(sequence, command)
            case m.Explain():
                return Describe(sequence, command)
            case m.Profile():
                return Clock(sequence, command)
        return None

    def _check_peer(self) -> None:
        if not self.is_peers:
            raise AccessError("only another worker may command this, not a client", reason="ACCESS_DENIED")

    def _begin_run(self, sequence: int, run: m.Run) -> Task:
        if run.group:
            self._check_peer()
        usable = self.names.usable
        operands = tuple([usable(name).value if name else None for name in run.inputs])
        if run.scopes and len(run.scopes) != len(run.outputs):
            raise GraphError(
                f"a Run gives {len(run.scopes)} scopes for {len(run.outputs)} results", reason="GRAPH_ARITY"
            )
        self.names.check_new([name for name in run.outputs if name], run.scopes or (run.scope,))
        return Execute(sequence, run, operands)

    def _begin_put(self, sequence: int, put: m.Put) -> Task:
        self.names.check_new((put.name,), (put.scope,))
        if len(put.data) != put.type.nbytes:
            raise DataCorrupt(f"{put.type} takes {put.type.nbytes} bytes, got {len(put.data)}", reason="DATA_LENGTH")
        self.account.check(put.type.nbytes)
        return Make(sequence, put)

    # ---- outcomes

    def finish(self, task: Task, outcome: Outcome) -> None:
        """A task is done; `proceed` begins the next one. A failed one, or one that does not fit, changes nothing."""
        assert task is self.under_way
        self.under_way = None
        if self.is_over:
            return
        error = outcome.error
        if error is None:
            try:
                self._commit(task, outcome)
            except TelegradError as refusal:
                error = refusal
        if error is not None:
            self._fail(task.sequence, _command_of(task), _record(error, task.sequence, _command_of(task)))
        if isinstance(task, Answer):
            self.names.let_go(task.stored)

    def _commit(self, task: Task, outcome: Outcome) -> None:
        match task:
            case Execute():
                self._commit_run(task.run, outcome)
            case Join():
                pass
            case Make():
                value, nbytes = outcome.values[0]
                self.account.check(nbytes)
                self.names.add(task.put.name, task.put.scope, Stored(value, nbytes, self.account))
            case Answer():
                fetched = outcome.fetched
                assert fetched is not None
                if fetched.ticket:
                    self.tickets[fetched.ticket] = Ticket(fetched.data, task.stored.hold())
                data = None if fetched.ticket else fetched.data
                self.events.add(m.Fetched(task.sequence, fetched.type, data, fetched.ticket))
            case Describe() | Clock():
                assert outcome.answer is not None
                self.events.add(replace(outcome.answer, sequence=task.sequence))

    def _commit_run(self, run: m.Run, outcome: Outcome) -> None:
        """Name the results and make the variables' next versions: all of it, after all of it is computed."""
        names, values = self.names, outcome.values
        targets = [(run.inputs[i], j) for i, j in outcome.updates]
        named = [(j, name) for j, name in enumerate(run.outputs) if name]
        wanted = {j for j, _ in named} | {j for _, j in targets}
        replaced = [names.usable(name) for name, _ in targets]
        self.account.check(
            sum([values[j][1] for j in wanted]) - sum([old.nbytes for old in replaced if not old.is_shared])
        )
        stored: dict[int, Stored] = {}
        uses = Counter([*[j for j, _ in named], *[j for _, j in targets]])

        def held(j: int) -> Stored:
            if j in stored:
                return stored[j].hold()
            stored[j] = Stored(*values[j], self.account)
            return stored[j]

        for j, name in named:
            names.add(name, run.scopes[j] if run.scopes else run.scope, held(j))
        for (name, j), old in zip(targets, replaced, strict=True):
            if uses[j] == 1 and not old.is_shared and old.nbytes == values[j][1]:
                names.freed.append(old.swap(values[j][0]))  # a step has many of these: the account stays as it is
            else:
                names.update(name, held(j))

    def _fail(self, sequence: int, command: m.Command, record: m.ErrorRecord) -> None:
        """The command has no effect; what it would have made carries the error, and its variables are held back."""
        names = self.names
        if isinstance(command, m.Run):
            for j, name in enumerate(command.outputs):
                names.fail(name, command.scopes[j] if j < len(command.scopes) else command.scope, record)
            updated = self.updated_by(command.function)
            names.hold_back((command.inputs[i] for i in updated if i < len(command.inputs)), record)
        elif isinstance(command, m.Offer):
            self.errands.append(Offered(command.key, error=record))
        elif isinstance(command, m.Put | m.Expect | m.Alias | m.Pull):
            names.fail(command.name, command.scope, record)
        self.events.add(m.Failed(sequence, record))

    # ---- uploads and downloads

    def uploaded(self, name: int, type: Type, value: Any, nbytes: int) -> None:
        """An upload is complete, before or after it was announced."""
        self._blame_upload(self.names.uploaded(name, type, value, nbytes))

    def upload_failed(self, name: int, type: Type, record: m.ErrorRecord) -> None:
        """An upload brought the wrong bytes: the command that announced it has failed, if it came already."""
        self._blame_upload(self.names.upload_failed(name, type, record))

    def _blame_upload(self, record: m.ErrorRecord | None) -> None:
        if record is not None:
            self.events.add(m.Failed(record.sequence, record))

    def downloaded(self, ticket: str) -> None:
        """The client has the bytes behind a ticket: it is used up."""
        found = self.tickets.pop(ticket, None)
        if found is not None:
            self.names.let_go(found.stored)

    def forget_downloads(self, sent_before: float) -> None:
        """Use up the tickets whose bytes were all sent before a time."""
        for ticket, found in list(self.tickets.items()):
            if found.sent_at is not None and found.sent_at < sent_before:
                self.downloaded(ticket)

    # ---- invariants

    def validate(self) -> None:
        """Assert what must always hold."""
        self.names.validate()
        self.events.validate()
        assert self.account.nbytes >= self.held_bytes()  # the rest: room for uploads under way
        assert self.acknowledged <= self.received
        assert self.queued_bytes == sum(_cost(command) for _, command in self.queue)
        assert [n for n, _ in self.queue] == list(range(self.received - len(self.queue) + 1, self.received + 1))
        assert not (self.is_over and (len(self.names) or self.queue or self.tickets or self.held_bytes()))

    def held_bytes(self) -> int:
        """The bytes of all values that somebody holds, each counted once."""
        held = {id(s): s.nbytes for s in self.names.stored()}
        held |= {id(t.stored): t.stored.nbytes for t in self.tickets.values()}
        if isinstance(self.under_way, Answer) and not self.is_over:
            held[id(self.under_way.stored)] = self.under_way.stored.nbytes
        return sum(held.values())


def _command_of(task: Task) -> m.Command:
    match task:
        case Execute():
            return task.run
        case Make():
            return task.put
        case Join():
            return task.group
        case Describe():
            return task.explain
        case Clock():
            return task.profile
        case Answer():
            return m.Fetch(0)


def function_of(task: Task) -> bytes:
    """The id of the function that a task is about; empty if it is about none."""
    command = _command_of(task)
    return command.function if isinstance(command, m.Run | m.Explain) else b""


def _record(error: TelegradError, sequence: int, command: m.Command) -> m.ErrorRecord:
    return to_record(
        error, sequence=sequence, function=command.function if isinstance(command, m.Run | m.Explain) else b""
    )


def _cost(command: m.Command) -> int:
    match command:
        case m.Run():
            return COMMAND_BYTES + len(command.immediates) + 8 * (len(command.inputs) + len(command.outputs))
        case m.Put():
            return COMMAND_BYTES + (0 if command.place else len(command.data))
        case m.Release():
            return COMMAND_BYTES + 8 * len(command.names)
        case m.CloseScope():
            return COMMAND_BYTES + 8 * len(command.keep)
        case _:
            return COMMAND_BYTES
