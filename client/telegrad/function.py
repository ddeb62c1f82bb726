"""``@tg.function``: traced once for each signature, then called by id with one small message.

While a `Trace` is active it is the home of every tensor that is made: arguments, captured tensors and
variables become inputs of one graph. Whatever the trace reads of our own state (a module's ``training``,
whether a parameter has a gradient) is recorded as a *guard* and is part of the signature.
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, ref

import numpy as np

from telegrad import context
from telegrad.errors import GraphError, TelegradError, TraceError
from telegrad.ir import types
from telegrad.ir.types import DType, Type
from telegrad.ir.value import Number, Value, apply
from telegrad.lazy import (
    Argument,
    Captured,
    Extract,
    Handle,
    Immediate,
    Leaf,
    Line,
    Live,
    LiveKey,
    PresentGrad,
    Version,
    caller,
    extract,
)
from telegrad.nest import Structure, flatten, unflatten
from telegrad.operands import bind
from telegrad.ops.elementwise import literal_op
from telegrad.prepared import Prepared
from telegrad.session import Session, folded, key_bytes
from telegrad.signature import Static, difference, signature
from telegrad.tensor import Tensor
from telegrad.variable import Variable
from telegrad.wire.arrays import array_bytes, numpy_dtype, type_of

if TYPE_CHECKING:
    from telegrad.replicas import Setting

P = ParamSpec("P")
R = TypeVar("R")

RETRACE_WARNING = 8
"""So many traces of one function bring a warning that names what kept changing."""


class _TraceScope:
    """The lifetime of traced tensors: they cannot be used once the trace has ended."""

    def __init__(self) -> None:
        self.is_closed = False
        self.number = 0

    def refusal(self, type: Type) -> TelegradError:
        return TraceError(
            f"a tensor ({type}) that was made while a function was traced is used after it; return it from the"
            " function instead of storing it"
        )


class Trace:
    """The home of tensors while a function is traced."""

    is_trace = True
    replication: Setting | None = None
    """What is known of the replicas, in the trace of a data-parallel function."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.scope: Any = _TraceScope()
        self.guards: list[tuple[Callable[[], Hashable], Hashable]] = []
        self.assigned: dict[Variable, Value] = {}
        self.lines: dict[Variable, Line | None] = {}
        self.grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._captured: dict[int, tuple[Tensor, Value]] = {}
        self._present: dict[int, Tensor | None] = {}
        self._key: Tensor | None = None
        self._streams = 0
        self._numbers: dict[tuple[str, DType], Value] = {}

    # ---- home

    def value_of(self, tensor: Tensor) -> Value:
        """The tensor's value in this trace; a tensor from outside becomes an input."""
        if tensor._home is self:  # pyright: ignore[reportPrivateUsage]
            return tensor.value
        if isinstance(tensor, Variable):
            found = context.assigned_value(tensor) or self.assigned.get(tensor)
            if found is not None:
                return found
            if id(tensor) not in self._captured:
                self.read(lambda: tensor.requires_grad)
            if tensor._scope.is_closed:  # pyright: ignore[reportPrivateUsage]
                raise tensor._scope.refusal(tensor.type)  # pyright: ignore[reportPrivateUsage]
            return self.first_version(tensor)
        return self._capture(tensor)

    def first_version(self, variable: Variable) -> Value:
        """The variable as it is when the function is called."""
        known = self._captured.get(id(variable))
        if known is None:
            if variable.session is not self.session:
                raise self.session.stranger(variable)
            point = ref(variable) if variable.requires_grad else None
            leaf = Leaf(variable.type, Version(variable, variable.version), tensor=point)  # type: ignore[arg-type]
            known = self._captured[id(variable)] = (variable, Value(leaf))
        return known[1]

    def _capture(self, tensor: Tensor) -> Value:
        if tensor._home.is_trace:  # pyright: ignore[reportPrivateUsage]
            raise tensor._scope.refusal(tensor.type)  # pyright: ignore[reportPrivateUsage]
        known = self._captured.get(id(tensor))
        if known is None:
            if tensor.session is not self.session:
                raise self.session.stranger(tensor)
            node = tensor.value.node
            if isinstance(node, Leaf) and isinstance(node.source, Immediate):
                leaf = Leaf(tensor.type, node.source)  # a literal or a small array
            else:
                point = ref(tensor) if tensor.requires_grad else None
                leaf = Leaf(tensor.type, Captured(tensor), tensor=point)
            known = self._captured[id(tensor)] = (tensor, Value(leaf))
        return known[1]

    def tensor(self, value: Value, *, requires_grad: bool = False, weak: bool = False) -> Tensor:
        """A traced handle on a value."""
        return Tensor(value, self, self.scope, requires_grad=requires_grad, weak=weak)  # type: ignore[arg-type]

    def watch(self, tensor: Tensor) -> None:
        """Traced tensors are sent only if the function returns them."""

    def number(self, number: Number, dtype: DType) -> Tensor:
        """A Python number in a trace is a constant, one for all its uses; a region has its own."""
        if context.REGION.get() is not None:
            return self.tensor(apply(literal_op(number, dtype), (), origin=caller())[0])
        key = (repr(number), dtype)  # not the number: 1 == True, 0.0 == -0.0
        value = self._numbers.get(key)
        if value is None:
            value = self._numbers[key] = apply(literal_op(number, dtype), (), origin=caller())[0]
        return self.tensor(value)

    def live(self, type: Type, getter: Callable[[], bytes], *, weak: bool = False, name: str = "") -> Tensor:
        """A tensor whose bytes are asked for at every call."""
        return self.tensor(Value(Leaf(type, Live(getter, name))), weak=weak)

    def live_key(self, getter: Callable[[], bytes]) -> Tensor:
        """The key of the call's random numbers."""
        return self.tensor(Value(Leaf(Type((4,), types.uint32), LiveKey(getter))))

    def random_key(self) -> tuple[Tensor, int]:
        """The key of the call's random numbers, and the next stream within it."""
        if self._key is None:
            session = self.session
            self._key = self.live_key(lambda: key_bytes(session.seed, session.calls))
        self._streams += 1
        return folded(self._key), self._streams

    @property
    def is_random(self) -> bool:
        """Whether the function draws random numbers."""
        return self._key is not None

    def assign(self, variable: Variable, value: Value, line: Line | None) -> None:
        """The variable's value from here on in the trace; the last one is its next version."""
        self.first_version(variable)
        self.assigned[variable] = value
        self.lines[variable] = line

    # ---- gradients of what lives outside

    def grad_of(self, tensor: Tensor) -> Tensor | None:
        """The gradient as the trace sees it; reading one from outside is a guard."""
        if tensor._home is self:  # pyright: ignore[reportPrivateUsage]
            return tensor._grad  # pyright: ignore[reportPrivateUsage]
        known = self.grads.get(id(tensor))
        if known is not None:
            return known[1]
        if id(tensor) not in self._present:
            self.read(lambda: tensor._grad is None)  # pyright: ignore[reportPrivateUsage]
            is_none = tensor._grad is None  # pyright: ignore[reportPrivateUsage]
            leaf = Leaf(tensor.type, PresentGrad(tensor))
            self._present[id(tensor)] = None if is_none else self.tensor(Value(leaf))
        return self._present[id(tensor)]

    def changed_grads(self) -> list[tuple[Tensor, Tensor | None]]:
        """The gradients that a call sets or clears."""
        return [
            (tensor, grad)
            for tensor, grad in self.grads.values()
            if grad is not None or self._present.get(id(tensor), tensor) is not None
        ]

    def set_grad(self, tensor: Tensor, grad: Tensor | None) -> None:
        """Set a gradient; those of outer tensors become results of the function."""
        if tensor._home is self:  # pyright: ignore[reportPrivateUsage]
            tensor._grad = grad  # pyright: ignore[reportPrivateUsage]
        else:
            self.grads[id(tensor)] = (tensor, grad)

    def read(self, getter: Callable[[], Hashable]) -> None:
        """Make what ``getter`` gives part of the signature."""
        self.guards.append((getter, getter()))


