"""Data-parallel functions: ``@tg.function(replicas=n)``, traced on the rows of one replica.

The client divides nothing: a call sends all rows, and the server carries out the replicas wherever it likes. What is
decided here is what a replica's trace means for all of them: which arguments are split, where gradients are reduced
(`telegrad.reducing`), and what becomes of each result. If the rows do not divide evenly there are two traces.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from telegrad import context
from telegrad.errors import GraphError, ShapeError
from telegrad.function import Compiled, Function, Outcome, Trace, operand_type
from telegrad.ir.graph import Graph, Replication, new_input
from telegrad.ir.types import Type
from telegrad.ir.value import Value, apply
from telegrad.ir.verify import MAX_REPLICAS
from telegrad.lazy import (
    Argument,
    Captured,
    Extract,
    Immediate,
    Live,
    PresentGrad,
    Source,
    Version,
    caller,
    show,
)
from telegrad.nest import Structure, flatten, unflatten
from telegrad.ops.random import FoldIn
from telegrad.ops.replicas import REDUCTIONS, AllReduce, ReplicaIndex, varying
from telegrad.prepared import Prepared
from telegrad.reducing import with_reductions
from telegrad.region import as_tensor, home_of
from telegrad.session import Session
from telegrad.tensor import Tensor
from telegrad.variable import Variable

P = ParamSpec("P")
R = TypeVar("R")


def all_reduce(x: Any, reduce: str = "mean") -> Tensor:
    """The mean of x over all replicas of the data-parallel function being traced, or the sum: the same on each.

    A mean is weighted by the rows of the replicas, so the mean of their means is that of all rows. It is differentiable
    to any order. Sums are of one fixed order, those of 16-bit floats in float32. Elsewhere there is one replica, and it
    is x. DTypeError for the mean of integers.
    """
    tensor, setting = as_tensor(x), _setting()
    op = AllReduce(reduce, setting.reduce if setting is not None else "mean")
    op.infer(tensor.type)
    return tensor if setting is None else op(tensor)


def replica_index() -> Tensor:
    """The number of the replica, from 0, as int64[]; 0 outside of data-parallel functions."""
    home = home_of(())
    if _setting() is None:
        return home.number(0, ReplicaIndex().infer().dtype)
    value = apply(ReplicaIndex(), (), origin=caller())[0]
    region = context.REGION.get()
    if region is not None:
        region.append(value.node)
    return home.tensor(value)


def _setting() -> Setting | None:
    trace = context.TRACE.get()
    return trace.replication if trace is not None else None


@dataclass(frozen=True)
class Setting:
    """What the trace of a data-parallel function knows: the replicas, how they reduce, and the rows of this one."""

    replicas: int
    reduce: str
    rows: int


class _Trace(Trace):
    """The home of tensors while one replica is traced."""

    def __init__(self, session: Session, setting: Setting) -> None:
        super().__init__(session)
        self.replication = setting
        self.getters: list[Callable[[], bytes]] = []

    def live(self, type: Type, getter: Callable[[], bytes], *, weak: bool = False, name: str = "") -> Tensor:
        """A tensor whose bytes are asked for at every call, once for both traces."""
        self.getters.append(getter)
        return super().live(type, getter, weak=weak, name=name)

    def live_key(self, getter: Callable[[], bytes]) -> Tensor:
        """The key of the call's random numbers, once for both traces."""
        self.getters.append(getter)
        return super().live_key(getter)

    def random_key(self) -> tuple[Tensor, int]:
        """The key of the replica's random numbers, and the next stream within it."""
        if self._key is None:
            super().random_key()
            self._streams = 0
            assert self._key is not None
            token = context.REGION.set(None)
            try:
                self._key = FoldIn()(self._key, replica_index())
            finally:
                context.REGION.reset(token)
        return super().random_key()


