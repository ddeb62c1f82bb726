"""Is this graph legal? What every pass may rely on, written as code.

Nothing is trusted: types are inferred again, so a graph that passes here runs on arrays of the shapes that it
says. A region is verified like a graph of its own: it is closed, and sees its owner's operands only.
"""

from __future__ import annotations

from typing import NoReturn

from telegrad.errors import GraphError, TelegradError
from telegrad.ir.graph import Function, Graph, Input
from telegrad.ir.op import result_types
from telegrad.ir.value import Node, Origin

MAX_DEPTH = 32
"""How deep loops and other owners of regions may be nested: passes walk into them by recursion."""


def verify(graph: Graph) -> None:
    """Raise GraphError, with the node's number in ``details``, unless the graph and all its regions are legal.

    Legal: nodes stand after their operands, types are as inferred, inputs are the listed ones and outputs exist.
    """
    pending = [(graph, 0)]
    while pending:
        current, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise GraphError(f"regions are nested more than {MAX_DEPTH} deep", reason="REGION_INVALID")
        _verify_one(current)
        pending.extend((region, depth + 1) for node in current.nodes for region in node.regions)


def verify_function(function: Function) -> None:
    """`verify` the graph; and updates must name one input and one output of equal type each."""
    verify(function.graph)
    inputs, outputs = function.graph.inputs, function.graph.outputs
    updated: set[int] = set()
    for i, j in function.updates:
        if not (0 <= i < len(inputs) and 0 <= j < len(outputs)):
            raise GraphError(f"update ({i}, {j}) names an input or result that is not there", reason="GRAPH_DANGLING")
        if i in updated:
            raise GraphError(f"input {i} is updated twice")
        if inputs[i].type != outputs[j].type:
            raise GraphError(f"a variable of type {inputs[i].type} cannot become {outputs[j].type}")
        updated.add(i)


def _verify_one(graph: Graph) -> None:
    listed = {id(v.node) for v in graph.inputs}
    if len(listed) != len(graph.inputs):
        raise GraphError("a graph lists an input twice")
    widths: dict[int, int] = {}  # nodes seen so far -> how many outputs they have
    for number, node in enumerate(graph.nodes):
        for value in node.inputs:
            width = widths.get(id(value.node))
            if width is None:
                _refuse(number, node, "uses a value that does not stand before it", reason="GRAPH_FORWARD_REF")
            if not 0 <= value.index < width:
                _refuse(number, node, f"uses output {value.index} of a node that has {width}", reason="GRAPH_DANGLING")
        if id(node) in widths:
            _refuse(number, node, "stands in the graph twice")
        if isinstance(node.op, Input) and id(node) not in listed:
            _refuse(number, node, "is an input that the graph does not list")
        _verify_types(number, node)
        widths[id(node)] = len(node.types)
    for value in graph.inputs:
        if id(value.node) not in widths or not isinstance(value.node.op, Input):
            raise GraphError("an input of the graph is no input node of it", reason="GRAPH_DANGLING")
    for number, value in enumerate(graph.outputs):
        if not 0 <= value.index < widths.get(id(value.node), 0):
            raise GraphError(f"output {number} of the graph is no value of it", reason="GRAPH_DANGLING")


def _verify_types(number: int, node: Node) -> None:
    try:
        found = result_types(node.op, tuple([v.type for v in node.inputs]), node.regions)
    except TelegradError as error:
        error.details.setdefault("node", _number(node, number))
        error.details.setdefault("op", node.op.name)
        raise
    if found != node.types:
        said, inferred = ", ".join(map(str, node.types)), ", ".join(map(str, found))
        _refuse(number, node, f"says its types are ({said}); they are ({inferred})")


def _refuse(number: int, node: Node, why: str, *, reason: str | None = None) -> NoReturn:
    number = _number(node, number)
    raise GraphError(f"node {number} ({node.op.name}) {why}", reason=reason, node=number, op=node.op.name)


def _number(node: Node, number: int) -> int:
    """The number that the client knows the node by; that of its place in its region if it came another way."""
    return node.origin.node if isinstance(node.origin, Origin) else number
