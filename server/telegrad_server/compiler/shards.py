"""State that is divided over workers: each holds and updates its span of the elements (ZeRO, stage 1).

Rajbhandari et al. 2020, ZeRO: memory optimizations toward training trillion parameter models, section 5.1.

What may be divided is found, not declared: a variable that is read for nothing but the *elementwise updates* of
variables of its shape, those of itself and of the parameter that it belongs to. An element of these depends on no other
element, so a span has the bits that it has in the whole. State whose norm is taken (LAMB's), or that is multiplied as
a matrix (Shampoo's), stays whole on every worker. The updated parameters are gathered; where nothing but updates reads
a gradient that has a bucket of its own, no worker gets more of it than its span.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from telegrad.ir.graph import Graph, new_input
from telegrad.ir.types import Type
from telegrad.ir.value import Node, Value, apply
from telegrad.ops import elementwise as e
from telegrad.ops.shape import BroadcastTo, Reshape
from telegrad.ops.slices import Slice

from telegrad_server.compiler.collective import FinishAllReduce, FinishGather, StartAllReduce, StartGather
from telegrad_server.compiler.rebuild import without_dead_code
from telegrad_server.tree import spans

SHARDED_BYTES = 1 << 16
"""Smaller variables are not worth a message."""

Span = tuple[int, int]


def sharded(graph: Graph, updates: Sequence[tuple[int, int]], *, rank: int, size: int) -> Graph:
    """The graph of a worker whose divided variables, inputs and results, are its flat spans, [elements]."""
    found = _Found(graph, updates)
    return _Writer(graph, found, rank=rank, size=size).graph() if found.state else graph


class _Found:
    """What a graph lets be divided."""

    def __init__(self, graph: Graph, updates: Sequence[tuple[int, int]]) -> None:
        self._graph = graph
        self._updates = updates
        self.state: set[Value] = {graph.inputs[i] for i, _ in updates if _is_large(graph.inputs[i])}
        """The variables that are divided."""
        self.spans: set[int] = set()
        """The results that are spans of them."""
        self.gathered: set[Value] = set()
        """What is made in spans, and then gathered."""
        self.leaves: set[Value] = set()
        """What is whole, and of which spans are taken."""
        self.whole: set[Value] = set()
        """What is needed whole."""
        self.gathered = {graph.outputs[j] for i, j in updates if graph.inputs[i] in self.state}
        self.state -= self._needed(self._ends(), with_leaves=True)  # parameters: the forward reads them
        while True:
            self._look()
            kept = self.state - self.whole - self.leaves
            if kept == self.state:
                break
            self.state = kept
        self._needed_without_leaves = self._needed(self._ends(), with_leaves=False)

    def _look(self) -> None:
        graph = self._graph
        self.spans = {j for i, j in self._updates if graph.inputs[i] in self.state}
        others = {graph.outputs[j] for i, j in self._updates if graph.inputs[i] not in self.state}
        self.gathered = {v for v in others if _is_large(v) and v not in self.state and self._touches(v)}
        self.leaves = set()
        self.whole = self._needed(self._ends(), with_leaves=True)

    def _touches(self, value: Value) -> bool:
        """Whether the value is made of divided state, element by element."""
        return any(v in self.state for v in _cone(value, self.state)[1])

    def _ends(self) -> list[Value]:
        return [v for j, v in enumerate(self._graph.outputs) if j not in self.spans and v not in self.gathered]

    def _needed(self, ends: Iterable[Value], *, with_leaves: bool) -> set[Value]:
        found: set[Value] = set()
        pending = [*ends]
        for root in [*self.gathered, *[self._graph.outputs[j] for j in self.spans]]:
            scalars, leaves = _cone(root, self.state)
            pending += scalars
            own = [v for v in leaves if v not in self.state]
            self.leaves.update(own)
            pending += own if with_leaves else []
        while pending:
            v = pending.pop()
            if v in found or v in self.gathered:
                continue
            found.update(v.node.outputs)
            pending += v.node.inputs
        return found

    def scattered(self) -> set[Node]:
        """Sums of which nothing but spans is needed."""
        ends: dict[int, list[Value]] = {}
        nodes: dict[int, Node] = {}
        for leaf in self.leaves:
            v = leaf
            while isinstance(v.node.op, Reshape | Slice):
                v = v.node.inputs[0]
            if isinstance(v.node.op, FinishAllReduce):
                nodes[id(v.node)] = v.node
                ends.setdefault(id(v.node), []).append(leaf)
        return {
            node
            for key, node in nodes.items()
            if len(node.op.shapes) == 1  # type: ignore[attr-defined]
            and Value(node) not in self._needed_without_leaves
            and all(leaf.type.size == prod(node.op.shapes[0]) for leaf in ends[key])  # type: ignore[attr-defined]
        }


def _is_large(value: Value) -> bool:
    return bool(value.shape) and value.type.dtype.is_float and value.type.nbytes >= SHARDED_BYTES


def _is_inside(value: Value, state: set[Value]) -> bool:
    """Whether an element of the value is made of the elements at its place, and of scalars."""
    node = value.node
    if value in state or node.regions or len(node.types) != 1:
        return False
    if isinstance(node.op, BroadcastTo):
        return not node.inputs[0].shape
    return (
        isinstance(node.op, e.Elementwise | e.Cast)
        and bool(node.inputs)
        and all(not v.shape or v.shape == value.shape for v in node.inputs)
    )


def _cone(root: Value, state: set[Value]) -> tuple[list[Value], list[Value]]:
    """The scalars and the whole values that an elementwise update is made of."""
    scalars: list[Value] = []
    leaves: list[Value] = []
    seen: set[Value] = set()
    pending = [root]
    while pending:
        v = pending.pop()
        if v in seen:
            continue
        seen.add(v)
        if _is_inside(v, state):
            for x in v.node.inputs:
                if not x.shape and v.shape:
                    scalars.append(x)
                else:
                    pending.append(x)
        else:
            leaves.append(v)
    return scalars, leaves


class _Writer:
    """Writes the graph again, in its order: an update stands where it stood."""

    def __init__(self, graph: Graph, found: _Found, *, rank: int, size: int) -> None:
        self._old, self._found = graph, found
        self._rank, self._size = rank, size
        self._order: list[Node] = []
        self._now: dict[Value, Value] = {}  # what is whole
        self._own: dict[Value, Value] = {}  # this worker's spans
        self._tokens: dict[Value, Value] = {}
        self._scattered = {id(node.inputs[0].node) for node in found.scattered()}
        starts = [node for node in graph.nodes if isinstance(node.op, StartAllReduce)]
        self._bucket = max([node.op.bucket for node in starts], default=-1)  # type: ignore[attr-defined]

    def graph(self) -> Graph:
        old, found = self._old, self._found
        inputs: list[Value] = []
        for v in old.inputs:
            first, last = self._span(v.type.size)
            own = new_input(Type((last - first,), v.dtype)) if v in found.state else v
            (self._own if v in found.state else self._now)[v] = own
            inputs.append(own)
        self._order = [v.node for v in inputs]
        roots = {old.outputs[j] for j in found.spans} | found.gathered
        for node in old.nodes:
            if Value(node) in self._now or Value(node) in self._own:
                continue
            if any(v in found.whole for v in node.outputs):
                self._keep(node)
            for v in node.outputs:
                if v in roots:
                    self._make(v)
                if v in found.gathered:
                    self._start(v)
        outputs = [self._own[v] if j in found.spans else self._whole(v) for j, v in enumerate(old.outputs)]
        return without_dead_code(Graph(tuple(inputs), tuple(outputs), tuple(self._order)))

    def _span(self, count: int) -> Span:
        return spans(count, self._size)[self._rank]

    def _keep(self, node: Node) -> None:
        inputs = tuple([self._whole(v) for v in node.inputs])
        op = node.op
        if id(node) in self._scattered:
            assert isinstance(op, StartAllReduce)
            op = StartAllReduce(op.bucket, op.replicas, op.nodes, self._span(node.types[0].shape[1]))
        kept = Node(op, inputs, node.types, node.regions, node.origin)
        self._order.append(kept)
        self._now.update(zip(node.outputs, kept.outputs, strict=True))

    def _whole(self, value: Value) -> Value:
        if value not in self._now:
            token = self._tokens[value]  # what is needed whole and was not kept is gathered
            assert isinstance(token.node.op, StartGather)
            flat = self._put(FinishGather(token.node.op.bucket), token)
            self._now[value] = self._put(Reshape(value.shape), flat)
        return self._now[value]

    def _start(self, value: Value) -> None:
        self._bucket += 1
        count = value.type.size
        self._tokens[value] = self._put(StartGather(self._bucket, self._span(count), count), self._own[value])

    def _make(self, root: Value) -> None:
        """This worker's span of a value, and of what it is made of."""
        pending = [root]
        while pending:
            v = pending[-1]
            if v in self._own:
                pending.pop()
                continue
            if not _is_inside(v, self._found.state):
                self._own[v] = self._sliced(v)
                continue
            inner = [x for x in v.node.inputs if x.shape]
            missing = [x for x in inner if x not in self._own]
            if missing:
                pending += reversed(missing)
                continue
            first, last = self._span(v.type.size)
            if isinstance(v.node.op, BroadcastTo):
                op, inputs = BroadcastTo((last - first,)), (self._whole(v.node.inputs[0]),)
            else:
                op, inputs = v.node.op, tuple([self._own[x] if x.shape else self._whole(x) for x in v.node.inputs])
            made = Node(op, inputs, (Type((last - first,), v.dtype),), (), v.node.origin)
            self._order.append(made)
            self._own[v] = Value(made)

    def _sliced(self, value: Value) -> Value:
        first, last = self._span(value.type.size)
        whole = self._whole(value)
        flat = whole if whole.type.ndim == 1 else self._put(Reshape((value.type.size,)), whole)
        return self._put(Slice((first,), (last,), (1,)), flat)

    def _put(self, op: object, x: Value) -> Value:
        (made,) = apply(op, (x,))  # type: ignore[arg-type]
        self._order.append(made.node)
        return made
