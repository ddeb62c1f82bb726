"""Slices before ops: where all that is needed of an elementwise op are its parts, each is computed where it is needed.
Exact.

The gates of a recurrent cell are slices of a sum, of what the inputs contribute and a product. Taken of the two terms,
they leave the sum to the kernel of the cell, and it is never written.
"""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.ir.graph import Graph
from telegrad.ir.value import Node, Value, origin
from telegrad.ops.elementwise import Elementwise
from telegrad.ops.slices import Slice

from telegrad_server.compiler.rebuild import rewritten


def slices_first(graph: Graph) -> Graph:
    """The graph with such ops on slices of their operands."""
    users: dict[int, list[Node]] = {}
    for node in graph.nodes:
        for node_id in {id(v.node) for v in node.inputs}:
            users.setdefault(node_id, []).append(node)
    leaving = {id(v.node) for v in graph.outputs}
    found = {id(n) for n in graph.nodes if id(n) not in leaving and _is_taken_apart(n, users)}

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if not isinstance(node.op, Slice) or id(node.inputs[0].node) not in found:
            return None
        whole = node.inputs[0].node
        with origin(whole.origin):
            return (whole.op(*[_part(v, node.op, whole.types[0].shape) for v in inputs[0].node.inputs]),)

    return rewritten(graph, rule) if found else graph


def _is_taken_apart(node: Node, users: dict[int, list[Node]]) -> bool:
    """Whether the node is an elementwise op behind others, and only slices of it are needed, by elementwise ops."""
    if not isinstance(node.op, Elementwise) or not node.inputs:
        return False
    if any(isinstance(v.node.op, Elementwise) and v.node.inputs for v in node.inputs):
        return False
    slices = users.get(id(node), [])
    if not slices or not all(isinstance(user.op, Slice) and user.types[0].size for user in slices):
        return False
    readers = [users.get(id(part), []) for part in slices]
    if not all(own and all(isinstance(n.op, Elementwise) for n in own) for own in readers):
        return False
    return sum([part.types[0].size for part in slices]) <= node.types[0].size


def _part(x: Value, op: Slice, shape: Sequence[int]) -> Value:
    """What a slice of the result needs of an operand, which may be broadcast."""
    lead = len(shape) - x.ndim
    bounds = [
        (0, 1, 1) if size == 1 else (op.start[a], op.stop[a], op.step[a]) for a, size in enumerate(x.shape, start=lead)
    ]
    if x.ndim == 0 or all(bound == (0, size, 1) for bound, size in zip(bounds, x.shape, strict=True)):
        return x
    start, stop, step = zip(*bounds, strict=True)
    return Slice(start, stop, step)(x)
