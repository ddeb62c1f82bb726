"""Scans whose trips can be cut by rows: a row of every state follows from that row of the states before, and from what
is the same for all rows. Threads then go through all trips by themselves, each with its rows, and wait for nobody.

So it is for recurrent layers, whose rows are the sequences of a batch. From types alone.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from telegrad.ir.graph import Graph, Input
from telegrad.ir.value import Node, Value
from telegrad.ops.elementwise import Cast, Elementwise
from telegrad.ops.linalg import Matmul
from telegrad.ops.loops import Scan
from telegrad.ops.reduce import Max, Sum
from telegrad.ops.shape import BroadcastTo, Concat, Permute, Reshape
from telegrad.ops.slices import Slice

from telegrad_server.compiler.fused import Fused

UNIT_ROWS = 4
"""Rows of a unit of work: few, so that threads get nearly the same, and as many as make a product's tile worth it."""


class Trip(NamedTuple):
    """What is known of the trips of a scan."""

    varying: int
    """So many of the body's first operands differ from trip to trip; the others are the same for all."""

    rows: int
    """The rows by which trips can be cut, 0 if they cannot. Whatever a trip makes has them as its first axis."""


def trip_of(op: Scan, body: Graph) -> Trip:
    """What is known of a scan over this body, in which groups of ops have become one."""
    return Trip(1 + op.carries + op.xs, _rows(body, op.carries))


def _rows(body: Graph, carries: int) -> int:
    states = body.inputs[1 : 1 + carries]
    if not states or any(v.ndim == 0 for v in states):
        return 0
    rows = states[0].shape[0]
    if rows < 2 or any(v.shape[0] != rows for v in (*states, *body.outputs[:carries])):
        return 0
    made: set[Value] = set(states)  # what a trip makes, or the one before
    for node in body.nodes:
        if isinstance(node.op, Input) or not node.inputs:
            continue
        if body.inputs[0] in node.inputs or not _keeps_rows(node, made, rows):
            return 0
        if not node.op.is_view or not made.isdisjoint(node.inputs):
            made.update(node.outputs)
    return rows


def _keeps_rows(node: Node, made: Set[Value], rows: int) -> bool:
    """Whether a row of each result needs no more of what is ``made`` than that row."""
    if node.op.is_view and made.isdisjoint(node.inputs):
        return True
    if any(not type.shape or type.shape[0] != rows for type in node.types):
        return False
    match node.op:
        case Fused():
            return _all_keep_rows(node, node.op, made, rows)
        case Matmul():
            x, y = node.inputs
            return x.ndim == y.ndim == 2 and y not in made
        case Concat(axis):
            return axis > 0
        case _:
            return node.op.is_view and _is_kept(node, made, rows)


def _all_keep_rows(node: Node, op: Fused, made: Set[Value], rows: int) -> bool:
    """The same for what is inside a group."""
    if op.size % rows or (op.size // rows) % (op.length or 1):
        return False
    inner = {own for own, v in zip(op.body.inputs, node.inputs, strict=True) if v in made}
    for own in op.body.body:
        if isinstance(own.op, Sum | Max) and 0 in own.op.axes:
            return False
        if inner.isdisjoint(own.inputs):
            continue
        if not _is_kept(own, inner, rows):
            return False
        inner.update(own.outputs)
    return True


def _is_kept(node: Node, made: Set[Value], rows: int) -> bool:
    """Whether what is made has its rows as its first axis, before and behind an op that reads it."""
    out = node.types[0].shape
    sources = [v for v in node.inputs if v in made]
    if any(not v.shape or v.shape[0] != rows for v in sources) or not out or out[0] != rows:
        return not sources
    match node.op:
        case Slice(start, stop, step):
            return (start[0], stop[0], step[0]) == (0, rows, 1)
        case Permute(axes):
            return axes[0] == 0
        case Sum(axes) | Max(axes):
            return 0 not in axes
        case Reshape():
            return True
        case BroadcastTo() | Elementwise() | Cast():
            return all(v.ndim == len(out) for v in sources)
        case _:
            return False