class ReplicatedFunction(Function[P, R]):
    """A traced function that runs on several logical replicas. Made by `function`."""

    def __init__(
        self,
        python: Callable[P, R],
        *,
        static: Sequence[str] = (),
        replicas: int,
        reduce: str = "mean",
        replicated: Sequence[str] = (),
        shard_optimizer: bool = False,
    ) -> None:
        super().__init__(python, static=static)
        if type(replicas) is not int or not 1 <= replicas <= MAX_REPLICAS:
            raise GraphError(f"replicas must be an integer from 1 to {MAX_REPLICAS}, not {replicas!r}")
        if reduce not in REDUCTIONS:
            raise GraphError(f"reduce must be 'mean' or 'sum', not {reduce!r}")
        unknown = {replicated} if isinstance(replicated, str) else set(replicated) - set(self._names)
        if unknown:
            raise GraphError(f"replicated is a list of the function's arguments, and {sorted(unknown)} are none")
        self._replicas, self._reduce, self._replicated = replicas, reduce, frozenset(replicated)
        self._shards = shard_optimizer

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        trace = context.TRACE.get()
        if trace is not None and (trace.replication is None or trace.replication.replicas != self._replicas):
            raise GraphError(
                f"{self._called} has {self._replicas} replicas and is called while another function is traced; give"
                f" the outer function replicas={self._replicas}, or call this one outside"
            )
        return super().__call__(*args, **kwargs)

    @property
    def replicas(self) -> int:
        """How many logical replicas it has."""
        return self._replicas

    @property
    def _called(self) -> str:
        return getattr(self._python, "__qualname__", "the function")

    # ---- tracing

    def _trace(self, session: Session, leaves: list[Any], structure: Structure) -> Compiled:
        session.flush()
        names = self._names_of(leaves, structure)
        kinds = [operand_type(x) for x in leaves]
        split = [self._is_split(x, kind, name) for x, (kind, _), name in zip(leaves, kinds, names, strict=True)]
        rows = self._rows(leaves, split, names)
        how = Replication(self._replicas, rows, (), shards=self._shards)
        sizes = [how.most] if how.larger == how.taking else [how.most, how.most - 1]
        replicas = [self._one(session, leaves, structure, split, own) for own in sizes]
        self.traces += 1
        return _compiled(replicas, how, leaves)

    def _one(self, session: Session, leaves: list[Any], structure: Structure, split: list[bool], rows: int) -> _Replica:
        """One replica of so many rows."""
        setting = Setting(self._replicas, self._reduce, rows)
        operands = [operand_type(x) for x in leaves]
        for i, is_split in enumerate(split):
            type, weak = operands[i]
            if is_split and type is not None:
                operands[i] = Type((rows, *type.shape[1:]), type.dtype), weak
        trace = _Trace(session, setting)
        outcome, arguments = self.traced(trace, leaves, structure, operands)
        return _Replica(self._called, trace, outcome, outcome.extract(arguments), len(arguments), split)

    def _names_of(self, leaves: list[Any], structure: Structure) -> list[str]:
        """For each leaf the argument that it belongs to."""
        args, *keywords = unflatten(structure, leaves)
        found: list[str] = []
        for i, x in enumerate(args):
            found += [self._names[min(i, len(self._names) - 1)]] * len(flatten(x)[0])
        for name, x in keywords[0].items() if keywords else ():
            found += [name] * len(flatten(x)[0])
        return found

    def _is_split(self, x: Any, type: Type | None, name: str) -> bool:
        if type is None or isinstance(x, Variable) or not type.shape or name in self._replicated:
            return False
        if isinstance(x, Tensor) and x.requires_grad:
            raise GraphError(
                f"{self._called}: {name} requires a gradient and would be split; take the gradient inside with tg.grad,"
                " pass it detached, or name it in replicated="
            )
        return True

    def _rows(self, leaves: list[Any], split: list[bool], names: list[str]) -> int:
        found: dict[int, str] = {}
        for x, is_split, name in zip(leaves, split, names, strict=True):
            if is_split:
                found.setdefault(x.shape[0], name)
        if not found:
            raise GraphError(
                f"{self._called}: a function with replicas splits the rows of its arguments, and none of them has an"
                " axis to split; pass a batch, or leave replicas out"
            )
        if len(found) > 1:
            (a, first), (b, second), *_ = found.items()
            raise ShapeError(
                f"{self._called}: the arguments to be split have different numbers of rows: {first} has {a}, {second}"
                f" has {b}; name those that all replicas share in replicated="
            )
        (rows,) = found
        if rows == 0:
            raise ShapeError(f"{self._called}: {found[0]} has 0 rows; there is nothing to split")
        return rows


