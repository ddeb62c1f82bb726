"""Graphs as text, for golden tests and bug reports.

One line a node: ``%3 = add(%1, %2) : float32[2,3]``; attributes in brackets; regions indented below.
"""

from __future__ import annotations

from telegrad.ir.graph import Graph
from telegrad.ir.value import Value


def to_text(graph: Graph, *, indent: str = "") -> str:
    """The graph, one line a node and a last line with the outputs."""
    names: dict[int, str] = {}
    lines: list[str] = []

    def name(value: Value) -> str:
        base = names[id(value.node)]
        return base if len(value.node.types) == 1 else f"{base}.{value.index}"

    for number, node in enumerate(graph.nodes):
        names[id(node)] = f"%{number}"
        attributes = ", ".join(f"{k}={v}" for k, v in node.op.attributes().items() if node.op.name != "input")
        head = f"{node.op.name}[{attributes}]" if attributes else node.op.name
        operands = ", ".join(name(v) for v in node.inputs)
        types = ", ".join(map(str, node.types))
        lines.append(f"{indent}%{number} = {head}({operands}) : {types}")
        lines.extend(to_text(region, indent=indent + "    ") for region in node.regions)
    lines.append(f"{indent}-> {', '.join(name(v) for v in graph.outputs)}")
    return "\n".join(lines)