def guard(getter: Callable[[], Hashable]) -> Any:
    """What ``getter`` gives now; in a trace it becomes part of the signature, so another value retraces."""
    trace = context.TRACE.get()
    value = getter()
    if trace is not None:
        trace.guards.append((getter, value))
    return value


def live_number(getter: Callable[[], float], name: str = "") -> Tensor | float:
    """The number that ``getter`` gives now; in a trace a 0-d tensor that is asked for at every call."""
    trace = context.TRACE.get()
    if trace is None:
        return getter()
    return trace.live(_WEAK_FLOAT, lambda: np.float64(getter()).tobytes(), weak=True, name=name)


_WEAK_FLOAT = Type((), types.float64)
_WEAK_INT = Type((), types.int64)


class Outcome:
    """What a trace comes to: the values that leave it, and what becomes of them."""

    def __init__(self, trace: Trace, result: Any) -> None:
        self.trace = trace
        leaves, self.structure = flatten(result)
        self.constants = [None if isinstance(x, Tensor) else (x,) for x in leaves]
        self.values = [trace.value_of(x) for x in leaves if isinstance(x, Tensor)]
        self.grads: list[tuple[ref[Tensor], int | None]] = []
        for tensor, grad in trace.changed_grads():
            self.grads.append((ref(tensor), None if grad is None else len(self.values)))
            if grad is not None:
                self.values.append(trace.value_of(grad))
        self.updates = dict(trace.assigned)

    def pairs(self, arguments: int) -> list[tuple[int, int]]:
        """The updates as (input, output) of the graph that `extract` gives."""
        return [(arguments + i, len(self.values) + i) for i in range(len(self.updates))]

    def extract(self, arguments: Sequence[Leaf]) -> Extract:
        """The graph from arguments and updated variables to values and their next versions."""
        variables = [self.trace.first_version(v) for v in self.updates]
        inputs = [*(Value(leaf) for leaf in arguments), *variables]
        return extract([*self.values, *self.updates.values()], inputs)


