"""What passes share: a graph from changed outputs, in running order, without what nobody needs."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.ir.graph import Graph, Rule, rewrite, topological
from telegrad.ir.value import Value


def ordered(inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
    """The graph between inputs and outputs in the order in which its nodes were made; dead code is gone."""
    known = [v.node for v in inputs]
    inner = topological(outputs, stop=known)
    inner.sort(key=lambda node: node.serial)
    return Graph(tuple(inputs), tuple(outputs), (*known, *inner))


def rewritten(graph: Graph, rule: Rule) -> Graph:
    """The graph after ``rule`` has seen every node once (`telegrad.ir.graph.rewrite`)."""
    return ordered(graph.inputs, rewrite(graph, rule))
