"""Data parallelism: the graph of one replica becomes that of a worker which carries some of them.

What is the same on all replicas is computed once. What varies is computed once for each replica that the worker
carries: in a `Scan` over them if there are several, or written out where the scan would hold too much. Between two such
passes lie the reductions: sums of the tree's nodes, exchanged with the other workers where there are any. The order of
sums, and every op and the layout of its operands, are the same however the replicas are divided, so the bits are, too.

A level is a number of reductions that stand one upon the other: those of gradients are on level 0, with a synchronised
batch norm there are as many levels as it has statistics, forward and back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from math import prod
from typing import NamedTuple

from telegrad.errors import GraphError, TooExpensive
from telegrad.ir import types as t
from telegrad.ir.graph import Function, Graph, Replication, new_input
from telegrad.ir.types import Type
from telegrad.ir.value import Node, Origin, Value, apply
from telegrad.ops import elementwise as e
from telegrad.ops.loops import INDEX, Scan
from telegrad.ops.replicas import AllReduce, ReplicaIndex, varying
from telegrad.ops.shape import Concat, Reshape
from telegrad.ops.slices import Slice

from telegrad_server.compiler.collective import ALONE_BYTES, BUCKET_BYTES, FinishAllReduce, StartAllReduce, bounds
from telegrad_server.compiler.rebuild import ordered
from telegrad_server.compiler.reductions import Keys, settled
from telegrad_server.tree import Node as TreeNode
from telegrad_server.tree import nodes_within, total

STACKED_BYTES = 64 << 20
UNROLLED_NODES = 100_000
"""Replicas whose gradients would take more than so many bytes stacked are written out, up to so many nodes."""


MAX_SUMMANDS = 1_000_000
"""Each replica's contribution to each reduction is a node of the plan."""


class Share(NamedTuple):
    """The logical replicas [first, last) that one worker carries, of those that have rows."""

    first: int
    last: int


def divided(function: Function, graphs: Sequence[Graph], share: Share | None) -> Function:
    """The function as a worker runs it that carries ``share``, None being all replicas.

    ``graphs`` are those of the function, optimised. Its split inputs and results with rows then have the rows of the
    share; everything else is as it was. Raises GraphError for a share that is not there, or if a result that must be
    the same on all replicas is not.
    """
    how = function.replication
    assert how is not None
    first, last = share or (0, how.taking)
    if not 0 <= first < last <= how.taking:
        raise GraphError(
            f"replicas {first} to {last} of {how.taking} that have rows are no share", reason="REPLICATION_INVALID"
        )
    reductions = sum(isinstance(node.op, AllReduce) for node in graphs[0].nodes)
    if reductions * (last - first) > MAX_SUMMANDS:
        raise TooExpensive(
            f"{reductions} reductions over {last - first} replicas on one worker are more than {MAX_SUMMANDS} summands"
        )
    flags = [i in how.split_inputs for i in range(len(graphs[0].inputs))]
    worker = _Worker(settled(graphs, flags, how), flags, how, Share(first, last))
    return Function(worker.graph(), function.updates)