class Compiled:
    """One traced signature: the prepared function and what to do with its operands and results."""

    def __init__(
        self, outcome: Outcome, extracted: Extract, prepared: Prepared, types: Sequence[Type], *, pins: Sequence[Any]
    ) -> None:
        trace = outcome.trace
        self.pins = [x for x in pins if not isinstance(x, (Tensor, np.ndarray))]  # their ids are in the signature
        self.structure, self.constants, self.grads = outcome.structure, outcome.constants, outcome.grads
        self.results = len(outcome.values)
        self.prepared = prepared
        self.variables = list(outcome.updates)
        self.lines = [trace.lines[v] for v in outcome.updates]
        self.types = types
        self.guards = trace.guards
        self.is_random = trace.is_random
        self.graph = extracted.graph
        # a call from code that wants gradients can go through the graph, unless it changes something
        self.is_pure = not outcome.updates and not self.grads

    def holds(self) -> bool:
        """Whether everything that the trace read still has the same value."""
        return all(getter() == value for getter, value in self.guards)


class Function(Generic[P, R]):
    """A traced function. Made by `function`."""

    def __init__(self, python: Callable[P, R], *, static: Sequence[str] = ()) -> None:
        update_wrapper(self, python)
        self._python = python
        self._static = frozenset(static)
        self._names = list(inspect.signature(python).parameters)
        unknown = self._static - set(self._names)
        if unknown:
            raise GraphError(f"static names {sorted(unknown)}, which the function does not take")
        self._compiled: WeakKeyDictionary[Session, dict[Hashable, list[Compiled]]] = WeakKeyDictionary()
        self.traces = 0

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if context.TRACE.get() is not None:
            return self._python(*args, **kwargs)
        return self._run(*self.prepared(args, kwargs))

    def prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Session, Compiled, list[Any]]:
        """All that a call with these arguments needs: its session, the function traced for them, and their leaves."""
        nest: tuple[Any, ...] = (args, kwargs) if kwargs else (args,)
        if self._static:
            nest = self._with_static(args, kwargs)
        leaves, structure = flatten(nest)
        on = context.ON.get()
        key: Hashable = (structure, tuple([signature(x) for x in leaves]), None if on is None else on.worker)
        session = _session_of(leaves)
        return session, self._compiled_for(session, key, leaves, structure), leaves

    def history(self, session: Session) -> tuple[int, str]:
        """How many signatures it was traced for in a session, and what changed between the last two, in words."""
        known = self._compiled.get(session, {})
        count = sum([len(candidates) for candidates in known.values()])
        return count, _change(known) if count > 1 else ""

    def compiled(self, session: Session, arguments: Mapping[str, Any]) -> Compiled:
        """The traced function for keyword arguments of these types, which is not called: what a job is made of."""
        leaves, structure = flatten(((), dict(arguments)))
        key: Hashable = (structure, tuple([signature(x) for x in leaves]), None)
        return self._compiled_for(session, key, leaves, structure)

    def _compiled_for(self, session: Session, key: Hashable, leaves: list[Any], structure: Structure) -> Compiled:
        known = self._compiled.get(session)
        if known is None:
            known = self._compiled[session] = {}
        candidates = known.setdefault(key, [])
        for compiled in candidates:
            if compiled.holds():
                return compiled
        compiled = self._trace(session, leaves, structure)
        candidates.append(compiled)
        self._warn_of_retracing(known)
        return compiled

    @property
    def python(self) -> Callable[P, R]:
        """The function that is traced."""
        return self._python

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its parameters."""
        return tuple(self._names)

    def __get__(self, instance: object, owner: object = None) -> Any:
        return self if instance is None else Bound(self, instance)

    def _warn_of_retracing(self, known: dict[Hashable, list[Compiled]]) -> None:
        traces = sum(map(len, known.values()))  # in this session: another one begins anew
        if traces % RETRACE_WARNING == 0:
            name, what = getattr(self._python, "__qualname__", "function"), _change(known)
            warnings.warn(
                f"{name} was traced {traces} times: {what} keeps changing, and each trace is compiled anew;"
                " pass numbers as plain float or int, and pad batches to one shape",
                stacklevel=5,  # who calls
            )

    # ---- tracing

    def _with_static(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments with those named in ``static`` marked."""
        marked = tuple(Static(x) if n in self._static else x for n, x in zip(self._names, args, strict=False))
        rest = {k: Static(x) if k in self._static else x for k, x in kwargs.items()}
        return (*marked, *args[len(marked) :]), rest

    def _trace(self, session: Session, leaves: list[Any], structure: Structure) -> Compiled:
        session.flush()
        trace = Trace(session)
        outcome, arguments = self.traced(trace, leaves, structure, [operand_type(x) for x in leaves])
        extracted = outcome.extract(arguments)
        prepared = Prepared(extracted, outcome.pairs(len(arguments)))
        self.traces += 1
        return Compiled(outcome, extracted, prepared, [v.type for v in outcome.values], pins=leaves)

    def traced(
        self, trace: Trace, leaves: list[Any], structure: Structure, operands: Sequence[tuple[Type | None, bool]]
    ) -> tuple[Outcome, list[Leaf]]:
        """What the function comes to on arguments of these types (each with whether it is weak), and their leaves."""
        arguments: list[Leaf] = []
        traced: list[Any] = []
        for position, (x, (type, weak)) in enumerate(zip(leaves, operands, strict=True)):
            if type is None or isinstance(x, Variable):
                traced.append(x.value if isinstance(x, Static) else x)
                continue
            leaf = Leaf(type, Argument(position))
            if isinstance(x, Tensor) and x.requires_grad:
                leaf.tensor = ref(x)
            arguments.append(leaf)
            traced.append(trace.tensor(Value(leaf), requires_grad=isinstance(x, Tensor) and x.requires_grad, weak=weak))
        nest = unflatten(structure, traced)
        token = context.TRACE.set(trace)
        try:
            result = self._python(*nest[0], **(nest[1] if len(nest) > 1 else {}))
            return Outcome(trace, result), arguments
        finally:
            context.TRACE.reset(token)
            trace.scope.is_closed = True

    # ---- calling

    def _run(self, session: Session, compiled: Compiled, leaves: list[Any]) -> R:
        recorder = session.commands.recorder
        if recorder is None:
            return self._dispatch(session, compiled, leaves)
        began = time.perf_counter_ns()
        results = self._dispatch(session, compiled, leaves)
        recorder.add("dispatch", getattr(self._python, "__qualname__", ""), began)
        return results

    def _dispatch(self, session: Session, compiled: Compiled, leaves: list[Any]) -> R:
        if compiled.is_random:
            session.calls += 1
        operands, keep = bind(session, compiled.prepared.sources, leaves)
        with session.commands.critical:  # a step happens or does not: with its updates and gradients
            results = self._send(session, compiled, leaves, operands)
        del keep
        return results

    def _send(self, session: Session, compiled: Compiled, leaves: list[Any], operands: list[int | bytes]) -> R:
        if compiled.variables:
            session.flush()
        scope = session.scopes.current
        names: list[int] = []
        handles: list[Handle] = []
        for _ in range(compiled.results):
            handle = session.commands.new_handle()
            handles.append(handle)
            names.append(handle.name)
        scopes = [scope.number] * compiled.results
        for tensor_ref, i in compiled.grads:
            tensor = tensor_ref()
            if i is not None and tensor is not None:
                scopes[i] = tensor._scope.number  # pyright: ignore[reportPrivateUsage]
        updates = len(compiled.variables)
        session.commands.run(compiled.prepared, operands, names + [0] * updates, scopes + [scope.number] * updates)
        for variable, line in zip(compiled.variables, compiled.lines, strict=True):
            session.updated(variable, line)
        differentiable = compiled.is_pure and _wants_gradient(leaves, compiled)
        values = [Value(Leaf(type, handle)) for type, handle in zip(compiled.types, handles, strict=True)]
        if differentiable:
            _define(compiled, leaves, values)
        self._set_grads(session, compiled, values)
        results = iter(values)
        tensors = [
            constant[0]
            if constant is not None
            else Tensor(v := next(results), session, scope, requires_grad=differentiable and v.type.dtype.is_float)
            for constant in compiled.constants
        ]
        return unflatten(compiled.structure, tensors)

    def _set_grads(self, session: Session, compiled: Compiled, values: list[Value]) -> None:
        for tensor_ref, i in compiled.grads:
            tensor = tensor_ref()
            if tensor is None:
                continue
            if i is None:
                tensor._grad = None  # pyright: ignore[reportPrivateUsage]
            else:
                tensor._grad = Tensor(values[i], session, tensor._scope)  # pyright: ignore[reportPrivateUsage]


