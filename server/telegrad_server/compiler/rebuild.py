"""What passes share: a changed graph in running order, without what nobody needs.

The order of a graph's nodes is the order in which a plan runs them, and decides how much memory is live at
once. So a rewrite puts what replaces a node where the node stood; a walk from the outputs would not (it
computes the whole backward before the first weight's gradient, and holds every cotangent until then).
"""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.ir.graph import Graph, Rule, topological
from telegrad.ir.value import Node, Value


def ordered(inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
    """The graph between inputs and outputs in the order in which its nodes were made; dead code is gone."""
    known = [v.node for v in inputs]
    inner = topological(outputs, stop=known)
    inner.sort(key=lambda node: node.serial)
    return Graph(tuple(inputs), tuple(outputs), (*known, *inner))


def rewritten(graph: Graph, rule: Rule) -> Graph:
    """The graph after ``rule`` has seen every node once, inputs before users; dead code is gone.

    ``rule(node, new_inputs)`` returns the values that replace the node's outputs, or None to keep the node.
    """
    new: dict[int, Sequence[Value]] = {}  # old node -> what its outputs became
    order: list[Node] = [v.node for v in graph.inputs]
    placed = {id(node) for node in order}
    for node in graph.nodes:
        if id(node) in placed:
            continue
        is_same = True
        inputs = node.inputs
        for v in inputs:
            if id(v.node) in new:
                is_same = False
                inputs = tuple([new[id(v.node)][v.index] if id(v.node) in new else v for v in inputs])
                break
        results = rule(node, inputs)
        if results is not None:
            new[id(node)] = results
            for value in results:
                if id(value.node) not in placed:
                    order += _made(value, placed)
        else:
            if not is_same:
                kept = Node(node.op, inputs, node.types, node.regions, node.origin)
                new[id(node)] = (Value(kept),) if len(kept.types) == 1 else kept.outputs
                node = kept
            order.append(node)
            placed.add(id(node))
    outputs = tuple([new[id(v.node)][v.index] if id(v.node) in new else v for v in graph.outputs])
    return Graph(graph.inputs, outputs, _needed(graph.inputs, outputs, order))


def without_dead_code(graph: Graph) -> Graph:
    """The graph without the nodes that no output needs. Inputs stay: they are the function's signature."""
    return Graph(graph.inputs, graph.outputs, _needed(graph.inputs, graph.outputs, graph.nodes))


def _made(value: Value, placed: set[int]) -> list[Node]:
    """The nodes that the value needs and that have no place yet, in the order in which they were made."""
    found: list[Node] = []
    pending = [value.node]
    placed.add(id(value.node))
    while pending:
        node = pending.pop()
        found.append(node)
        for v in node.inputs:
            if id(v.node) not in placed:
                placed.add(id(v.node))
                pending.append(v.node)
    found.sort(key=lambda node: node.serial)
    return found


def _needed(inputs: Sequence[Value], outputs: Sequence[Value], order: Sequence[Node]) -> tuple[Node, ...]:
    needed = {id(v.node) for v in outputs} | {id(v.node) for v in inputs}
    kept: list[Node] = []
    for node in reversed(order):
        if id(node) in needed:
            kept.append(node)
            needed.update([id(v.node) for v in node.inputs])
    kept.reverse()
    return tuple(kept)
