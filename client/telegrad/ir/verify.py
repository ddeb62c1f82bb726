"""Is this graph legal? What every pass may rely on, written as code.

Nothing is trusted: types are inferred again, so a graph that passes here runs on arrays of the shapes that it
says. A region is verified like a graph of its own: it is closed, and sees its owner's operands only.
"""

from __future__ import annotations

from typing import NoReturn

from telegrad.errors import GraphError, TelegradError
from telegrad.ir.graph import Function, Graph, Input, Replication
from telegrad.ir.op import Op, result_types
from telegrad.ir.types import Type
from telegrad.ir.value import Node, Origin

MAX_DEPTH = 32
"""How deep loops and other owners of regions may be nested: passes walk into them by recursion."""


MAX_REPLICAS = 1024
MAX_ROWS = 2**40


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
    """`verify` the graph; and updates must name one input and one output of equal type each.

    Of a data-parallel function: both graphs, the places of its rows, and that both reduce the same in one order.
    """
    verify(function.graph)
    how = function.replication
    if how is not None:
        if how.rest is not None:
            verify(how.rest)
        verify_replication(function, how)
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


def verify_replication(function: Function, how: Replication) -> None:
    """Raise GraphError unless what ``how`` says fits the function's graphs, each of which is legal."""
    if not (1 <= how.replicas <= MAX_REPLICAS and 1 <= how.rows <= MAX_ROWS):
        _refuse_replicas(
            f"{how.rows} rows on {how.replicas} replicas; there may be 1 to {MAX_REPLICAS} replicas and {MAX_ROWS} rows"
        )
    _verify_rows("input", how.split_inputs, function.graph.input_types, how.most)
    _verify_rows("result", how.row_outputs, function.graph.output_types, how.most)
    if not how.split_inputs:
        _refuse_replicas("no input is split")
    for i, j in function.updates:
        if i in how.split_inputs or j in how.row_outputs:
            _refuse_replicas(f"update ({i}, {j}) is of a value that is not the same on all replicas")
    if (how.rest is None) != (how.larger == how.taking):
        _refuse_replicas(f"{how.rows} rows on {how.replicas} replicas need {1 if how.rest else 2} graphs")
    if how.rest is not None:
        _verify_rest(function.graph, how.rest, how)


def _verify_rows(what: str, numbers: tuple[int, ...], types: tuple[Type, ...], rows: int) -> None:
    if len(set(numbers)) != len(numbers) or not all(0 <= i < len(types) for i in numbers):
        _refuse_replicas(f"the {what}s with rows are {numbers}, of {len(types)}")
    for i in numbers:
        if types[i].shape[:1] != (rows,):
            _refuse_replicas(f"{what} {i} is {types[i]}; it must have the {rows} rows of a replica")


def _verify_rest(graph: Graph, rest: Graph, how: Replication) -> None:
    """``rest`` is the same function on one row less."""
    for what, numbers, types, others in (
        ("input", how.split_inputs, graph.input_types, rest.input_types),
        ("result", how.row_outputs, graph.output_types, rest.output_types),
    ):
        short = tuple([Type((how.most - 1, *x.shape[1:]), x.dtype) if i in numbers else x for i, x in enumerate(types)])
        if others != short:
            _refuse_replicas(f"the {what}s of its two graphs do not fit each other")
    if _reductions(graph) != _reductions(rest):
        _refuse_replicas("its two graphs do not reduce the same values in the same order")


def _reductions(graph: Graph) -> list[tuple[Op, tuple[Type, ...]]]:
    found: list[tuple[Op, tuple[Type, ...]]] = []
    pending = [graph]
    while pending:
        current = pending.pop()
        found += [(node.op, node.types) for node in current.nodes if node.op.reduces]
        pending.extend(region for node in current.nodes for region in node.regions)
    return found


def _refuse_replicas(why: str) -> NoReturn:
    raise GraphError(f"a data-parallel function is wrong: {why}", reason="REPLICATION_INVALID")


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