class _Replica:
    """One replica's trace, with its reductions: a graph, where its inputs come from, and which results have rows."""

    def __init__(
        self, name: str, trace: _Trace, outcome: Outcome, extracted: Extract, arguments: int, split: list[bool]
    ) -> None:
        assert trace.replication is not None
        self.name, self.outcome, self.arguments = name, outcome, arguments
        self.setting = trace.replication
        self.sources = extracted.sources
        self.keys = _keys(extracted, trace)
        self.flags = [isinstance(s, Argument) and split[s.position] for s in self.sources]
        self.graph = with_reductions(extracted.graph, self.flags, self.setting.reduce)
        self.rows: list[int] = []
        varies = varying(self.graph, self.flags)
        paths = _results(outcome)
        variables = list(outcome.updates)
        outputs: list[Value] = []
        for i, v in enumerate(self.graph.outputs):
            if v not in varies:
                outputs.append(v)
            elif i >= len(outcome.values):
                outputs.append(self._assigned(v, variables[i - len(outcome.values)]))
            else:
                outputs.append(self._returned(i, v, paths[i] if i < len(paths) else "a gradient"))
        self.graph = Graph.of(self.graph.inputs, outputs)

    def _returned(self, number: int, value: Value, path: str) -> Value:
        type, reduce = value.type, self.setting.reduce
        if not type.shape and (type.dtype.is_float or reduce == "sum"):
            return _reduced(value, AllReduce(reduce, reduce))
        if not type.shape:
            raise self._refused(value, path, "has no mean; use tg.all_reduce(x, 'sum'), or return it as a float")
        if type.shape[0] != self.setting.rows:
            raise self._refused(
                value, path, f"does not have the replica's {self.setting.rows} rows; use tg.all_reduce, or return rows"
            )
        self.rows.append(number)
        return value

    def _assigned(self, value: Value, variable: Variable) -> Value:
        if not value.type.dtype.is_float:
            raise self._refused(
                value, f"the new value of {variable.describe()}", "has no mean; assign a value that is the same on all"
            )
        return _reduced(value, AllReduce("mean", self.setting.reduce))

    def _refused(self, value: Value, what: str, why: str) -> GraphError:
        origin: Any = value.node.origin
        where = f", made at {show(origin)}," if origin else ""
        return GraphError(f"{self.name}: {what}, a {value.type}{where} differs from replica to replica and {why}")


def _reduced(value: Value, op: AllReduce) -> Value:
    return apply(op, (value,), origin=value.node.origin)[0]


