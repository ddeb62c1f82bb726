"""One session as a pure state machine: commands and outcomes go in, tasks and events come out.

It holds no thread, no clock and no socket, and never looks inside a value. Commands take effect once and in
the order of their numbers; at most one task is under way.

States of a name: *arriving* (announced, bytes on their way), *ready*, *failed* (its maker failed). A name may
also be *held back*: it is a variable that a failed Run would have updated, so nobody may use it until the
client has raised the error (Resume), else training would go on past a missing step.

The queue is *parked* while its head waits for a function's bytes or for an upload.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from telegrad.errors import GraphError, NotFound, QuotaExceeded, SessionError, TelegradError
from telegrad.ir.types import Type
from telegrad.wire import messages as m
from telegrad.wire.status import to_record

from telegrad_server.scopes import ScopeTree

ACKNOWLEDGE_EVERY = 64


@dataclass(slots=True)
class Entry:
    """What a name means: its value once ready, or why there is none."""

    value: Any = None
    nbytes: int = 0
    arriving: Type | None = None
    error: m.ErrorRecord | None = None
    held_back: m.ErrorRecord | None = None


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
    value: Any


Task = Execute | Make | Answer


@dataclass(slots=True)
class Outcome:
    """What a task brought: values (with their bytes) and updates, or an error."""

    values: Sequence[tuple[Any, int]] = ()
    updates: Sequence[tuple[int, int]] = ()
    error: TelegradError | None = None


@dataclass(slots=True, eq=False)
class Session:
    """A session's names, scopes, queue and events."""

    id: str
    tenant: str
    secret: bytes
    lease_seconds: float | None  # None: embedded, lives as long as its process
    heard_at: float
    is_known: Callable[[bytes], bool]  # whether a function's bytes are there
    updated_by: Callable[[m.Run], Sequence[int]]  # which inputs of a Run are variables that it updates
    max_bytes: int = 1 << 60
    max_names: int = 1 << 60
    received: int = 0
    acknowledged: int = 0
    is_over: bool = False
    nbytes: int = 0
    names: dict[int, Entry] = field(default_factory=dict[int, Entry])
    scopes: ScopeTree = field(default_factory=ScopeTree)
    queue: deque[tuple[int, m.Command]] = field(default_factory=deque[tuple[int, m.Command]])
    under_way: Task | None = None
    early: dict[int, tuple[Type, Any, int]] = field(default_factory=dict[int, tuple[Type, Any, int]])
    asked: bytes = b""
    event: int = 0
    heard_event: int = 0
    unheard: deque[tuple[int, m.Event]] = field(default_factory=deque[tuple[int, m.Event]])
    outbox: deque[tuple[int, m.Event]] = field(default_factory=deque[tuple[int, m.Event]])
    tickets: dict[str, Any] = field(default_factory=dict[str, Any])

    # ---- life

    def hear(self, now: float) -> None:
        """A sign of life: the lease begins anew."""
        self.heard_at = max(self.heard_at, now)

    def has_expired(self, now: float) -> bool:
        """Whether the client has been silent for longer than its lease."""
        return self.lease_seconds is not None and now > self.heard_at + self.lease_seconds

    def end(self, error: m.ErrorRecord | None = None) -> int:
        """Free everything; returns how many names were freed."""
        freed = len(self.names)
        self.is_over = True
        self.names.clear()
        self.scopes = ScopeTree()
        self.queue.clear()
        self.early.clear()
        self.tickets.clear()
        self.nbytes = 0
        self.unheard.clear()
        if error is not None:
            self._emit(m.Ended(error))
        return freed

    # ---- events

    def _emit(self, event: m.Event) -> None:
        self.event += 1
        self.outbox.append((self.event, event))
        if not isinstance(event, m.Acknowledged):  # a new stream is told the received sequence anyway
            self.unheard.append((self.event, event))

    def heard(self, event: int) -> None:
        """The client has handled the events up to this number."""
        self.heard_event = max(self.heard_event, event)
        while self.unheard and self.unheard[0][0] <= event:
            self.unheard.popleft()

    def acknowledge(self) -> None:
        """Tell the client what has been received. For batches and idle moments: an event each would halve the speed."""
        if self.received > self.acknowledged and not self.is_over:
            self.acknowledged = self.received
            self._emit(m.Acknowledged(self.received))

    def attach(self, heard_event: int) -> int:
        """A new stream: what the client has not heard is delivered again. Returns the received sequence."""
        self.heard(heard_event)
        self.outbox = deque(self.unheard)
        self.acknowledged = self.received
        if self.asked:
            self._emit(m.FunctionNeeded(self.asked))
        return self.received

    # ---- commands

    def receive(self, sequence: int, command: m.Command) -> Task | None:
        """Take a command; returns the task to begin, if any. SessionError (SEQ_GAP) if one is missing before it."""
        if sequence <= self.received:
            return None
        if sequence != self.received + 1:
            raise SessionError(
                f"command {sequence} came after {self.received}; the ones between are missing", reason="SEQ_GAP"
            )
        self.received = sequence
        self.queue.append((sequence, command))
        return self.proceed()

    def proceed(self) -> Task | None:
        """Let commands take effect until one needs a task, must wait, or none is left; returns that task."""
        task: Task | None = None
        while self.under_way is None and self.queue and not self.is_over:
            sequence, command = self.queue[0]
            try:
                if self._must_wait(command):
                    break
                self.queue.popleft()
                task = self._begin(sequence, command)
            except _Blamed as blamed:
                self._fail(sequence, command, blamed.record)
                continue
            except TelegradError as error:
                self._fail(sequence, command, to_record(error, sequence=sequence, function=_function_of(command)))
                continue
            if task is not None:
                self.under_way = task
        if self.received - self.acknowledged >= ACKNOWLEDGE_EVERY:
            self.acknowledge()
        return task if self.under_way is task else None

    def _must_wait(self, command: m.Command) -> bool:
        """Whether the command is parked: for a function's bytes, or for an upload."""
        if isinstance(command, m.Run):
            if not self.is_known(command.function):
                if self.asked != command.function:
                    self.asked = command.function
                    self._emit(m.FunctionNeeded(command.function))
                return True
            return any(self._is_arriving(name) for name in command.inputs if name)
        if isinstance(command, m.Fetch):
            return self._is_arriving(command.name)
        if isinstance(command, m.Alias):
            return self._is_arriving(command.source)
        return False

    def _is_arriving(self, name: int) -> bool:
        entry = self.names.get(name)
        return entry is not None and entry.arriving is not None

    def _begin(self, sequence: int, command: m.Command) -> Task | None:
        match command:
            case m.Run():
                return self._begin_run(sequence, command)
            case m.Put():
                self._check_new((command.name,), (command.scope,))
                return Make(sequence, command)
            case m.Expect():
                self._expect(command)
            case m.Alias():
                entry = self._usable(command.source)
                self._check_new((command.name,), (command.scope,))
                self._add(command.name, command.scope, Entry(entry.value, entry.nbytes))
            case m.Release():
                for name in command.names:
                    self._drop(name)
            case m.Fetch():
                return Answer(sequence, self._usable(command.name).value)
            case m.OpenScope():
                self.scopes.open(command.scope, command.parent)
            case m.CloseScope():
                for name in self.scopes.close(command.scope, command.keep):
                    self._forget(name)
            case m.Resume():
                self._resume(command.sequence)
        return None

    def _begin_run(self, sequence: int, run: m.Run) -> Task | None:
        blame = self._blame(run)
        if blame is not None:
            self._poison(run, blame)
            self._emit(m.Failed(sequence, blame))
            return None
        self._check_new([n for n in run.outputs if n], set(run.scopes) | {run.scope})
        if run.scopes and len(run.scopes) != len(run.outputs):
            raise GraphError(f"a Run has {len(run.scopes)} scopes for {len(run.outputs)} results")
        operands = tuple([self._usable(n).value if n else None for n in run.inputs])
        return Execute(sequence, run, operands)

    def _blame(self, run: m.Run) -> m.ErrorRecord | None:
        """The error that keeps the Run from being run, if one of its operands failed or is held back."""
        for name in run.inputs:
            entry = self.names.get(name) if name else None
            if entry is not None and (entry.error or entry.held_back):
                return entry.error or entry.held_back
        return None

    def _usable(self, name: int) -> Entry:
        entry = self.names.get(name)
        if entry is None:
            raise NotFound(f"there is no tensor of name {name} in this session", reason="NAME_UNKNOWN", name=name)
        blame = entry.error or entry.held_back
        if blame is not None:
            raise _Blamed(blame)
        return entry

    def _check_new(self, names: Sequence[int], scopes: Sequence[int] | set[int]) -> None:
        for scope in scopes:
            self.scopes.check(scope)
        for name in names:
            if name in self.names or name <= 0:
                raise GraphError(f"the name {name} is in use already", reason="NAME_REUSED", name=name)
        if len(set(names)) != len(names):
            raise GraphError("a Run names two results alike", reason="NAME_REUSED")
        if len(self.names) + len(names) > self.max_names:
            raise QuotaExceeded(f"a session may hold {self.max_names} tensors", reason="QUOTA_TENSORS")

    # ---- outcomes

    def finish(self, task: Task, outcome: Outcome) -> Task | None:
        """A task is done; returns the next one."""
        assert task is self.under_way
        self.under_way = None
        if self.is_over:
            return None
        error = outcome.error
        added = sum(nbytes for _, nbytes in outcome.values)
        if error is None and not isinstance(task, Answer) and self.nbytes + added > self.max_bytes:
            error = QuotaExceeded(
                f"the results of {added} bytes do not fit: the session holds {self.nbytes} of {self.max_bytes} bytes"
            )
        if error is not None:
            command: m.Command
            command = task.run if isinstance(task, Execute) else task.put if isinstance(task, Make) else m.Fetch(0)
            record = to_record(error, sequence=task.sequence, function=_function_of(command))
            self._fail(task.sequence, command, record)
        elif isinstance(task, Execute):
            self._commit(task.run, outcome)
        elif isinstance(task, Make):
            value, nbytes = outcome.values[0]
            self._add(task.put.name, task.put.scope, Entry(value, nbytes))
        return self.proceed()

    def answered(self, sequence: int, type: Type, *, data: bytes | None, ticket: str = "", value: Any = None) -> None:
        """A fetched value is on the host: here it is, or here is a ticket for it."""
        if ticket:
            self.tickets[ticket] = value
        self._emit(m.Fetched(sequence, type, data, ticket))

    def _commit(self, run: m.Run, outcome: Outcome) -> None:
        """Name the results and make the variables' next versions: all of it, after all of it is computed."""
        for i, (name, (value, nbytes)) in enumerate(zip(run.outputs, outcome.values, strict=True)):
            if name:
                self._add(name, run.scopes[i] if run.scopes else run.scope, Entry(value, nbytes))
        for i, j in outcome.updates:
            entry = self.names.get(run.inputs[i])
            if entry is not None:
                value, nbytes = outcome.values[j]
                self.nbytes += nbytes - entry.nbytes
                entry.value, entry.nbytes = value, nbytes

    def _fail(self, sequence: int, command: m.Command, record: m.ErrorRecord) -> None:
        if isinstance(command, m.Run):
            self._poison(command, record)
        elif isinstance(command, m.Put | m.Expect | m.Alias) and command.name not in self.names:
            self._add_failed(command.name, command.scope, record)
        self._emit(m.Failed(sequence, record))

    def _poison(self, run: m.Run, record: m.ErrorRecord) -> None:
        """The Run's results carry the error; variables that it may have updated are held back."""
        for i, name in enumerate(run.outputs):
            if name and name not in self.names:
                self._add_failed(name, run.scopes[i] if i < len(run.scopes) else run.scope, record)
        for i in self.updated_by(run):
            entry = self.names.get(run.inputs[i])
            if entry is not None and entry.error is None and entry.held_back is None:
                entry.held_back = record

    def _resume(self, sequence: int) -> None:
        for entry in self.names.values():
            if entry.held_back is not None and entry.held_back.sequence == sequence:
                entry.held_back = None

    # ---- names

    def _add(self, name: int, scope: int, entry: Entry) -> None:
        self.names[name] = entry
        self.nbytes += entry.nbytes
        self.scopes.add(name, scope)

    def _add_failed(self, name: int, scope: int, record: m.ErrorRecord) -> None:
        self._add(name, scope if scope in self.scopes else m.ROOT_SCOPE, Entry(error=record))

    def _drop(self, name: int) -> None:
        self.early.pop(name, None)
        if name in self.names:
            self.scopes.drop(name)
            self._forget(name)

    def _forget(self, name: int) -> None:
        self.nbytes -= self.names.pop(name).nbytes

    # ---- uploads

    def _expect(self, command: m.Expect) -> None:
        self._check_new((command.name,), (command.scope,))
        if self.nbytes + command.type.nbytes > self.max_bytes:
            raise QuotaExceeded(
                f"{command.type} does not fit: the session holds {self.nbytes} of {self.max_bytes} bytes"
            )
        self._add(command.name, command.scope, Entry(arriving=command.type))
        early = self.early.pop(command.name, None)
        if early is not None:
            self._arrive(command.name, *early)

    def uploaded(self, name: int, type: Type, value: Any, nbytes: int) -> Task | None:
        """An upload is complete, before or after it was announced; returns the task that waited for it."""
        if self.is_over:
            return None
        if self._is_arriving(name):
            self._arrive(name, type, value, nbytes)
        elif name not in self.names:
            self.early[name] = (type, value, nbytes)
        return self.proceed()

    def _arrive(self, name: int, type: Type, value: Any, nbytes: int) -> None:
        entry = self.names[name]
        if entry.arriving != type:
            message = f"the upload of {name} is {type}, announced was {entry.arriving}"
            entry.error = m.ErrorRecord("DATA_LENGTH", message)
        else:
            entry.value, entry.nbytes = value, nbytes
            self.nbytes += nbytes
        entry.arriving = None

    def upload_failed(self, name: int, record: m.ErrorRecord) -> Task | None:
        """An upload brought the wrong bytes: nothing waits for it any longer."""
        entry = self.names.get(name)
        if entry is not None and entry.arriving is not None:
            entry.arriving, entry.error = None, record
        return self.proceed()

    def supplied(self, function: bytes) -> Task | None:
        """A function's bytes are there; returns the task that waited for them."""
        if self.asked == function:
            self.asked = b""
        return self.proceed()

    # ---- invariants

    def validate(self) -> None:
        """Assert what must always hold."""
        self.scopes.validate(self.names)
        assert self.nbytes == sum(entry.nbytes for entry in self.names.values())
        assert self.heard_event <= self.event
        assert self.acknowledged <= self.received
        assert all(n > self.heard_event for n, _ in self.unheard)
        assert not (self.is_over and (self.names or self.queue))
        for entry in self.names.values():
            assert sum(x is not None for x in (entry.arriving, entry.error)) <= 1


class _Blamed(TelegradError):
    """Carries the record of an earlier failure to the command that needs its result."""

    def __init__(self, record: m.ErrorRecord) -> None:
        super().__init__(record.message, reason=record.reason)
        self.record = record


def _function_of(command: m.Command) -> bytes:
    return command.function if isinstance(command, m.Run) else b""