class Bound:
    """A traced method on its instance."""

    def __init__(self, function: Function[Any, Any], instance: object) -> None:
        self.function, self.instance = function, instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self.instance, *args, **kwargs)


def _change(known: Mapping[Hashable, list[Compiled]]) -> str:
    """What differs between the last two signatures, in words."""
    signatures = list(known)[-2:]
    return difference(signatures) if len(signatures) > 1 else "state that it reads, such as training"


def operand_type(x: Any) -> tuple[Type | None, bool]:
    """The type under which an argument is traced, and whether it is weak; None for static values."""
    if isinstance(x, Tensor):
        return x.type, x.is_weak
    kind = type(x)
    if kind is float:
        return _WEAK_FLOAT, True
    if kind is int:
        return _WEAK_INT, True
    if isinstance(x, (np.ndarray, np.generic)):
        return type_of(np.asarray(x)), False
    return None, False


def _session_of(leaves: list[Any]) -> Session:
    for x in leaves:
        if isinstance(x, Tensor):
            return x.session
    return context.current_session()


def _wants_gradient(leaves: list[Any], compiled: Compiled) -> bool:
    if not context.is_grad_enabled():
        return False
    if any(isinstance(x, Tensor) and x.requires_grad for x in leaves):
        return True
    return any(
        (isinstance(s, Captured) and s.tensor.requires_grad) or (isinstance(s, Version) and s.variable.requires_grad)
        for s in compiled.prepared.sources
    )


