"""What a replica's graph says about all replicas, in terms of one sum: means, weights and numbers of replicas.

A mean is the sum of weighted values; 16-bit floats are summed in float32. A reduction of what is the same on all
replicas needs none of them. Loops are cut in two where one of them does what varies and what does not.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from telegrad.errors import GraphError
from telegrad.ir import types as t
from telegrad.ir.graph import Graph, Replication, new_input
from telegrad.ir.op import identity
from telegrad.ir.text import to_text
from telegrad.ir.value import Node, Origin, Value, apply, origin
from telegrad.ops import elementwise as e
from telegrad.ops.loops import INDEX
from telegrad.ops.replicas import AllReduce, ReplicaIndex, ReplicaWeight, has_any, region_flags, varying

from telegrad_server.compiler.loops import prune_loops
from telegrad_server.compiler.rebuild import rewritten

CUT_DEPTH = 3
"""Loops in loops are cut so deep: each level doubles what is looked at."""


def settled(graphs: Sequence[Graph], flags: Sequence[bool], how: Replication) -> list[Graph]:
    """The function's graphs, each with no other `AllReduce` than sums of values that vary or that differ between them.

    ``flags`` says which inputs are split. `ReplicaWeight` is gone and `ReplicaIndex` is in no region. Raises GraphError
    for a reduction in a loop, or if the graphs do not reduce the same.
    """
    for graph in graphs:
        _refuse_inner(graph)
    cut = [_separated(graph, flags) for graph in graphs]
    reductions = [[node for node in graph.body if isinstance(node.op, AllReduce)] for graph in cut]
    if len({tuple([(node.op, node.types) for node in each]) for each in reductions}) > 1:
        raise GraphError(
            f"replicas with {how.most} and with {how.most - 1} rows do not reduce the same values in the same order",
            reason="REPLICATION_INVALID",
        )
    keys = Keys()
    numbers = [keys.of(graph, varying(graph, flags)) for graph in cut]
    needless: set[int] = set()
    for i, nodes in enumerate(zip(*reductions, strict=True)):
        operands = {number.get(node.inputs[0]) for number, node in zip(numbers, nodes, strict=True)}
        if len(operands) == 1 and None not in operands:
            needless.add(i)
    found: list[Graph] = []
    for number, (graph, nodes) in enumerate(zip(cut, reductions, strict=True)):
        gone = {id(nodes[i]) for i in needless}
        weight = (how.most - number) / how.rows
        found.append(_lowered(graph, gone, how.taking, weight))
    return found


class Keys:
    """Numbers for what is the same on all replicas: equal in both graphs if it is the same computation."""

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}

    def of(self, graph: Graph, varies: set[Value]) -> dict[Value, int]:
        """The number of each value of the graph that does not vary."""
        found: dict[Value, int] = {}
        reductions = 0
        for i, v in enumerate(graph.inputs):
            if v not in varies:
                found[v] = self._number("input", i)
        for node in graph.body:
            if isinstance(node.op, AllReduce):
                found[Value(node)] = self._number("reduction", reductions)
                reductions += 1
            elif not any(v in varies for v in node.outputs):
                regions = tuple([to_text(region) for region in node.regions])
                key = self._number(identity(node.op), regions, *[found[v] for v in node.inputs])
                found.update({v: self._number("output", key, v.index) for v in node.outputs})
        return found

    def _number(self, *key: Hashable) -> int:
        return self._known.setdefault(key, len(self._known))


def _refuse_inner(graph: Graph) -> None:
    for node in graph.body:
        if any(has_any(region, (AllReduce,)) for region in node.regions):
            error = GraphError(
                f"an all_reduce in the body of a {node.op.name}, or a gradient there with respect to what is the same "
                "on all replicas, cannot be moved out of it; carry the values and reduce them behind it",
                reason="REPLICATION_INVALID",
            )
            if isinstance(node.origin, Origin):
                error.details |= {"node": node.origin.node, "op": node.op.name}
            raise error


def _separated(graph: Graph, flags: Sequence[bool], depth: int = CUT_DEPTH) -> Graph:
    """The graph with two nodes for one of which some results vary and others do not; in its regions as well."""
    if depth == 0:
        return graph
    varies = varying(graph, flags)
    mixed = {id(node) for node in graph.body if len({v in varies for v in node.outputs}) > 1}
    if not mixed:
        return graph

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if id(node) not in mixed:
            return None
        inside, _ = region_flags(node, [v in varies for v in node.inputs])
        regions = tuple([_separated(region, own, depth - 1) for region, own in zip(node.regions, inside, strict=True)])
        one, other = (Node(node.op, inputs, node.types, regions, node.origin).outputs for _ in range(2))
        return [a if v in varies else b for v, a, b in zip(node.outputs, one, other, strict=True)]

    return prune_loops(rewritten(graph, rule))


def _lowered(graph: Graph, needless: set[int], replicas: int, weight: float) -> Graph:
    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if not isinstance(node.op, AllReduce):
            return _grounded(node, inputs, None, weight)
        with origin(node.origin):
            return (_reduced(node.op, inputs[0], id(node) in needless, replicas, weight),)

    return rewritten(graph, rule)


def _reduced(op: AllReduce, x: Value, is_needless: bool, replicas: int, weight: float) -> Value:
    if replicas == 1:
        return AllReduce("sum")(x)
    if is_needless and op.reduce == "mean":
        return x
    wide = e.astype(x, t.float32) if x.dtype.is_float and x.dtype.itemsize == 2 else x
    if is_needless:
        wide = wide * _number(replicas, wide)
    else:
        wide = AllReduce("sum")(wide * _number(weight, wide) if op.reduce == "mean" else wide)
    return e.astype(wide, x.dtype)


def _number(number: float, like: Value) -> Value:
    return apply(e.literal_op(number, like.dtype), ())[0]


def _grounded(node: Node, inputs: tuple[Value, ...], index: Value | None, weight: float) -> Sequence[Value] | None:
    """The node with the weight known, and the number of the replica given to its regions from outside."""
    if isinstance(node.op, ReplicaWeight):
        return apply(e.Constant(weight, node.op.dtype), (), origin=node.origin)
    if isinstance(node.op, ReplicaIndex):
        return None if index is None else (index,)
    if not any(has_any(region, (ReplicaIndex, ReplicaWeight)) for region in node.regions):
        return None
    outer = apply(ReplicaIndex(), (), origin=node.origin)[0] if index is None else index
    regions: list[Graph] = []
    for region in node.regions:
        given = new_input(INDEX)
        wider = Graph((*region.inputs, given), region.outputs, region.nodes)
        regions.append(rewritten(wider, lambda n, xs, given=given: _grounded(n, xs, given, weight)))
    return Node(node.op, (*inputs, outer), node.types, tuple(regions), node.origin).outputs
