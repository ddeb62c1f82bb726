"""Common subexpressions: of two pure nodes with the same op on the same values, one is enough. Exact."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.ir.graph import Graph, Input
from telegrad.ir.value import Node, Value
from telegrad_server.compiler.rebuild import rewritten


def common_subexpressions(graph: Graph) -> Graph:
    """Let every value be computed once; the first place keeps its origin."""
    known: dict[object, tuple[Value, ...]] = {}

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if isinstance(node.op, Input) or not node.op.is_pure or node.regions:
            return None
        # repr tells 0.0 from -0.0 and finds NaN equal to itself, where == does neither
        number = repr(node.op.value) if node.op.name == "constant" else None  # type: ignore[attr-defined]
        key = (node.op, number, tuple([(id(v.node), v.index) for v in inputs]))
        found = known.get(key)
        if found is None:
            unchanged = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            kept = node if unchanged else Node(node.op, inputs, node.types, node.regions, node.origin)
            found = known[key] = kept.outputs
        return found

    return rewritten(graph, rule)