class _Part:
    """The replicas of a share that run one graph, and what is known of it."""

    def __init__(self, graph: Graph, flags: Sequence[bool], *, first: int, count: int, rows: int, keys: Keys) -> None:
        self.graph = graph
        self.first, self.count, self.rows = first, max(count, 0), rows
        self.varies = varying(graph, flags)
        self.place = {id(node): i for i, node in enumerate(graph.nodes)}
        self.keys = keys.of(graph, self.varies)
        self._owned: dict[Value, Value] = {}
        self.level: dict[int, int] = {}
        self.values: dict[Value, Value] = {}
        """What varies: its value if there is one replica, else those of all, stacked."""
        self.reductions = [node for node in graph.body if isinstance(node.op, AllReduce)]
        for node in graph.nodes:
            level = max([self.level[id(v.node)] for v in node.inputs], default=0)
            self.level[id(node)] = level + isinstance(node.op, AllReduce)
        self.bodies: dict[int, list[Node]] = {}
        for node in graph.body:
            if not isinstance(node.op, AllReduce) and any(v in self.varies for v in node.outputs):
                self.bodies.setdefault(self.level[id(node)], []).append(node)
        self.exports = self._exports()

    def _exports(self) -> dict[int, list[Value]]:
        """For each level what it computes and others use: later levels, reductions and the outside."""
        leaving = [v for node in self.reductions for v in node.inputs] + list(self.graph.outputs)
        for level, nodes in self.bodies.items():
            used = [v for node in nodes for v in node.inputs if self.level[id(v.node)] < level]
            leaving += [self.owned(v) for v in used if v in self.varies]
        found: dict[int, list[Value]] = {}
        inputs = set(self.graph.inputs)
        for v in dict.fromkeys(leaving):
            if v in self.varies and v not in inputs:
                found.setdefault(self.level[id(v.node)], []).append(v)
        return found

    @property
    def is_unrolled(self) -> bool:
        """Whether each replica has nodes of its own. A scan stacks what is reduced, and holds it once for each replica;
        nodes are summed as soon as there are two to sum, and hold log2 as many. But there are more of them."""
        stacked = self.count * sum(node.types[0].nbytes for node in self.reductions)
        return self.count > 1 and stacked > STACKED_BYTES and self.count * len(self.graph) <= UNROLLED_NODES

    def unrolled(self) -> list[_Part]:
        """A part for each replica."""
        found: list[_Part] = [copy(self) for _ in range(self.count)]
        for i, part in enumerate(found):
            part.first, part.count, part.values = self.first + i, 1, {}
        return found

    def owned(self, value: Value) -> Value:
        """The value below views. Whoever uses it makes these again: their layout decides bits."""
        views: list[Value] = []
        while value not in self._owned and self.is_view(value):
            views.append(value)
            value = value.node.inputs[0]
        found = self._owned.get(value, value)
        self._owned.update(dict.fromkeys(views, found))
        return found

    def is_view(self, value: Value) -> bool:
        """Whether the value is a view of another one."""
        return value.node.op.is_view and not isinstance(value.node.op, AllReduce)


class _Bucket:
    """Reductions that travel together: their numbers, what this worker brings, and the token once it is on its way."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.parts: list[list[Value]] = []
        self.token: Value | None = None
        self.op: FinishAllReduce | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of the sums."""
        return sum(parts[0].type.nbytes for parts in self.parts)


