"""Session: a client's presence on a server. `connect` opens one.

The session is the home of eager tensors. It remembers by weak references which of them somebody still
holds, and makes of what is pending a function with its operands; `commands.py` sends it and waits for answers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref

import numpy as np
import numpy.typing as npt

from telegrad import context
from telegrad.commands import Commands
from telegrad.datasets import Dataset, Datasets
from telegrad.errors import SessionError, TelegradError
from telegrad.ir import types
from telegrad.ir.types import DType, Type
from telegrad.ir.value import Number, Value, apply
from telegrad.later import Reply, known
from telegrad.lazy import (
    Handle,
    Immediate,
    Leaf,
    Line,
    Live,
    Source,
    Version,
    caller,
    check_version,
    extract,
)
from telegrad.ops.random import FoldIn
from telegrad.prepared import Prepared
from telegrad.scope import Scope, Scopes
from telegrad.tensor import Tensor
from telegrad.transport import Connection
from telegrad.variable import Variable
from telegrad.wire import messages as m
from telegrad.wire.arrays import array_bytes, array_from, numpy_dtype, type_of

if TYPE_CHECKING:
    from telegrad.explaining import Explanation
    from telegrad.jobs import EarlyStopping, Job, Jobs, KeepBest

IMMEDIATE_BYTES = 1024  # tensors up to this size stay on the client until a Run needs them
PENDING_TENSORS = 10_000  # so a loop that reads nothing does not grow


class Session:
    """A connection with its tensors, variables and scopes. Leaving its ``with`` block frees everything.

    Made by `connect`. ``seed`` starts the random numbers: the same program draws the same numbers.
    """

    is_trace = False

    def __init__(self, connection: Connection, *, key: object, seed: int) -> None:
        self.commands = Commands(connection)
        self._key = key
        self.seed = seed
        self.calls = 0  # the only state of random numbers
        self.scopes = Scopes(self)
        self._pending: list[ref[Tensor]] = []
        self._updates: dict[Variable, tuple[Value, Line | None]] = {}
        self._notes: dict[str, None] = {}

    # ---- what it is

    @property
    def session(self) -> Session:
        """The session itself; a trace's ``session`` is the one it is traced for."""
        return self

    @property
    def backend(self) -> str:
        """What computes on the server: "numpy" or "cupy"."""
        return self.commands.connection.greeting.backend

    @property
    def fingerprint(self) -> str:
        """Everything that decides the bits of a result on this server, in words."""
        return self.commands.connection.greeting.fingerprint

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of the server, and of what is asked of it."""
        return (*self.commands.connection.greeting.warnings, *self._notes)

    def note(self, sentence: str) -> None:
        """Add to the warnings, once."""
        self._notes[sentence] = None

    @property
    def home(self) -> str:
        """The worker on which the session lives in a cluster; empty where there is none."""
        return self.commands.connection.greeting.worker

    @property
    def is_direct(self) -> bool:
        """Whether the home is reached without the gateway."""
        return self.commands.connection.greeting.is_direct

    @property
    def datasets(self) -> Datasets:
        """The datasets on the server, by name: ``session.datasets.put("digits", x=x, y=y)``, ``["digits"]``."""
        self._check_open()
        return Datasets(self.commands.connection.datasets)

    @property
    def jobs(self) -> Jobs:
        """The jobs on the server, by name: ``session.jobs["digits-mlp"].watch()``."""
        self._check_open()
        from telegrad.jobs import Jobs

        return Jobs(self.commands.connection.jobs)

    def submit(
        self,
        step: Callable[..., Any],
        *,
        data: Dataset | Mapping[str, npt.ArrayLike | Tensor],
        batch_size: int,
        epochs: int | None = None,
        steps: int | None = None,
        name: str | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        drop_last: bool = False,
        validate: Callable[..., Any] | None = None,
        validation_data: Dataset | Mapping[str, npt.ArrayLike | Tensor] | None = None,
        validate_every_steps: int = 0,
        validate_every_epochs: int = 1,
        checkpoint_every: int = 0,
        checkpoint_seconds: float = 0.0,
        keep_checkpoints: int = 2,
        early_stopping: EarlyStopping | None = None,
        keep_best: KeepBest | None = None,
        record_every: int = 1,
        on_nonfinite: Literal["keep", "pause", "fail"] = "fail",
        strict: bool = False,
        backend: Literal["", "numpy", "cupy"] = "",
        worker: str = "",
    ) -> Job:
        """A job that trains on the server until it is done, whatever becomes of this program (docs/jobs.md).

        ``step`` is called with a batch of each column of ``data`` that one of its arguments is named for; it returns
        one number, which is recorded as "loss", or a dict of numbers and of pairs (sum, count), of which the mean over
        what was counted is recorded. The model, the optimizer and everything else that
        it captures are copied as they are now; the job and this session then share nothing.

        The loop ends after ``epochs`` or ``steps``. ``seed`` decides the order of rows and the random numbers; None:
        they are those that a loop in this session would have drawn. A checkpoint is written after each epoch, or
        every ``checkpoint_every`` steps or ``checkpoint_seconds``. ``validate``, a function like ``step`` without an
        update, goes through ``validation_data`` every ``validate_every_epochs`` or ``validate_every_steps``; its
        metrics are called "val/loss". ``on_nonfinite`` says what a metric of NaN or infinity does. In a cluster
        ``backend`` and ``worker`` say where it should run: it waits for such a worker, and says so.

        Raises GraphError for a loop that does not fit together, JobError (JOB_NAME_TAKEN), QuotaExceeded, StorageFull.
        """
        from telegrad.jobs.submitting import submit

        self._check_open()
        return submit(
            self,
            step,
            data=data,
            batch_size=batch_size,
            epochs=epochs,
            steps=steps,
            name=name,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            validate=validate,
            validation_data=validation_data,
            validate_every_steps=validate_every_steps,
            validate_every_epochs=validate_every_epochs,
            checkpoint_every=checkpoint_every,
            checkpoint_seconds=checkpoint_seconds,
            keep_checkpoints=keep_checkpoints,
            early_stopping=early_stopping,
            keep_best=keep_best,
            record_every=record_every,
            on_nonfinite=on_nonfinite,
            strict=strict,
            backend=backend,
            worker=worker,
        )

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "open"
        home = f" of {self.home}, {'directly' if self.is_direct else 'through the gateway'}" if self.home else ""
        return f"<Session {self._key!r} on {self.backend}{home}, {state}>"

    # ---- life

    def open(self) -> None:
        """Open the connection; called by `connect`."""
        self.commands.open()
        context.push_session(self)

    def __enter__(self) -> Session:
        self._check_open()
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
            if check and self.commands.lost is None:
                self.synchronize()
        finally:
            self.scopes.root.is_closed = True
            context.drop_session(self)
            self.commands.close()

    def _check_open(self) -> None:
        if self.is_closed:
            raise SessionError("the session is closed; connect again", reason="SESSION_CLOSED")

    def scope(self) -> Scope:
        """A new scope for a ``with`` block: what is made inside is freed when it is left."""
        return self.scopes.new()

    def synchronize(self) -> None:
        """Send what is pending, wait until the server has run it, and raise an error that nobody has read."""
        self.flush()
        self.commands.ask(lambda: self.commands.put(Type((), types.uint8), b"\0", 0))

    # ---- the home of eager tensors

    def value_of(self, tensor: Tensor) -> Value:
        """The tensor's value, if it may be used here."""
        if tensor._home is not self:  # pyright: ignore[reportPrivateUsage]
            raise self.stranger(tensor)
        if isinstance(tensor, Variable) and context.ASSIGNED.get():
            return context.assigned_value(tensor) or tensor.value
        return tensor.value

    def stranger(self, tensor: Tensor) -> TelegradError:
        """The error of using a tensor that does not live here."""
        if tensor._home.is_trace:  # pyright: ignore[reportPrivateUsage]
            return tensor._scope.refusal(tensor.type)  # pyright: ignore[reportPrivateUsage]
        return SessionError(
            f"the operands belong to different sessions: a tensor ({tensor.type}) of another one is used in {self};"
            " download it with numpy() and upload it again"
        )

    def tensor(self, value: Value, *, requires_grad: bool = False, weak: bool = False) -> Tensor:
        """A handle on a value, pending until somebody needs it."""
        tensor = Tensor(value, self, self.scopes.current, requires_grad=requires_grad, weak=weak)
        self.watch(tensor)
        return tensor

    def watch(self, tensor: Tensor) -> None:
        """Remember that somebody may hold this tensor when the graph is sent."""
        self._check_open()
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

    def from_numpy(self, array: npt.NDArray[Any], *, scope: Scope | None = None) -> Tensor:
        """A tensor with the contents that the array has now, in a scope, or in the one that is current."""
        type, scope = type_of(array), scope or self.scopes.current
        if type.nbytes <= IMMEDIATE_BYTES:
            leaf = Leaf(type, Immediate(bytes(array_bytes(array))))
        else:
            leaf = Leaf(type, self.upload(array, scope=scope))
        return Tensor(Value(leaf), self, scope)

    def live(self, type: Type, getter: Any) -> Tensor:
        """The bytes that ``getter`` gives now, as a tensor."""
        return Tensor(Value(Leaf(type, Immediate(getter()))), self, self.scopes.current)

    def random_key(self) -> tuple[Tensor, int]:
        """The key of the next random numbers, and the stream within it."""
        self.calls += 1
        return folded(self.live(Type((4,), types.uint32), lambda: key_bytes(self.seed, self.calls))), 0

    def assign(self, variable: Variable, value: Value, line: Line | None) -> None:
        """Make ``value`` the variable's next version when the graph is sent."""
        with self.commands.critical:
            variable._value = value  # pyright: ignore[reportPrivateUsage]
            self._updates[variable] = (value, line)

    # ---- names

    def release(self) -> None:
        """Tell the server now which names are no longer wanted, without waiting for a batch to fill."""
        self.commands.release()

    def upload(self, array: npt.NDArray[Any], *, scope: Scope) -> Handle:
        """Give the server a copy of the array under a new name."""
        return self.commands.upload(array, scope.number)

    def new_variable(self, variable: Variable, tensor: Tensor) -> Handle:
        """A name of the variable's own, with the tensor's value as its first version."""
        value = tensor.value
        node = value.node
        with self.commands.critical:
            scope = variable._scope  # pyright: ignore[reportPrivateUsage]
            if isinstance(node, Leaf) and isinstance(node.source, Immediate):
                return self.commands.put(value.type, node.source.data, scope.number)
            source = self.handle_of(tensor)
            handle = self.commands.new_handle()
            self.commands.send(m.Alias(handle.name, source.name, scope.number))
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
        handle = self.commands.put(node.types[0], source.data, tensor._scope.number)  # pyright: ignore[reportPrivateUsage]
        tensor._value = Value(Leaf(node.types[0], handle))  # pyright: ignore[reportPrivateUsage]
        return handle

    # ---- sending graphs

    def flush(self) -> None:
        """Send everything that is pending: values that somebody holds, and updates of variables."""
        with self.commands.critical:
            pending, self._pending = self._pending, []
            updates, self._updates = self._updates, {}
            live = _held(pending)
            if not live and not updates:
                return
            function, slots = _pending_graph(live, updates)
            names = [0] * len(slots)
            scopes = [0] * len(slots)
            handles: dict[Value, Handle] = {}
            for tensor in live:
                value = tensor._value  # pyright: ignore[reportPrivateUsage]
                if value not in handles:
                    handles[value] = self.commands.new_handle()
                    names[slots[value]] = handles[value].name
                    scopes[slots[value]] = tensor._scope.number  # pyright: ignore[reportPrivateUsage]
            self.commands.run(function, self.bind(function.sources), names, scopes, is_recorded=True)
            for tensor in live:
                self._settle(tensor, handles)
            for variable, (_, line) in updates.items():
                self.updated(variable, line)

    def pending(self) -> Prepared | None:
        """The graph that the next thing that waits will send, or None; nothing is sent."""
        with self.commands.critical:
            live = _held(self._pending)
            return _pending_graph(live, self._updates)[0] if live or self._updates else None

    def explain(self, step: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Explanation:
        """What a call ``step(*args, **kwargs)`` would take, before it is run: bytes, round trips, kernels, memory.

        Without ``step``: what the graph that is pending would take. Nothing is run, and no variable changes; a
        `tg.function` is traced for these arguments, and compiled, if it was not. Print it, or read its fields.

        Raises what a call would raise before it runs, GraphError if nothing is pending, and VersionMismatch.

        ::

            print(session.explain(train_step, x, y))
        """
        from telegrad.explaining import explain

        self._check_open()
        return explain(self, step, args, kwargs)

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

    # ---- scopes on the server

    def open_scope(self, scope: Scope) -> None:
        """Tell the server of a new scope."""
        assert scope.parent is not None
        with self.commands.critical:
            self.commands.send(m.OpenScope(scope.number, scope.parent.number))

    def close_scope(self, scope: Scope, kept: Sequence[Tensor]) -> None:
        """Move ``kept`` to the parent, send what they and outer tensors still need, and free the rest."""
        assert scope.parent is not None
        with self.commands.critical:
            for tensor in kept:
                tensor._scope = scope.parent  # pyright: ignore[reportPrivateUsage]
            scope.is_closed = True
            if self.is_closed or self.commands.lost is not None:
                return
            self.flush()
            names: list[int] = []
            for tensor in kept:
                node = tensor._value.node  # pyright: ignore[reportPrivateUsage]
                if isinstance(tensor, Variable):
                    names.append(tensor.handle.name)
                elif isinstance(node, Leaf) and isinstance(node.source, Handle):
                    names.append(node.source.name)
            self.commands.send(m.CloseScope(scope.number, tuple(names)))

    # ---- what comes back

    def fetch(self, tensor: Tensor, *, timeout_seconds: float | None = None) -> npt.NDArray[Any]:
        """The tensor's elements as an array of the caller's own."""
        node = tensor.value.node
        if isinstance(node, Leaf) and isinstance(node.source, Immediate):
            return np.array(array_from(node.types[0], node.source.data))
        return self.commands.read(lambda: self._settled_handle(tensor), timeout_seconds=timeout_seconds)

    def fetch_later(self, tensor: Tensor) -> Reply:
        """Ask for the tensor's elements, which must be few, and wait for nothing."""
        node = tensor.value.node
        if isinstance(node, Leaf) and isinstance(node.source, Immediate):
            return known(m.Fetched(0, node.types[0], node.source.data))
        return self.commands.ask_later(lambda: self._settled_handle(tensor))

    def _settled_handle(self, tensor: Tensor) -> Handle:
        """The tensor's name, once all that it needs is sent."""
        handle = self.handle_of(tensor)
        if isinstance(tensor, Variable) and self._updates:
            self.flush()
        return handle

    @property
    def is_live(self) -> bool:
        """Whether the session can still be used."""
        return self.commands.is_live

    @property
    def is_closed(self) -> bool:
        """Whether it was closed here."""
        return self.commands.is_closed


def _held(pending: Sequence[ref[Tensor]]) -> list[Tensor]:
    """The tensors that somebody holds and that have no name yet."""
    live: list[Tensor] = []
    seen: set[int] = set()
    for reference in pending:
        tensor = reference()
        if tensor is None or id(tensor) in seen or tensor._scope.is_closed or isinstance(tensor, Variable):  # pyright: ignore[reportPrivateUsage]
            continue
        if not isinstance(tensor._value.node, Leaf):  # pyright: ignore[reportPrivateUsage]
            seen.add(id(tensor))
            live.append(tensor)
    return live


def _pending_graph(
    live: Sequence[Tensor], updates: Mapping[Variable, tuple[Value, Line | None]]
) -> tuple[Prepared, dict[Value, int]]:
    """The function of what is pending, and for each value that leaves it the number of its result."""
    slots: dict[Value, int] = {}
    for tensor in live:
        slots.setdefault(tensor._value, len(slots))  # pyright: ignore[reportPrivateUsage]
    for value, _ in updates.values():
        slots.setdefault(value, len(slots))
    extracted = extract(list(slots), [variable.leaf for variable in updates])
    pairs = [(i, slots[value]) for i, (value, _) in enumerate(updates.values())]
    return Prepared(extracted, pairs), slots


def folded(key: Tensor) -> Tensor:
    """The key as it is in the trips of the loops around: another in each."""
    for index in context.TRIPS.get():
        key = FoldIn()(key, index)
    return key


def key_bytes(seed: int, call: int) -> bytes:
    """The key of a call's random numbers: uint32[4] of the seed's and the call's halves."""
    return np.array([seed & 0xFFFFFFFF, seed >> 32, call & 0xFFFFFFFF, call >> 32], dtype="<u4").tobytes()
