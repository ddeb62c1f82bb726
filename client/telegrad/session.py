"""Session: a client's presence on a server. `connect` opens one.

The session is the home of eager tensors. It remembers by weak references which of them somebody still
holds, sends what is pending as a function with its operands, and turns what comes back into arrays or
errors with the line of the user's program.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any
from weakref import ref

import numpy as np
import numpy.typing as npt

from telegrad import context
from telegrad.critical import Critical
from telegrad.errors import SessionError, TelegradError, TimedOut, UnknownOp
from telegrad.ir import types
from telegrad.ir.types import DType, Type
from telegrad.ir.value import Number, Value, apply
from telegrad.lazy import (
    Handle,
    Immediate,
    Leaf,
    Line,
    Live,
    Source,
    Version,
    Watch,
    caller,
    check_version,
    extract,
    show,
)
from telegrad.prepared import Prepared
from telegrad.scope import Scope, Scopes
from telegrad.tensor import Tensor, Variable
from telegrad.transport import Connection
from telegrad.wire import messages as m
from telegrad.wire.arrays import array_bytes, array_from, numpy_dtype, type_of
from telegrad.wire.status import to_exception

IMMEDIATE_BYTES = 1024  # tensors up to this size stay on the client until a Run needs them
EAGER_SUPPLY_BYTES = 64 * 1024  # functions up to this size are sent before anybody asks
PENDING_TENSORS = 10_000  # so a loop that reads nothing does not grow
RELEASE_BATCH = 256
REMEMBERED_RUNS = 4096
REMEMBERED_BYTES = 64 << 20

Answers = SimpleQueue["m.Fetched | m.Failed | None"]
"""Where the answer to a Fetch arrives; None if the session is lost before."""


class Session:
    """A connection with its tensors, variables and scopes. Leaving its ``with`` block frees everything.

    Made by `connect`. ``seed`` starts the random numbers: the same program draws the same numbers.
    """

    is_trace = False

    def __init__(self, connection: Connection, *, key: object, seed: int) -> None:
        self._connection = connection
        self._key = key
        self.seed = seed
        self.calls = 0  # the only state of random numbers
        self.scopes = Scopes(self)
        self.critical = Critical(connection.wait_for_room)  # commands are numbered and sent in here
        self._sequence = 0
        self._last_name = 0
        self._pending: list[ref[Tensor]] = []
        self._updates: dict[Variable, tuple[Value, Line | None]] = {}
        self._watches: dict[int, Watch] = {}  # by name, of handles that somebody holds
        self._forgotten: deque[Watch] = deque()
        self._supplied: set[bytes] = set()
        self._functions: OrderedDict[bytes, bytes] = OrderedDict()
        self._function_bytes = 0
        self._run_lines: OrderedDict[int, tuple[Line | None, ...]] = OrderedDict()
        self._answers: dict[int, Answers] = {}  # by Fetch, while somebody waits
        self._failures: dict[int, m.ErrorRecord] = {}
        self._lost: TelegradError | None = None
        self.is_closed = False

    # ---- what it is

    @property
    def session(self) -> Session:
        """The session itself; a trace's ``session`` is the one it is traced for."""
        return self

    @property
    def backend(self) -> str:
        """What computes on the server: "numpy" or "cupy"."""
        return self._connection.greeting.backend

    @property
    def fingerprint(self) -> str:
        """Everything that decides the bits of a result on this server, in words."""
        return self._connection.greeting.fingerprint

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the server wants a person to know."""
        return self._connection.greeting.warnings

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "open"
        return f"<Session {self._key!r} on {self.backend}, {state}>"

    # ---- life

    def open(self) -> None:
        """Open the connection; called by `connect`."""
        self._connection.open(self._hear, self._lose, self._upload_failed)
        context.push_session(self)

    def __enter__(self) -> Session:
        if self.is_closed:
            raise SessionError("the session is closed; connect again", reason="SESSION_CLOSED")
        context.drop_session(self)
        context.push_session(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close(check=kind is None)

    @contextmanager
    def active(self) -> Generator[Session, None, None]:
        """Make this the current session inside the ``with``, and leave it open: for programs that have several."""
        context.push_session(self)
        try:
            yield self
        finally:
            context.pop_session()

    def close(self, *, check: bool = True) -> None:
        """Free everything on the server. With ``check``, first wait and raise an error that nobody has read."""
        if self.is_closed:
            return
        try:
            if check and self._lost is None:
                self.synchronize()
        finally:
            self.is_closed = True
            self.scopes.root.is_closed = True
            context.drop_session(self)
            self._connection.close()

    def scope(self) -> Scope:
        """A new scope for a ``with`` block: what is made inside is freed when it is left."""
        return self.scopes.new()

    def synchronize(self) -> None:
        """Send what is pending, wait until the server has run it, and raise an error that nobody has read."""
        self.flush()

        def send_marker() -> Handle:
            marker = self.new_handle()
            self._send(m.Put(marker.name, Type((), types.uint8), b"\0"))
            return marker

        self._ask(send_marker, timeout_seconds=None)

    # ---- the home of eager tensors

    def value_of(self, tensor: Tensor) -> Value:
        """The tensor's value, if it may be used here."""
        if tensor._home is not self:  # pyright: ignore[reportPrivateUsage]
            raise self._stranger(tensor)
        return tensor.value

    def _stranger(self, tensor: Tensor) -> TelegradError:
        if tensor._home.is_trace:  # pyright: ignore[reportPrivateUsage]
            return tensor._scope.refusal(tensor.type)  # pyright: ignore[reportPrivateUsage]
        return SessionError("the operands belong to different sessions; download one with numpy() and upload it again")

    def tensor(self, value: Value, *, requires_grad: bool = False, weak: bool = False) -> Tensor:
        """A handle on a value, pending until somebody needs it."""
        tensor = Tensor(value, self, self.scopes.current, requires_grad=requires_grad, weak=weak)
        self.watch(tensor)
        return tensor

    def watch(self, tensor: Tensor) -> None:
        """Remember that somebody may hold this tensor when the graph is sent."""
        if self.is_closed:
            raise SessionError("the session is closed; connect again", reason="SESSION_CLOSED")
        if context.REGION.get() is not None:
            return
        self._pending.append(ref(tensor))
        if len(self._pending) >= PENDING_TENSORS:
            self.flush()

    def number(self, number: Number, dtype: DType) -> Tensor:
        """A Python number as an operand: an input of the graph, so an eager loop compiles once."""
        from telegrad.ops.elementwise import literal_op

        constant = literal_op(number, dtype)
        if context.REGION.get() is not None:
            return self.tensor(apply(constant, (), origin=caller())[0])
        data = np.asarray(constant.value, dtype=numpy_dtype(dtype)).tobytes()
        return Tensor(Value(Leaf(Type((), dtype), Immediate(data))), self, self.scopes.current)

    def from_numpy(self, array: npt.NDArray[Any]) -> Tensor:
        """A tensor with the contents that the array has now."""
        type = type_of(array)
        if type.nbytes <= IMMEDIATE_BYTES:
            leaf = Leaf(type, Immediate(bytes(array_bytes(array))))
        else:
            leaf = Leaf(type, self.upload(array, scope=self.scopes.current))
        return Tensor(Value(leaf), self, self.scopes.current)

    def live(self, type: Type, getter: Any) -> Tensor:
        """The bytes that ``getter`` gives now, as a tensor."""
        return Tensor(Value(Leaf(type, Immediate(getter()))), self, self.scopes.current)

    def random_key(self) -> tuple[Tensor, int]:
        """The key of the next random numbers, and the stream within it."""
        self.calls += 1
        return self.live(Type((4,), types.uint32), lambda: key_bytes(self.seed, self.calls)), 0

    def assign(self, variable: Variable, value: Value, line: Line | None) -> None:
        """Make ``value`` the variable's next version when the graph is sent."""
        with self.critical:
            variable._value = value  # pyright: ignore[reportPrivateUsage]
            self._updates[variable] = (value, line)

    # ---- names

    def _new_name(self) -> int:
        self._last_name += 1
        return self._last_name

    def new_handle(self) -> Handle:
        """A handle on a new name, for a command that will make it."""
        handle = Handle(self._new_name())
        self._watches[handle.name] = Watch(handle, self._forgotten.append)
        return handle

    def _send(self, command: m.Command, answers: Answers | None = None) -> int:
        if self._lost is not None:
            raise self._lost
        if self.is_closed:
            raise SessionError("the session is closed; connect again", reason="SESSION_CLOSED")
        if len(self._forgotten) >= RELEASE_BATCH:
            self._release()
        return self._send_next(command, answers)

    def _send_next(self, command: m.Command, answers: Answers | None = None) -> int:
        self._sequence += 1
        if answers is not None:
            self._answers[self._sequence] = answers  # first: in process the answer comes before `send` returns
        self._connection.send(self._sequence, command)
        return self._sequence

    def _release(self) -> None:
        names: list[int] = []
        while self._forgotten:
            names.append(self._forgotten.popleft().name)
            del self._watches[names[-1]]
        if names and self._lost is None and not self.is_closed:
            self._send_next(m.Release(tuple(names)))

    def release(self) -> None:
        """Tell the server now which names are no longer wanted, without waiting for a batch to fill."""
        with self.critical:
            self._release()

    def upload(self, array: npt.NDArray[Any], *, scope: Scope) -> Handle:
        """Give the server a copy of the array under a new name."""
        type = type_of(array)
        with self.critical:
            handle = self.new_handle()
            if type.nbytes <= m.INLINE_BYTES:
                self._send(m.Put(handle.name, type, bytes(array_bytes(array)), scope.number))
                return handle
            self._send(m.Expect(handle.name, type, scope.number))
        self._connection.upload(handle.name, type, array)
        return handle

    def new_variable(self, variable: Variable, tensor: Tensor) -> Handle:
        """A name of the variable's own, with the tensor's value as its first version."""
        value = tensor.value
        node = value.node
        with self.critical:
            scope = variable._scope  # pyright: ignore[reportPrivateUsage]
            if isinstance(node, Leaf) and isinstance(node.source, Immediate):
                handle = self.new_handle()
                self._send(m.Put(handle.name, value.type, node.source.data, scope.number))
                return handle
            source = self.handle_of(tensor)
            handle = self.new_handle()
            self._send(m.Alias(handle.name, source.name, scope.number))
            return handle

    def handle_of(self, tensor: Tensor) -> Handle:
        """The tensor's name on the server; sends what is pending if it has none yet."""
        node = tensor.value.node
        if not isinstance(node, Leaf):
            self.flush()
            node = tensor.value.node
        assert isinstance(node, Leaf)
        source = node.source
        if isinstance(source, Handle):
            return source
        if isinstance(source, Version):
            check_version(source)
            return source.variable.handle
        assert isinstance(source, Immediate)
        with self.critical:
            handle = self.new_handle()
            self._send(m.Put(handle.name, node.types[0], source.data, tensor._scope.number))  # pyright: ignore[reportPrivateUsage]
        tensor._value = Value(Leaf(node.types[0], handle))  # pyright: ignore[reportPrivateUsage]
        return handle

    # ---- sending graphs

    def flush(self) -> None:
        """Send everything that is pending: values that somebody holds, and updates of variables."""
        with self.critical:
            live, updates = self._take_pending()
            if not live and not updates:
                return
            slots: dict[Value, int] = {}
            for tensor in live:
                slots.setdefault(tensor._value, len(slots))  # pyright: ignore[reportPrivateUsage]
            for value, _ in updates.values():
                slots.setdefault(value, len(slots))
            variables = [variable.leaf for variable in updates]
            extracted = extract(list(slots), variables)
            pairs = [(i, slots[value]) for i, (value, _) in enumerate(updates.values())]
            names = [0] * len(slots)
            scopes = [0] * len(slots)
            handles: dict[Value, Handle] = {}
            for tensor in live:
                value = tensor._value  # pyright: ignore[reportPrivateUsage]
                if value not in handles:
                    handles[value] = self.new_handle()
                    names[slots[value]] = handles[value].name
                    scopes[slots[value]] = tensor._scope.number  # pyright: ignore[reportPrivateUsage]
            self.run(Prepared(extracted, pairs), self.bind(extracted.sources), names, scopes)
            for tensor in live:
                self._settle(tensor, handles)
            for variable, (_, line) in updates.items():
                self.updated(variable, line)

    def _take_pending(self) -> tuple[list[Tensor], dict[Variable, tuple[Value, Line | None]]]:
        pending, self._pending = self._pending, []
        updates, self._updates = self._updates, {}
        live: list[Tensor] = []
        seen: set[int] = set()
        for reference in pending:
            tensor = reference()
            if tensor is None or id(tensor) in seen or tensor._scope.is_closed or isinstance(tensor, Variable):  # pyright: ignore[reportPrivateUsage]
                continue
            if not isinstance(tensor._value.node, Leaf):  # pyright: ignore[reportPrivateUsage]
                seen.add(id(tensor))
                live.append(tensor)
        return live, updates

    def _settle(self, tensor: Tensor, handles: dict[Value, Handle]) -> None:
        """Let the tensor mean its name on the server; its definition stays where gradients may need it."""
        value = tensor._value  # pyright: ignore[reportPrivateUsage]
        kept = value if tensor.requires_grad or context.DEFINITIONS.get() else None
        leaf = Leaf(value.type, handles[value], definition=kept)
        tensor._value = Value(leaf)  # pyright: ignore[reportPrivateUsage]

    def updated(self, variable: Variable, line: Line | None) -> None:
        """A Run that makes the variable's next version has been sent."""
        variable.version += 1
        variable.updated_at = line
        variable.read_version()

    def bind(self, sources: Sequence[Source]) -> list[int | bytes]:
        """For each source its name, or its bytes."""
        bound: list[int | bytes] = []
        for source in sources:
            if isinstance(source, Handle):
                bound.append(source.name)
            elif isinstance(source, Immediate):
                bound.append(source.data)
            elif isinstance(source, Version):
                bound.append(source.variable.handle.name)
            elif isinstance(source, Live):
                bound.append(source.getter())
            else:
                raise AssertionError(f"{source} is no operand of an eager graph")
        return bound

    def run(
        self, function: Prepared, operands: Sequence[int | bytes], names: Sequence[int], scopes: Sequence[int]
    ) -> int:
        """Send one Run; returns its sequence number."""
        immediates = [x for x in operands if isinstance(x, bytes)]
        inputs = tuple([0 if isinstance(x, bytes) else x for x in operands])
        scope = scopes[0] if scopes else 0
        mixed = tuple(scopes) if any(s != scope for s in scopes) else ()
        with self.critical:
            if function.id not in self._functions:
                self._introduce(function)
            command = m.Run(function.id, inputs, tuple(names), b"".join(immediates), scope, mixed)
            sequence = self._send(command)
            self._run_lines[sequence] = function.lines
            if len(self._run_lines) > REMEMBERED_RUNS:
                self._run_lines.popitem(last=False)
        return sequence

    def _introduce(self, function: Prepared) -> None:
        unknown = function.ops - self._connection.greeting.ops
        if unknown:
            version = self._connection.greeting.server_version
            raise UnknownOp(
                f"the server (telegrad {version}) does not know the op {min(unknown)!r}; upgrade the server"
            )
        self._functions[function.id] = function.data
        self._function_bytes += len(function.data)
        while self._function_bytes > REMEMBERED_BYTES and len(self._functions) > 1:
            _, data = self._functions.popitem(last=False)
            self._function_bytes -= len(data)
        if len(function.data) <= EAGER_SUPPLY_BYTES:
            self._connection.supply(function.id, function.data)

    # ---- scopes on the server

    def open_scope(self, scope: Scope) -> None:
        """Tell the server of a new scope."""
        assert scope.parent is not None
        with self.critical:
            self._send(m.OpenScope(scope.number, scope.parent.number))

    def close_scope(self, scope: Scope, kept: Sequence[Tensor]) -> None:
        """Move ``kept`` to the parent, send what they and outer tensors still need, and free the rest."""
        assert scope.parent is not None
        with self.critical:
            for tensor in kept:
                tensor._scope = scope.parent  # pyright: ignore[reportPrivateUsage]
            scope.is_closed = True
            if self.is_closed or self._lost is not None:
                return
            self.flush()
            names: list[int] = []
            for tensor in kept:
                node = tensor._value.node  # pyright: ignore[reportPrivateUsage]
                if isinstance(tensor, Variable):
                    names.append(tensor.handle.name)
                elif isinstance(node, Leaf) and isinstance(node.source, Handle):
                    names.append(node.source.name)
            self._send(m.CloseScope(scope.number, tuple(names)))

    # ---- what comes back

    def fetch(self, tensor: Tensor, *, timeout_seconds: float | None = None) -> npt.NDArray[Any]:
        """The tensor's elements as an array of the caller's own."""
        node = tensor.value.node
        if isinstance(node, Leaf) and isinstance(node.source, Immediate):
            return np.array(array_from(node.types[0], node.source.data))

        def send_pending() -> Handle:
            handle = self.handle_of(tensor)
            if isinstance(tensor, Variable) and self._updates:
                self.flush()
            return handle

        answer = self._ask(send_pending, timeout_seconds=timeout_seconds)
        if answer.data is not None:
            return np.array(array_from(answer.type, answer.data))
        try:
            return self._connection.download(answer.type, answer.ticket)
        except KeyboardInterrupt:
            self._connection.dismiss(answer.type, answer.ticket)
            raise

    def _ask(self, send: Callable[[], Handle], *, timeout_seconds: float | None) -> m.Fetched:
        """Send a Fetch and wait for its answer; ``send`` first sends what the tensor needs, and gives its handle."""
        answers: Answers = SimpleQueue()
        sequence = 0
        try:
            with self.critical:
                handle = send()
                sequence = self._send(m.Fetch(handle.name), answers)
            answer = answers.get(timeout=timeout_seconds)
        except Empty:
            raise TimedOut(f"no answer within {timeout_seconds} s; the session goes on") from None
        finally:
            self._answers.pop(sequence, None)
            self._dismiss(answers)  # when the wait was given up at this very moment
        if answer is None:
            assert self._lost is not None
            raise self._lost
        if isinstance(answer, m.Failed):
            raise self._raised(answer.error)
        unread = min(tuple(self._failures), default=None)
        if unread is not None:
            raise self._raised(self._failures[unread])
        return answer

    def _dismiss(self, answers: Answers) -> None:
        """Let the server free what was brought for somebody who no longer waits."""
        while True:
            try:
                answer = answers.get_nowait()
            except Empty:
                return
            if isinstance(answer, m.Fetched) and answer.ticket:
                self._connection.dismiss(answer.type, answer.ticket)

    def _raised(self, record: m.ErrorRecord) -> TelegradError:
        """The exception for a record, with the user's line; tells the server that the user knows."""
        self._failures.pop(record.sequence, None)
        if record.sequence and self._lost is None:
            with self.critical:
                self._send_next(m.Resume(record.sequence))
        error = to_exception(record)
        lines = self._run_lines.get(record.sequence, ())
        if 0 <= record.node < len(lines) and lines[record.node] is not None:
            where = show(lines[record.node])
            error.location = f"{where} (in the gradient of the op built there)" if record.is_backward else where
        return error

    def _hear(self, event: m.Event) -> None:
        """An event from the server, on the connection's thread."""
        if isinstance(event, m.FunctionNeeded):
            data = self._functions.get(event.function)
            if data is not None:
                self._connection.supply(event.function, data)
            return
        if isinstance(event, m.Ended):
            self._lose(to_exception(event.error))
            return
        if not isinstance(event, (m.Fetched, m.Failed)):
            return
        answers = self._answers.get(event.sequence, None)
        if answers is not None:
            answers.put(event)
            if event.sequence not in self._answers:
                self._dismiss(answers)
        elif isinstance(event, m.Fetched):
            if event.ticket:
                self._connection.dismiss(event.type, event.ticket)
        elif event.error.sequence == event.sequence:
            self._failures[event.sequence] = event.error

    def _upload_failed(self, name: int, record: m.ErrorRecord) -> None:
        """The bytes of a tensor never got there, on a thread that uploads: no Run may wait for it."""
        with self.critical:
            if self._lost is None and not self.is_closed:
                self._send_next(m.Release((name,)))
        self._failures[0] = record

    def _lose(self, error: TelegradError) -> None:
        """Nothing more will come."""
        self._lost = error
        for answers in list(self._answers.values()):
            answers.put(None)

    @property
    def is_live(self) -> bool:
        """Whether the session can still be used."""
        return not self.is_closed and self._lost is None and self._connection.is_open


def key_bytes(seed: int, call: int) -> bytes:
    """The key of a call's random numbers: uint32[4] of the seed's and the call's halves."""
    return np.array([seed & 0xFFFFFFFF, seed >> 32, call & 0xFFFFFFFF, call >> 32], dtype="<u4").tobytes()
