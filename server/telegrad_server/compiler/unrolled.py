"""A function with nothing hidden: every replica, and every trip of its loops, as nodes of their own. Rounding.

For looking into it, not for speed: a value in the body of a loop is as many values as there are trips, and each has a
place of its own here.
"""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.ir import types as t
from telegrad.ir.graph import Function, Graph
from telegrad.ir.value import Node, Value, apply, origin
from telegrad.ops.elementwise import Constant
from telegrad.ops.loops import Scan
from telegrad.ops.shape import stack

from telegrad_server.compiler.pipeline import lowered
from telegrad_server.compiler.rebuild import rewritten
from telegrad_server.compiler.replicas import divided

MOST_NODES = 50_000
"""A graph that would have more has its outermost loops written out only, or none: a plan takes time for each node."""


def unrolled(function: Function) -> Graph:
    """The function's graph on all its rows, lowered; its nodes keep their origins.

    While loops and branches stay nodes, as do loops of too many trips.
    """
    graph = lowered(function.graph)
    if function.replication is not None:
        rest = function.replication.rest
        graphs = [graph] if rest is None else [graph, lowered(rest)]
        graph = divided(function, graphs, None).graph
    while any(_is_to_be_written_out(node) for node in graph.nodes) and _size(graph) <= MOST_NODES:
        graph = rewritten(graph, _written_out)
    return graph


def _is_to_be_written_out(node: Node) -> bool:
    return isinstance(node.op, Scan) and node.op.length > 0


def _size(graph: Graph) -> int:
    """How many nodes there would be once the outermost loops are written out."""
    return sum(
        node.op.length * (len(node.regions[0]) + node.op.xs) if isinstance(node.op, Scan) else 1 for node in graph.nodes
    )


def _written_out(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    if not isinstance(node.op, Scan) or not node.op.length:
        return None
    op, body = node.op, node.regions[0]
    carries, xs = list(inputs[: op.carries]), inputs[op.carries : op.carries + op.xs]
    constants = inputs[op.carries + op.xs :]
    stacked: list[list[Value]] = [[] for _ in body.outputs[op.carries :]]
    with origin(node.origin):
        for trip in range(op.length):
            at = op.length - 1 - trip if op.reverse else trip
            (number,) = apply(Constant(at, t.int64), ())
            results = body.inline([number, *carries, *[x[at] for x in xs], *constants])
            carries = list(results[: op.carries])
            for own, value in zip(stacked, results[op.carries :], strict=True):
                own.append(value)
        return [*carries, *[stack(own[::-1] if op.reverse else own) for own in stacked]]