class _Worker:
    """Writes the graph of a worker, level by level."""

    def __init__(self, graphs: Sequence[Graph], flags: Sequence[bool], how: Replication, share: Share) -> None:
        self.how, self.share, self.flags = how, share, flags
        self.is_alone = share == (0, how.taking)
        keys = Keys()
        parts: list[_Part] = []
        for number, graph in enumerate(graphs):
            lo, hi = (0, how.larger) if number == 0 else (how.larger, how.taking)
            first, last = max(share.first, lo), min(share.last, hi)
            part = _Part(graph, flags, first=first, count=last - first, rows=how.most - number, keys=keys)
            parts += part.unrolled() if part.is_unrolled else [part]
        self.parts = parts
        self.known: dict[int, Value] = {}
        """What is the same on all replicas, by its key."""
        self.bucket_of: dict[int, _Bucket] = {}
        """Where a reduction is on its way, by its key."""
        self.buckets = 0

    def graph(self) -> Graph:
        """The whole graph."""
        inputs = self._inputs()
        levels = [level for part in self.parts for level in (*part.bodies, *part.level.values())]
        for level in range(max(levels, default=0) + 1):
            for part in self.parts:
                if part.count:
                    self._run(part, level)
            self._reduce(level)
        outputs = self._outputs()
        return ordered(inputs, outputs)

    def _inputs(self) -> list[Value]:
        start, stop = self.how.rows_of(*self.share)
        inputs: list[Value] = []
        for i, (v, is_split) in enumerate(zip(self.parts[0].graph.inputs, self.flags, strict=True)):
            type = Type((stop - start, *v.shape[1:]), v.dtype) if is_split else v.type
            given = new_input(type)
            inputs.append(given)
            for part in self.parts:
                own = part.graph.inputs[i]
                if is_split and part.count:
                    at = self.how.rows_of(part.first, part.first + part.count)
                    part.values[own] = _rows(given, at[0] - start, at[1] - start, part)
                elif not is_split:
                    self.known[part.keys[own]] = given
        return inputs

    # ---- what is the same on all

    def _same(self, part: _Part, value: Value) -> Value:
        key = part.keys[value]
        if key not in self.known:
            self._compute(part, [value])
        return self.known[key]

    def _compute(self, part: _Part, values: Sequence[Value]) -> None:
        """Make these values and what they need, in the order of the graph."""
        needed: dict[int, Node] = {}
        pending = [v for v in values if part.keys[v] not in self.known]
        while pending:
            node = pending.pop().node
            if id(node) in needed:
                continue
            needed[id(node)] = node
            if not isinstance(node.op, AllReduce):
                pending += [v for v in node.inputs if part.keys[v] not in self.known]
        for node in sorted(needed.values(), key=lambda node: part.place[id(node)]):
            keys = [part.keys[v] for v in node.outputs]
            if keys[0] in self.known:
                continue
            if isinstance(node.op, AllReduce):
                self._finish(self.bucket_of[keys[0]])
            else:
                inputs = tuple([self.known[part.keys[v]] for v in node.inputs])
                made = Node(node.op, inputs, node.types, node.regions, node.origin)
                self.known.update(zip(keys, made.outputs, strict=True))

    # ---- what varies

    def _run(self, part: _Part, level: int) -> None:
        body, exports = part.bodies.get(level, []), part.exports.get(level, [])
        if part.count == 1:
            for node in body:
                inputs = tuple([part.values[v] if v in part.varies else self._same(part, v) for v in node.inputs])
                if isinstance(node.op, ReplicaIndex):
                    made = apply(e.Constant(part.first, t.int64), (), origin=node.origin)
                else:
                    made = Node(node.op, inputs, node.types, node.regions, node.origin).outputs
                part.values.update(zip(node.outputs, made, strict=True))
        elif exports:
            self._run_each(part, level, body, exports)

    def _run_each(self, part: _Part, level: int, body: Sequence[Node], exports: Sequence[Value]) -> None:
        """The body once for each replica."""
        trip = new_input(INDEX)
        slices: dict[Value, Value] = {}  # what an earlier level has stacked -> its slice
        constants: dict[Value, Value] = {}
        inner: dict[Value, Value] = {}

        def inside(value: Value) -> Value:
            views: list[Value] = []  # of what was made before
            at = value
            while at not in inner and part.is_view(at):
                views.append(at)
                at = at.node.inputs[0]
            if at not in inner and isinstance(at.node.op, e.Constant):  # what it is may choose an op's kernel
                (inner[at],) = _again(at.node, ())
            elif at not in inner:
                given = slices if at in part.varies else constants
                given[at] = inner[at] = new_input(at.type)
            for view in reversed(views):
                (inner[view],) = _again(view.node, (inner[view.node.inputs[0]],))
            return inner[value]

        for node in body:
            if isinstance(node.op, ReplicaIndex):
                first = apply(e.Constant(part.first, t.int64), (), origin=node.origin)[0]
                made = apply(e.Add(), (trip, first), origin=node.origin)
            else:
                made = _again(node, tuple([inside(v) for v in node.inputs]))
            inner.update(zip(node.outputs, made, strict=True))
        region = ordered([trip, *slices.values(), *constants.values()], [inner[v] for v in exports])
        operands = [*[part.values[v] for v in slices], *[self._same(part, v) for v in constants]]
        stacks = apply(Scan(part.count, 0, len(slices)), operands, (region,))
        part.values.update(zip(exports, stacks, strict=True))

    # ---- what meets

    def _reduce(self, level: int) -> None:
        """Sum what this level brings to the reductions, and let it go on its way."""
        buckets: dict[t.DType, _Bucket] = {}
        spans = nodes_within(*self.share, replicas=self.how.taking)
        main = self.parts[0]
        here = [i for i, node in enumerate(main.reductions) if main.level[id(node)] == level + 1]
        for number in sorted(here, key=lambda i: main.place[id(_maker(main.reductions[i].inputs[0]))]):
            node = main.reductions[number]
            key = main.keys[Value(node)]
            sums = dict(zip([(r, r + 1) for r in range(*self.share)], self._contributions(number), strict=True))
            parts = [_total(span, sums) for span in spans]
            if self.is_alone:
                self.known[key] = parts[0]
                continue
            is_alone = node.types[0].nbytes >= ALONE_BYTES
            bucket = _Bucket() if is_alone else buckets.setdefault(node.types[0].dtype, _Bucket())
            if bucket.numbers and bucket.nbytes + node.types[0].nbytes > BUCKET_BYTES:
                self._start(bucket, spans)
                bucket = buckets[node.types[0].dtype] = _Bucket()
            bucket.numbers.append(key)
            bucket.parts.append(parts)
            self.bucket_of[key] = bucket
            if is_alone:
                self._start(bucket, spans)
        for bucket in buckets.values():
            self._start(bucket, spans)

    def _contributions(self, number: int) -> Iterator[Value]:
        """What each replica of the share brings to a reduction."""
        for part in self.parts:
            value = part.reductions[number].inputs[0]
            if value in part.varies:
                yield from _each(part, value)
            else:
                yield from [self._same(part, value)] * part.count

    def _start(self, bucket: _Bucket, nodes: tuple[TreeNode, ...]) -> None:
        operands = [parts[i] for i in range(len(nodes)) for parts in bucket.parts]
        op = StartAllReduce(self.buckets, self.how.taking, nodes)
        (bucket.token,) = apply(op, operands)
        bucket.op = FinishAllReduce(self.buckets, self.how.taking, tuple([parts[0].shape for parts in bucket.parts]))
        self.buckets += 1

    def _finish(self, bucket: _Bucket) -> None:
        assert bucket.op is not None and bucket.token is not None
        (sums,) = apply(bucket.op, (bucket.token,))
        for number, shape, at in zip(bucket.numbers, bucket.op.shapes, bounds(bucket.op.shapes, sums.dtype.itemsize)):
            self.known[number] = Reshape(shape)(Slice((0, at), (1, at + prod(shape)), (1, 1))(sums))

    # ---- what leaves

    def _outputs(self) -> list[Value]:
        graph = self.parts[0].graph
        same = [i for i in range(len(graph.outputs)) if i not in self.how.row_outputs]
        for i in same:
            self._check_same(i)
        self._compute(self.parts[0], [graph.outputs[i] for i in same])
        return [self._same(self.parts[0], v) if i in same else self._joined(i) for i, v in enumerate(graph.outputs)]

    def _check_same(self, number: int) -> None:
        values = [part.graph.outputs[number] for part in self.parts]
        keys = [part.keys.get(v) for part, v in zip(self.parts, values, strict=True)]
        if None in keys or len(set(keys)) > 1:
            why = "differs from replica to replica" if None in keys else "is made of the number of a replica's rows"
            node = values[0].node
            error = GraphError(f"result {number}, a {values[0].type}, {why}; use all_reduce")
            error.reason = "REPLICATION_INVALID"
            if isinstance(node.origin, Origin):
                error.details |= {"node": node.origin.node, "op": node.op.name}
            raise error

    def _joined(self, number: int) -> Value:
        pieces: list[Value] = []
        for part in self.parts:
            value = part.graph.outputs[number]
            if value not in part.varies:
                pieces += [self._same(part, value)] * part.count
            elif part.count:
                shape = (part.count * part.rows, *value.shape[1:])
                found = part.values[value]
                pieces.append(found if found.shape == shape else Reshape(shape)(found))
        return pieces[0] if len(pieces) == 1 else Concat(0)(*pieces)


