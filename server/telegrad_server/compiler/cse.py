"""Common subexpressions: of two pure nodes with the same op on the same values, one is enough. Exact."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from telegrad.ir.graph import Graph
from telegrad.ir.op import identity
from telegrad.ir.value import Node, Value

from telegrad_server.compiler.rebuild import rewritten


def common_subexpressions(graph: Graph) -> Graph:
    """Let every value be computed once; the first node stays, with its origin."""
    known: dict[Hashable, Node] = {}

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if not node.op.is_pure or node.regions:
            return None
        key = (identity(node.op), *[(id(v.node), v.index) if v.index else id(v.node) for v in inputs])
        found = known.get(key)
        if found is not None:
            return found.outputs
        if inputs is node.inputs:
            known[key] = node
            return None
        kept = known[key] = Node(node.op, inputs, node.types, node.regions, node.origin)
        return kept.outputs

    return rewritten(graph, rule)
