"""Graphs as text and back, for golden tests and bug reports.

One line a node, regions indented below their owner::

    %0 = input[shape=(2, 3), dtype=float32]() : float32[2,3]
    %1 = constant[value=-0.0, dtype=float32]() : float32[]
    %2 = add(%0, %1) : float32[2,3]
    -> %2

A node of several outputs writes them ``%2.0``, ``%2.1``. Serial numbers and origins are not part of the text.
"""

from __future__ import annotations

import ast
import math
import re
from typing import Any

from telegrad.errors import GraphError
from telegrad.ir.graph import Graph, Input
from telegrad.ir.op import Op, make_op, result_types
from telegrad.ir.types import BY_NAME, DType
from telegrad.ir.value import Node, Value

_INDENT = "    "


def to_text(graph: Graph) -> str:
    """The graph, one line a node and a last line with the outputs."""
    return "\n".join(_lines(graph, ""))


def _lines(graph: Graph, indent: str) -> list[str]:
    numbers = {id(node): number for number, node in enumerate(graph.nodes)}

    def name(value: Value) -> str:
        base = f"%{numbers[id(value.node)]}"
        return base if len(value.node.types) == 1 else f"{base}.{value.index}"

    lines: list[str] = []
    for number, node in enumerate(graph.nodes):
        operands = ", ".join(name(v) for v in node.inputs)
        types = ", ".join(map(str, node.types))
        lines.append(f"{indent}%{number} = {op_text(node.op)}({operands}) : {types}")
        for region in node.regions:
            lines += _lines(region, indent + _INDENT)
    lines.append(f"{indent}-> {', '.join(name(v) for v in graph.outputs)}")
    return lines


def op_text(op: Op) -> str:
    """The op's name, with the attributes that are not its defaults in brackets."""
    found = op.attributes().items()
    attributes = ", ".join(f"{key}={value if isinstance(value, DType) else repr(value)}" for key, value in found)
    return f"{op.name}[{attributes}]" if attributes else op.name


_LINE = re.compile(r"%(\d+) = (\w+)(?:\[(.*)\])?\(([^()]*)\) : .*")


def from_text(text: str) -> Graph:
    """The graph that `to_text` wrote. Types are inferred, not read. GraphError for a line that cannot be read.

    Every op that is named must be registered, that is, its module imported.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    graph, end = _graph(lines, 0, "")
    if end != len(lines):
        raise GraphError(f"graph text goes on after its outputs: {lines[end]!r}")
    return graph


def _graph(lines: list[str], at: int, indent: str) -> tuple[Graph, int]:
    nodes: list[Node] = []
    while at < len(lines) and lines[at].startswith(indent):
        line = lines[at][len(indent) :]
        at += 1
        if line.startswith("->"):
            inputs = tuple(Value(node) for node in nodes if isinstance(node.op, Input))
            return Graph(inputs, tuple(_values(line[2:], nodes)), tuple(nodes)), at
        match = _LINE.fullmatch(line)
        if match is None or int(match[1]) != len(nodes):
            raise GraphError(f"graph text: {line!r} is no node, or not node {len(nodes)}")
        regions: list[Graph] = []
        while at < len(lines) and lines[at].startswith(indent + _INDENT):
            region, at = _graph(lines, at, indent + _INDENT)
            regions.append(region)
        op = make_op(match[2], _attributes(match[3] or ""))
        values = tuple(_values(match[4], nodes))
        types = result_types(op, tuple(v.type for v in values), tuple(regions))
        nodes.append(Node(op, values, types, tuple(regions)))
    raise GraphError("graph text ends without its outputs (->)")


def _values(text: str, nodes: list[Node]) -> list[Value]:
    found: list[Value] = []
    for word in filter(None, text.replace(",", " ").split()):
        number, _, index = word.removeprefix("%").partition(".")
        node = nodes[int(number)] if number.isdigit() and int(number) < len(nodes) else None
        if node is None or int(index or 0) >= len(node.types):
            raise GraphError(f"graph text: {word!r} is no value that stands before")
        found.append(Value(node, int(index or 0)))
    return found


def _attributes(text: str) -> dict[str, Any]:
    if not text:
        return {}
    call = ast.parse(f"op({text})", mode="eval").body
    if not isinstance(call, ast.Call):
        raise GraphError(f"graph text: {text!r} are no attributes")
    return {str(keyword.arg): _attribute(keyword.value) for keyword in call.keywords}


def _attribute(tree: ast.expr) -> bool | int | float | str | DType | tuple[Any, ...] | None:
    negative = isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub)
    name = tree.operand if isinstance(tree, ast.UnaryOp) and negative else tree
    if isinstance(name, ast.Name) and name.id in ("inf", "nan"):
        number = math.inf if name.id == "inf" else math.nan
        return -number if negative else number
    if isinstance(tree, ast.Name) and tree.id in BY_NAME:
        return BY_NAME[tree.id]
    return ast.literal_eval(tree)