def _define(compiled: Compiled, leaves: list[Any], values: list[Value]) -> None:
    """Let gradients go through the call: its results are defined by the graph on its operands, made when asked for."""
    operands: list[Value] = []
    for value, source in zip(compiled.graph.inputs, compiled.prepared.sources, strict=True):
        if isinstance(source, Argument):
            x = leaves[source.position]
            operands.append(x.value if isinstance(x, Tensor) else value)
        elif isinstance(source, Captured):
            operands.append(source.tensor.value)
        elif isinstance(source, Version):
            operands.append(source.variable.leaf)
        elif isinstance(source, Live):
            operands.append(Value(Leaf(value.type, Immediate(source.getter()))))
        else:
            operands.append(value)
    for i, x in enumerate(operands):
        if isinstance(x.node, Leaf) and isinstance(x.node.source, Argument):
            data = leaves[x.node.source.position]
            array = np.asarray(data, dtype=numpy_dtype(x.type.dtype))
            operands[i] = Value(Leaf(x.type, Immediate(bytes(array_bytes(array)))))
    made: list[tuple[Value, ...]] = []

    def definition(i: int) -> Value:
        if not made:
            made.append(compiled.graph.inline(operands))
        return made[0][i]

    for i, value in enumerate(values):
        leaf = value.node
        assert isinstance(leaf, Leaf)
        leaf.definition = lambda i=i: definition(i)


