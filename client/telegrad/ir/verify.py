"""Is this graph legal? What every pass may rely on, written as code."""

from __future__ import annotations

from telegrad.errors import GraphError
from telegrad.ir.graph import Graph, Input
from telegrad.ir.op import result_types


def verify(graph: Graph) -> None:
    """Raise GraphError unless nodes stand after their operands, types are as inferred, and regions are legal too."""
    pending = [graph]
    while pending:
        _verify_one(current := pending.pop())
        pending.extend(region for node in current.nodes for region in node.regions)


def _verify_one(graph: Graph) -> None:
    seen: set[int] = set()
    for number, node in enumerate(graph.nodes):
        for value in node.inputs:
            if id(value.node) not in seen:
                raise GraphError(f"node {number} ({node.op.name}) uses a value that does not stand before it")
        found = result_types(node.op, tuple(v.type for v in node.inputs), node.regions)
        if found != node.types:
            raise GraphError(f"node {number} ({node.op.name}) has types {node.types}, inferred {found}")
        seen.add(id(node))
    inputs = {id(v.node) for v in graph.inputs}
    for node in graph.nodes:
        if isinstance(node.op, Input) and id(node) not in inputs:
            raise GraphError("a graph holds an input that it does not list")
    for value in (*graph.inputs, *graph.outputs):
        if id(value.node) not in seen or value.index >= len(value.node.types):
            raise GraphError("an input or output of the graph is no value of it")
