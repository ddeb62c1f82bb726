"""Sums of pieces: what is put together of slices, each among zeros, is put together at once. Exact.

Where a value is taken apart, as the joint projection of attention is, or the gates of a recurrent cell, its gradient is
a sum of as many arrays of its whole size. Nothing but zeros is added to any element, which makes -0 to 0 and no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from telegrad.ir.graph import Graph
from telegrad.ir.value import Node, Value, origin
from telegrad.ops.elementwise import Add, Elementwise
from telegrad.ops.shape import Concat
from telegrad.ops.slices import Unslice

from telegrad_server.compiler.rebuild import rewritten


def joined_pieces(graph: Graph) -> Graph:
    """The graph with the pieces of each such sum joined along their axis, where they leave no gap."""
    if not any(isinstance(node.op, Unslice) for node in graph.nodes):
        return graph
    uses = Counter([id(v.node) for node in graph.nodes for v in node.inputs] + [id(v.node) for v in graph.outputs])

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if not isinstance(node.op, Add):
            return None
        pieces = _pieces(node.inputs, uses)
        axis = None if pieces is None else _axis(pieces)
        if pieces is None or axis is None:
            return None
        found = _pieces(inputs, None)
        assert found is not None
        found.sort(key=lambda piece: _op(piece).start[axis])
        with origin(node.origin):
            values = [piece.inputs[0] for piece in found]
            if all(isinstance(v.node.op, Elementwise) for v in values):  # where the zeros cost nothing
                return (Concat(axis)(*[v + 0 for v in values]),)
            return (Concat(axis)(*values) + 0,)

    return rewritten(graph, rule)


def _pieces(terms: Sequence[Value], uses: Counter[int] | None) -> list[Node] | None:
    """The pieces that are added up; None if anything else is, or if ``uses`` says that a part is needed by itself."""
    found: list[Node] = []
    pending = list(terms)
    while pending:
        node = pending.pop().node
        if uses is not None and uses[id(node)] != 1:
            return None
        if isinstance(node.op, Add):
            pending += node.inputs
        elif isinstance(node.op, Unslice):
            found.append(node)
        else:
            return None
    return found


def _axis(pieces: Sequence[Node]) -> int | None:
    """The only axis along which the pieces differ, if they fill it."""
    shape = _op(pieces[0]).shape
    ops = [_op(piece) for piece in pieces]
    if any(op.shape != shape or any(step != 1 for step in op.step) for op in ops):
        return None
    cut = [a for a, size in enumerate(shape) if any((op.start[a], op.stop[a]) != (0, size) for op in ops)]
    if len(cut) != 1:
        return None
    (axis,) = cut
    end = 0
    for op in sorted(ops, key=lambda op: op.start[axis]):
        if op.start[axis] != end:
            return None
        end = op.stop[axis]
    return axis if end == shape[axis] else None


def _op(piece: Node) -> Unslice:
    assert isinstance(piece.op, Unslice)
    return piece.op