def _compiled(replicas: Sequence[_Replica], how: Replication, leaves: list[Any]) -> Compiled:
    """The function that runs these replicas, the second being one of a row less."""
    first = replicas[0]
    for other in replicas[1:]:
        _check_alike(first, other)
    sources = dict(zip(first.keys, first.sources, strict=True))
    types = dict(zip(first.keys, first.graph.inputs, strict=True))
    for other in replicas[1:]:
        for key, source, v in zip(other.keys, other.sources, other.graph.inputs, strict=True):
            if key not in sources:
                sources[key], types[key] = source, v
    graphs: list[Graph] = []
    for replica in replicas:
        own = dict(zip(replica.keys, replica.graph.inputs, strict=True))
        graphs.append(Graph.of([own.get(key) or new_input(types[key].type) for key in sources], replica.graph.outputs))
    split = tuple([i for i, flag in enumerate(first.flags) if flag])
    rest = graphs[1] if len(graphs) > 1 else None
    replication = Replication(how.replicas, how.rows, split, tuple(first.rows), rest, how.shards)
    extracted = Extract(graphs[0], tuple(sources.values()))
    outcome = first.outcome
    prepared = Prepared(extracted, outcome.pairs(first.arguments), replication)
    results = [
        Type((how.rows, *v.type.shape[1:]), v.type.dtype) if i in first.rows else v.type
        for i, v in enumerate(outcome.values)
    ]
    compiled = Compiled(outcome, extracted, prepared, results, pins=leaves)
    compiled.guards = [guard for replica in replicas for guard in replica.outcome.trace.guards]
    compiled.is_pure = False  # no gradient goes through it from outside: the graph is that of one replica
    return compiled


def _check_alike(first: _Replica, other: _Replica) -> None:
    one, two = first.outcome, other.outcome
    where = f"{first.name}: with {first.setting.rows} rows and with {other.setting.rows} rows a replica"
    if one.structure != two.structure or len(one.values) != len(two.values) or one.constants != two.constants:
        raise GraphError(f"{where} returns different nests or Python values; return the same whatever the rows")
    if list(map(id, one.updates)) != list(map(id, two.updates)) or len(one.grads) != len(two.grads):
        raise GraphError(f"{where} assigns different variables or gradients; let that not depend on the rows")
    paths = _results(one)
    for i, (x, y) in enumerate(zip(first.graph.outputs, other.graph.outputs, strict=True)):
        if (i in first.rows) != (i in other.rows) or (x.type != y.type and i not in first.rows):
            what = paths[i] if i < len(paths) else "a gradient or a variable"
            raise GraphError(f"{where} gives different shapes of {what}, {x.type} and {y.type}; use tg.all_reduce")


def _keys(extracted: Extract, trace: _Trace) -> list[Hashable]:
    """For each input what it is, the same in both traces."""
    getters = {id(getter): i for i, getter in enumerate(trace.getters)}
    found: dict[Hashable, None] = {}
    for source, v in zip(extracted.sources, extracted.graph.inputs, strict=True):
        key = (*_key(source, getters), v.type if isinstance(source, Immediate) else None)
        while key in found:
            key = (*key, None)
        found[key] = None
    return list(found)


def _key(source: Source, getters: dict[int, int]) -> tuple[Hashable, ...]:
    match source:
        case Argument():
            return "argument", source.position
        case Version():
            return "variable", id(source.variable)
        case Captured() | PresentGrad():
            return type(source).__name__, id(source.tensor)
        case Immediate():
            return "bytes", source.data
        case Live():
            return "live", getters[id(source.getter)]
        case _:
            return "name", id(source)


def _results(outcome: Outcome) -> list[str]:
    """The tensors that the function returns, as one writes them."""
    paths = _paths(outcome.structure, "result")
    return [path for path, constant in zip(paths, outcome.constants, strict=True) if constant is None]


def _paths(structure: Any, prefix: str) -> list[str]:
    """The leaves of a nest, as one writes them."""
    if structure is None:
        return []
    kind = structure[0]
    if kind == "leaf":
        return [prefix]
    if kind is dict:
        named = [f"[{key!r}]" for key in structure[1]]
    elif kind == "fields":
        named = [f".{name}" for name in structure[2]]
    else:
        named = [f"[{i}]" for i in range(len(structure) - (2 if kind == "named" else 1))]
    parts = structure[len(structure) - len(named) :]
    return [path for name, part in zip(named, parts, strict=True) for path in _paths(part, prefix + name)]


__all__ = ["all_reduce", "replica_index"]