def _maker(value: Value) -> Node:
    """The node that makes what is reduced, before it is weighted and widened: its place is when it is there."""
    node = value.node
    while isinstance(node.op, e.Cast) or (
        isinstance(node.op, e.Multiply) and isinstance(node.inputs[1].node.op, e.Constant)
    ):
        node = node.inputs[0].node
    return node


def _again(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
    return Node(node.op, inputs, node.types, node.regions, node.origin).outputs


def _rows(x: Value, start: int, stop: int, part: _Part) -> Value:
    """The rows of the part's replicas, stacked if there are several."""
    if (start, stop) != (0, x.shape[0]):
        x = _sliced(x, start, stop)
    return x if part.count == 1 else Reshape((part.count, part.rows, *x.shape[1:]))(x)


def _each(part: _Part, value: Value) -> list[Value]:
    """The value of each replica of the part."""
    if not part.count:
        return []
    x = part.values[value]
    return [x] if part.count == 1 else [Reshape(value.shape)(_sliced(x, i, i + 1)) for i in range(part.count)]


def _sliced(x: Value, start: int, stop: int) -> Value:
    rest = x.shape[1:]
    return Slice((start, *(0 for _ in rest)), (stop, *rest), (1,) * x.ndim)(x)


def _total(span: TreeNode, sums: dict[TreeNode, Value]) -> Value:
    return total(span, sums, lambda x, y: e.Add()(x, y))