def function(
    python: Callable[P, R] | None = None,
    *,
    static: Sequence[str] = (),
    replicas: int | None = None,
    reduce: str = "mean",
    replicated: Sequence[str] = (),
    shard_optimizer: bool = False,
) -> Any:
    """The function, traced once for each signature of its arguments and then run by the server as a whole.

    Arguments may be tensors, NumPy arrays, Python numbers and nests of them; everything else is part of the
    signature by equality, as are the keyword arguments named in ``static``. Tensors from outside are constants;
    variables and modules are live. Calls return at once; reading a result waits.

    With ``replicas`` it is data-parallel: each replica gets its own rows of the arguments, except of those named in
    ``replicated``, and gradients and scalars are the ``reduce`` ("mean" or "sum") of those of all (docs/replicas.md).
    With ``shard_optimizer`` each worker holds and updates only its span of the optimizers' state.

    Raises TraceError where the function reads, prints or branches on a tensor.

    ::

        @tg.function
        def step(x, y):
            loss = ((model(x) - y) ** 2).mean()
            optimizer.minimize(loss)
            return loss
    """

    def made(f: Callable[P, R]) -> Function[P, R]:
        if replicas is None:
            if shard_optimizer:
                raise GraphError("shard_optimizer divides state over the workers of replicas; give replicas=n as well")
            return Function(f, static=static)
        from telegrad.replicas import ReplicatedFunction

        return ReplicatedFunction(
            f,
            static=static,
            replicas=replicas,
            reduce=reduce,
            replicated=replicated,
            shard_optimizer=shard_optimizer,
        )

    return made if python is None else made(python)
