"""Graph: values with a beginning and an end, in topological order. Every walk here is iterative.

A graph is closed: each node is reached from its outputs, and whatever it needs is one of its inputs.
The order is that of a depth-first walk from the outputs over the inputs in order, so equal programs
give equal graphs, and equal bytes on the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from telegrad.errors import GraphError
from telegrad.ir.op import Op
from telegrad.ir.types import Shape, Type, check_shape
from telegrad.ir.value import DType, Node, Value, apply


@dataclass(frozen=True)
class Input(Op):
    """A value that comes from outside the graph: an argument, a captured tensor, a variable."""

    shape: Shape
    dtype: DType

    def infer(self) -> Type:
        return Type(check_shape(self.shape, op="input"), self.dtype)


def new_input(type: Type) -> Value:
    """A fresh input of this type."""
    return apply(Input(type.shape, type.dtype), ())[0]


def topological(
    outputs: Iterable[Value],
    *,
    stop: Iterable[Node] = (),
    inputs_of: Callable[[Node], Sequence[Value]] = attrgetter("inputs"),
) -> list[Node]:
    """The nodes that the outputs need, each after its inputs; does not walk beyond nodes in ``stop``."""
    order: list[Node] = []
    done: set[int] = {id(node) for node in stop}
    begun: set[int] = set()
    stack = [output.node for output in outputs]
    stack.reverse()
    while stack:  # holds nodes alone: iterators or pairs for 100,000 of them would keep the garbage collector busy
        node = stack[-1]
        key = id(node)
        if key in done:
            stack.pop()
        elif key in begun:
            done.add(key)
            order.append(stack.pop())
        else:
            begun.add(key)
            stack += [value.node for value in inputs_of(node)[::-1] if id(value.node) not in done]
    return order


@dataclass(frozen=True, eq=False, slots=True)
class Graph:
    """Inputs, outputs and the nodes between them in topological order (inputs first)."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]

    @classmethod
    def of(cls, inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
        """The graph between ``inputs`` and ``outputs``; GraphError if an output needs anything else."""
        known = [value.node for value in inputs]
        order = topological(outputs, stop=known)
        for node in order:
            if isinstance(node.op, Input):
                raise GraphError("an output depends on a value that is not an input of the graph")
        return cls(tuple(inputs), tuple(outputs), (*known, *order))

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def body(self) -> Iterator[Node]:
        """The nodes without the inputs."""
        return (node for node in self.nodes if not isinstance(node.op, Input))

    @property
    def input_types(self) -> tuple[Type, ...]:
        """The types of the inputs."""
        return tuple(value.type for value in self.inputs)

    @property
    def output_types(self) -> tuple[Type, ...]:
        """The types of the outputs."""
        return tuple(value.type for value in self.outputs)

    def inline(self, arguments: Sequence[Value]) -> tuple[Value, ...]:
        """The outputs of this graph on other values; the new nodes keep their origins."""
        mapping = dict(zip(self.inputs, arguments, strict=True))
        return rewrite(self, lambda node, inputs: None, mapping=mapping)


Rule = Callable[[Node, tuple[Value, ...]], "Sequence[Value] | None"]


def rewrite(graph: Graph, rule: Rule, *, mapping: Mapping[Value, Value] | None = None) -> tuple[Value, ...]:
    """The graph's outputs after ``rule`` has seen every node once, inputs before users.

    ``rule(node, new_inputs)`` returns the values that replace the node's outputs, or None to keep the
    node (rebuilt only if an input changed). ``mapping`` gives replacements to begin with.
    """
    new: dict[tuple[int, int], Value] = {(id(v.node), v.index): r for v, r in (mapping or {}).items()}
    for node in graph.nodes:
        if (id(node), 0) in new:
            continue
        inputs = tuple([new.get((id(v.node), v.index), v) for v in node.inputs])
        results = rule(node, inputs)
        if results is None:
            if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
                continue
            results = Node(node.op, inputs, node.types, node.regions, node.origin).outputs
        for index, value in enumerate(results):
            new[(id(node), index)] = value
    return tuple([new.get((id(v.node), v.index), v) for v in graph.outputs])


@dataclass(frozen=True, eq=False, slots=True)
class Replication:
    """How the ``rows`` of a data-parallel function are divided over its logical replicas.

    Those in ``split_inputs`` have them as first axis, and each replica gets its own, as many as ``numpy.array_split``
    would give it. The results in ``row_outputs`` are those of all replicas, one after the other; all others are the
    same on all. ``rest`` is the function's graph on one row less, if the rows do not divide evenly. With ``shards``
    each worker holds and updates only its span of those variables that are used for nothing but elementwise updates.
    """

    replicas: int
    rows: int
    split_inputs: tuple[int, ...]
    row_outputs: tuple[int, ...] = ()
    rest: Graph | None = None
    shards: bool = False

    @property
    def taking(self) -> int:
        """How many replicas take part: those with at least one row, the first ones."""
        return min(self.replicas, self.rows)

    @property
    def most(self) -> int:
        """The rows of the first replicas, which run the function's graph."""
        return -(-self.rows // self.taking)

    @property
    def larger(self) -> int:
        """How many replicas run the function's graph; those behind them, if there are any, run ``rest``."""
        return self.rows % self.taking or self.taking

    def rows_of(self, first: int, last: int) -> tuple[int, int]:
        """The rows [start, stop) of the replicas [first, last)."""
        return self._rows_before(first), self._rows_before(last)

    def _rows_before(self, replica: int) -> int:
        return self.most * replica - max(replica - self.larger, 0)


@dataclass(frozen=True, eq=False, slots=True)
class Function:
    """A graph that a session calls by id. ``updates`` holds (input, output): the input names a variable,
    and the output is its next version. With ``replication`` the graph is that of one replica."""

    graph: Graph
    updates: tuple[tuple[int, int], ...] = ()
    replication: Replication | None = None

    @property
    def input_types(self) -> tuple[Type, ...]:
        """What a call gives: those of the graph, with all rows."""
        how = self.replication
        return self._whole(self.graph.input_types, how.split_inputs if how else ())

    @property
    def output_types(self) -> tuple[Type, ...]:
        """What a call returns: those of the graph, with all rows."""
        how = self.replication
        return self._whole(self.graph.output_types, how.row_outputs if how else ())

    def _whole(self, types: tuple[Type, ...], numbers: tuple[int, ...]) -> tuple[Type, ...]:
        if self.replication is None:
            return types
        rows = self.replication.rows
        return tuple([Type((rows, *x.shape[1:]), x.dtype) if i in numbers else x for i, x in enumerate(types)])
