"""Fusion: each group of ops becomes one op that a kernel computes. Rounding: sums are added up in another order, and
exp, log, tanh and erf differ from NumPy's in the last bits; all else has the same bits.

Which bits a value has follows from its own op and type, never from which others are in its group: so replicas of which
a worker runs one, and another two, agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from heapq import heapify, heappop, heappush

from telegrad.ir import types as t
from telegrad.ir.graph import Graph, new_input
from telegrad.ir.text import to_text
from telegrad.ir.value import Node, Value, origin
from telegrad.ops import elementwise as e
from telegrad.ops.cross_entropy import SoftmaxCrossEntropy
from telegrad.ops.index import CheckedIndex
from telegrad.ops.loops import Loop, Scan
from telegrad.ops.probability import LogSoftmax, Softmax
from telegrad.ops.reduce import Max, Sum
from telegrad.ops.shape import BroadcastTo, Reshape, expand_dims, reshape

from telegrad_server.compiler.dialect import Dialect
from telegrad_server.compiler.expressions import C
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.groups import LONGEST_ROW, Group, Grouping, is_constant, row_length
from telegrad_server.compiler.rebuild import rewritten, without_dead_code
from telegrad_server.compiler.repeats import repeat_cheap
from telegrad_server.compiler.sliced import slices_first

LEAST_ELEMENTS = 1 << 16
"""Elements that the elementwise ops of a function make: one with fewer is not worth the wait for a compiler."""

SHORTEST_LINE = 16
"""Elements of a channel that are summed up by themselves."""

MOST_KERNELS = 256
"""Different ones in one graph; one with more is left as it is, for a compiler would take minutes."""


def is_worth_fusing(graph: Graph) -> bool:
    """Whether a function makes so many elements that kernels are worth their compilation."""
    return _elements(graph) >= LEAST_ELEMENTS


def _elements(graph: Graph) -> int:
    total = 0
    for node in graph.nodes:
        if isinstance(node.op, Loop):
            trips = node.op.length if isinstance(node.op, Scan) else 1
            total += trips * sum([_elements(region) for region in node.regions])
        elif isinstance(node.op, e.Elementwise):
            total += node.types[0].size
    return total


def fuse(graph: Graph, dialect: Dialect = C) -> Graph:
    """The graph with a `Fused` op for each group. Softmax and cross-entropy over the last axis become their parts."""
    return _fused(graph, dialect, least_ops=2)


def fuse_region(graph: Graph, dialect: Dialect = C) -> Graph:
    """The same for what a loop repeats. Ops that stand alone get kernels as well: trips without Python between them."""
    return _fused(graph, dialect, least_ops=1)


def _fused(graph: Graph, dialect: Dialect, *, least_ops: int) -> Graph:
    graph = slices_first(rewritten(graph, partial(_in_parts, dialect)))
    grouping = Grouping(graph, least_ops=least_ops, dialect=dialect)
    groups = list(grouping.groups())
    if not groups:
        return graph
    position = {id(node): i for i, node in enumerate(graph.nodes)}
    repeat_cheap(grouping)
    grouping.note_repeats()
    for group in groups:
        group.nodes.sort(key=lambda node: position[id(node)])
        group.repeats.sort(key=lambda node: position[id(node)])
    made = {id(group): _Made(group, grouping) for group in groups}
    if len({to_text(m.body) for m in made.values()}) > MOST_KERNELS:
        return graph
    return _rebuilt(graph, grouping, made, position)


# ---- parts


def _in_parts(dialect: Dialect, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    op = node.op
    if isinstance(op, Sum):
        return _channel_sums(op, node, inputs[0])
    if not isinstance(op, Softmax | LogSoftmax | SoftmaxCrossEntropy):
        return None
    (x, *rest) = inputs
    rows = Sum((op.axis,), True)
    if x.dtype is not t.float32 and x.dtype not in dialect.narrow:
        return None
    if not x.size or not 2 <= row_length(rows, x.shape) <= LONGEST_ROW:
        return None
    with origin(node.origin):
        if x.dtype in dialect.narrow:  # as their ``eval``: in float32, and rounded once
            wide = _in_parts(dialect, node, (e.astype(x, t.float32), *rest))
            return wide and [e.astype(y, type.dtype) for y, type in zip(wide, node.types, strict=True)]
        top = Max((op.axis,), True)(x)
        if isinstance(op, SoftmaxCrossEntropy):
            return _cross_entropy(op, x, rest[0], top)
        shifted = x - top
        if isinstance(op, LogSoftmax):
            return (shifted - e.log(rows(e.exp(shifted))),)
        p = e.exp(shifted)
        return (p / rows(p),)


def _channel_sums(op: Sum, node: Node, x: Value) -> Sequence[Value] | None:
    """A sum for each channel, as batch norm takes them, as sums over rows, which groups hold, and the sum of these."""
    axes = [a for a, size in enumerate(x.shape) if size != 1]
    kept = [i for i, a in enumerate(axes) if a not in op.axes]
    if x.dtype is not t.float32 or not kept or not 0 < kept[0] <= kept[-1] < len(axes) - 1:
        return None
    inner = Sum(tuple(axes[kept[-1] + 1 :]), True)
    if kept[-1] - kept[0] != len(kept) - 1 or not SHORTEST_LINE <= row_length(inner, x.shape) <= LONGEST_ROW:
        return None
    with origin(node.origin):
        return (op(inner(x)),)


def _cross_entropy(op: SoftmaxCrossEntropy, x: Value, labels: Value, top: Value) -> tuple[Value, Value]:
    rows = Sum((op.axis,), True)
    finite = e.where(e.isfinite(top), top, 0)
    total = e.log(rows(e.exp(x - finite))) + finite
    index = expand_dims(CheckedIndex(x.shape[op.axis], wraps=False)(labels), axis=op.axis)
    line = tuple(size if axis == op.axis else 1 for axis, size in enumerate(x.shape))
    classes = labels.bind(e.Iota(line, op.axis, t.int64), ())[0]
    picked = rows(e.where(e.equal(index, classes), x, 0))
    return reshape(total - picked, labels.shape), reshape(total, labels.shape)


# ---- kernels


class _Made:
    """The body of a group, and what comes in and goes out."""

    def __init__(self, group: Group, grouping: Grouping) -> None:
        self.group = group
        dialect = grouping.dialect
        members = {id(node) for node in group.nodes}
        inside = members | {id(node) for node in group.repeats}
        known: dict[Value, Value] = {}
        self.inputs: list[Value] = []
        body: list[Node] = []
        arguments: list[Value] = []

        def inner(v: Value) -> Value:
            if v in known:
                return known[v]
            if is_constant(v, dialect):
                node = Node(v.node.op, (), v.node.types)
                body.append(node)
                known[v] = Value(node)
                return known[v]
            known[v] = new_input(v.type)
            self.inputs.append(v)
            arguments.append(known[v])
            return known[v]

        for node in (*group.repeats, *group.nodes):
            sources = [_constant_behind(v, dialect) if id(v.node) not in inside else v for v in node.inputs]
            if all(is_constant(v, dialect) for v in sources):  # its shape would be that of a number
                sources = list(node.inputs)
            own = Node(node.op, tuple([inner(v) for v in sources]), node.types, (), node.origin)
            body.append(own)
            known[Value(node)] = Value(own)
        self.views: list[Node] = []  # moves of results that are needed outside: there they cost nothing
        seen: dict[Value, None] = {}
        for node in group.nodes:
            if grouping.is_seen_outside(node, members):
                while isinstance(node.op, Reshape | BroadcastTo):
                    self.views.append(node)
                    node = node.inputs[0].node
                seen[Value(node)] = None
        self.outputs = sorted(seen, key=lambda v: -v.type.nbytes)  # the first may take an operand's place
        self.body = Graph(
            tuple(arguments), tuple([known[v] for v in self.outputs]), (*[v.node for v in arguments], *body)
        )

    def nodes(self, new: dict[Value, Value]) -> list[Node]:
        """The node in the new graph, and views of its results; ``new`` learns what they stand for."""
        group = self.group
        op = Fused(self.body, group.size, group.length, _overwritable(self.body, group))
        inputs = tuple([new.get(v, v) for v in self.inputs])
        made = [Node(op, inputs, self.body.output_types, (), group.nodes[0].origin)]
        new.update(zip(self.outputs, made[0].outputs, strict=True))
        for view in reversed(self.views):
            if Value(view) not in new:
                made.append(Node(view.op, (new[view.inputs[0]],), view.types, (), view.origin))
                new[Value(view)] = Value(made[-1])
        return made


def _constant_behind(v: Value, dialect: Dialect) -> Value:
    """The constant that a value is many times, else the value."""
    found = v
    while isinstance(found.node.op, BroadcastTo | Reshape):
        found = found.node.inputs[0]
    return found if is_constant(found, dialect) else v


def _overwritable(body: Graph, group: Group) -> tuple[int, ...]:
    """The operands that are read once, where the first result is written: in groups without reductions."""
    if group.length or group.columns:
        return ()
    first = body.outputs[0].type
    found: list[int] = []
    for i, v in enumerate(body.inputs):
        if v.type == first and all(node.types[0].shape == first.shape for node in body.body if v in node.inputs):
            found.append(i)
    return tuple(found)


def _rebuilt(graph: Graph, grouping: Grouping, made: dict[int, _Made], position: dict[int, int]) -> Graph:
    """The graph with a node for each group, in an order as close to the old one as what groups need allows."""
    new: dict[Value, Value] = {}
    unit_of = {id(node): id(grouping.group_of.get(id(node), node)) for node in graph.nodes}
    members: dict[int, list[Node]] = {}
    for node in graph.nodes:
        members.setdefault(unit_of[id(node)], []).append(node)
    waits: dict[int, int] = {}
    users: dict[int, list[int]] = {}
    for unit, nodes in members.items():
        repeats = made[unit].group.repeats if unit in made else ()
        before = {unit_of[id(v.node)] for node in (*nodes, *repeats) for v in node.inputs} - {unit}
        waits[unit] = len(before)
        for other in before:
            users.setdefault(other, []).append(unit)
    key = {unit: position[id(nodes[-1])] for unit, nodes in members.items()}
    ready = [(key[unit], unit) for unit, count in waits.items() if not count]
    heapify(ready)
    order: list[Node] = []
    while ready:
        _, unit = heappop(ready)
        found = made.get(unit)
        if found is not None:
            order += found.nodes(new)
        else:
            (old,) = members[unit]
            inputs = tuple([new.get(v, v) for v in old.inputs])
            node = old
            if any(a is not b for a, b in zip(inputs, old.inputs, strict=True)):
                node = Node(old.op, inputs, old.types, old.regions, old.origin)
                new.update(zip(old.outputs, node.outputs, strict=True))
            order.append(node)
        for user in users.get(unit, ()):
            waits[user] -= 1
            if not waits[user]:
                heappush(ready, (key[user], user))
    outputs = tuple([new.get(v, v) for v in graph.outputs])
    inputs = {id(v.node) for v in graph.inputs}
    nodes = (*[v.node for v in graph.inputs], *[node for node in order if id(node) not in inputs])
    return without_dead_code(Graph(graph.inputs, outputs, nodes))
