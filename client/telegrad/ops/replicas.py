"""Values on the replicas of a data-parallel function: reductions across them, and what differs from one to the next.

A replica has its own rows, and runs the same graph as the others. A value *varies* if it depends on these rows or on
`ReplicaIndex` without an `AllReduce` between; everything else is the same on all replicas.

The gradients that meet here are those of one objective, L = sum_r w_r loss_r with the weight w_r = rows_r / rows of a
replica ("mean"), or L = sum_r loss_r ("sum"). The cotangent c_r of a value x_r is that of the replica's own loss, so
dL = sum_r w_r <c_r, dx_r>, or without the w_r. From this follow the rules of `AllReduce`; they hold at every order.
Outside of a data-parallel function there is one replica.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from telegrad.errors import DTypeError, GraphError
from telegrad.ir import types as t
from telegrad.ir.graph import Graph
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import DType, Type
from telegrad.ir.value import Node, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops.control import Checkpoint, CustomVjp, Gradient
from telegrad.ops.loops import Scan, Switch, While
from telegrad.ops.reduce import widened

REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class AllReduce(Op):
    """The mean (weighted by rows) or the sum of x over all replicas, the same on each; ``objective`` says of what the
    gradients are.

    Sums are those of a fixed tree over the replicas; 16-bit floats are summed in float32.
    """

    reduce: str
    objective: str = "mean"

    is_view = True  # of one replica it is the value itself
    reduces = True

    def infer(self, x: Type) -> Type:
        for word in (self.reduce, self.objective):
            if word not in REDUCTIONS:
                raise GraphError(f"all_reduce: reduce must be 'mean' or 'sum', not {word!r:.20}")
        if self.reduce == "mean" and not x.dtype.is_float:
            raise DTypeError(f"all_reduce: {x} has no mean over replicas; use reduce='sum', or astype a float")
        if x.dtype is t.bool_:
            raise DTypeError(f"all_reduce: {x} cannot be summed over replicas; use astype(int64)")
        return x

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        flowed = replace(self, reduce=self.objective)(g)
        if self.reduce == self.objective:
            return (flowed,)
        wide = widened(flowed)
        weight = wide.bind(ReplicaWeight(wide.dtype), ())[0]
        return (e.astype(wide / weight if self.objective == "mean" else wide * weight, x.dtype),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return x

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 0)


@dataclass(frozen=True)
class ReplicaIndex(Op):
    """The number of the replica, from 0, as int64[]."""

    def infer(self) -> Type:
        return Type((), t.int64)

    def eval(self, xp: ArrayModule) -> Array:
        return xp.full((), 0, t.int64)


@dataclass(frozen=True)
class ReplicaWeight(Op):
    """The part of all rows that the replica has."""

    dtype: DType

    def infer(self) -> Type:
        if not self.dtype.is_float:
            raise DTypeError(f"{self.name}: a weight is floating-point, not {self.dtype}")
        return Type((), self.dtype)

    def eval(self, xp: ArrayModule) -> Array:
        return xp.full((), 1, self.dtype)


# ---- what varies


Flags = list[bool]

Known = dict[tuple[int, tuple[bool, ...]], Flags]
"""Which results of a region vary, by the region and its inputs: nested loops ask for the same one again and again."""


def varying(graph: Graph, flags: Sequence[bool]) -> set[Value]:
    """The values of the graph that differ from replica to replica, ``flags`` saying which of its inputs do.

    A gradient with respect to a value that is the same on all is taken for reduced.
    """
    return _varying(graph, flags, {})


def region_flags(node: Node, given: Flags) -> tuple[list[Flags], Flags]:
    """Which inputs of the node's regions vary, and which of its results, given which of its operands do."""
    return _region_flags(node, given, {})


def _varying(graph: Graph, flags: Sequence[bool], known: Known) -> set[Value]:
    found = {v for v, flag in zip(graph.inputs, flags, strict=True) if flag}
    for node in graph.body:
        marks = _flags_of(node, [v in found for v in node.inputs], known)
        found.update([v for v, flag in zip(node.outputs, marks, strict=True) if flag])
    return found


def _flags_of(node: Node, given: Flags, known: Known) -> Flags:
    op = node.op
    if isinstance(op, AllReduce):
        return [False]
    if isinstance(op, ReplicaIndex | ReplicaWeight):
        return [True]
    if isinstance(op, Gradient):
        return given[2 * op.outputs :]
    if node.regions:
        return _region_flags(node, given, known)[1]
    return [any(given)] * len(node.types)


def _region_flags(node: Node, given: Flags, known: Known) -> tuple[list[Flags], Flags]:
    op, regions = node.op, node.regions

    def results(region: Graph, flags: Sequence[bool]) -> Flags:
        key = id(region), tuple(flags)
        if key not in known:
            found = _varying(region, flags, known)
            known[key] = [v in found for v in region.outputs]
        return known[key]

    match op:
        case Scan():
            inside = _settled(given, op.carries, lambda flags: results(regions[0], [False, *flags]))
            return [[False, *inside]], results(regions[0], [False, *inside])
        case While():
            inside = _settled(given, op.carries, lambda flags: results(regions[1], [False, *flags]))
            if any(results(regions[0], [False, *inside])):
                inside = [True] * op.carries + inside[op.carries :]
            return [[False, *inside]] * 2, inside[: op.carries]
        case Switch():
            each = [results(region, given[1:]) for region in regions]
            return [given[1:]] * len(regions), [given[0] or any(flags) for flags in zip(*each, strict=True)]
        case Checkpoint():
            return [given], results(regions[0], given)
        case CustomVjp():
            return [given, [True] * len(regions[1].inputs)], results(regions[0], given)
        case _:
            return [[True] * len(region.inputs) for region in regions], [True] * len(node.types)


def _settled(given: Flags, carries: int, trip: Callable[[Flags], Flags]) -> Flags:
    """Which operands vary in any trip: a carry does if it begins to, or if a trip makes it."""
    flags = list(given)
    while True:
        after = [a or b for a, b in zip(flags[:carries], trip(flags)[:carries], strict=True)]
        if after == flags[:carries]:
            return flags
        flags[:carries] = after


def has_any(graph: Graph, kinds: tuple[type[Op], ...]) -> bool:
    """Whether the graph or one of its regions holds an op of these classes."""
    pending: Collection[Graph] = [graph]
    while pending:
        if any(isinstance(node.op, kinds) for g in pending for node in g.nodes):
            return True
        pending = [region for g in pending for node in g.nodes for region in node.regions]
    return False


__all__: list[str] = []
