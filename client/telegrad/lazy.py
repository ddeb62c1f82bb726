"""What a client graph begins with, and how a piece of it becomes a function and its operands.

Tensors hold values; values form one graph without end. A `Leaf` is where it begins: a tensor on the server,
a few bytes, a version of a variable, an argument of a trace. `extract` cuts out what some outputs need:
a closed `Graph` whose inputs are leaves, with the table of client lines by node.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Self, cast
from weakref import ref

from telegrad.errors import TraceError, VariableChanged
from telegrad.ir.graph import Graph, Input, new_input, rewrite, topological
from telegrad.ir.types import Type
from telegrad.ir.value import Node, Value
from telegrad.ops.control import Alias, Gradient, StopGradient

if TYPE_CHECKING:
    from telegrad.tensor import Tensor
    from telegrad.variable import Variable

Line = tuple[str, int]
"""A file and a line of the user's program."""

_PACKAGE = os.path.join(os.path.dirname(__file__), "")
"""The folder of this package, with a separator at its end."""

_OWN_FILES: set[str] = set()
"""Files of this package that were seen, so that `caller` need not compare paths."""


class Handle:
    """A name on the server. When it is collected, the session releases the name in its next batch."""

    __slots__ = ("__weakref__", "name")

    def __init__(self, name: int) -> None:
        self.name = name


class Watch(ref[Handle]):
    """Calls ``gone`` with itself when the handle is collected.

    Unlike ``__del__`` it takes a function written in C, which Ctrl-C cannot hit: there it would be lost.
    """

    __slots__ = ("name",)

    def __new__(cls, handle: Handle, gone: Callable[[Watch], None]) -> Self:
        return super().__new__(cls, handle, gone)  # type: ignore[arg-type]

    def __init__(self, handle: Handle, gone: Callable[[Watch], None]) -> None:
        super().__init__(handle, gone)  # type: ignore[arg-type]
        self.name = handle.name


@dataclass(frozen=True, slots=True)
class Immediate:
    """A few bytes that travel with each Run that needs them."""

    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """The value of a variable between two updates."""

    variable: Variable
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Argument:
    """An argument of the function being traced: leaf ``position`` of its nest."""

    position: int


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """Bytes that are asked for at every call: a learning rate, the key of the call's random numbers.

    ``name`` is what the program calls a number of its own, such as "lr": a job keeps it.
    """

    getter: Callable[[], bytes]
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class LiveKey(Live):
    """The key of the call's random numbers: what a job, which has no getters, makes from its own count of calls."""


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A tensor from outside the trace, a constant of the function."""

    tensor: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PresentGrad:
    """The gradient that a leaf tensor has when the function is called."""

    tensor: Tensor


Source = Handle | Immediate | Version | Argument | Live | Captured | PresentGrad


class Leaf(Node):
    """A node without operands whose value comes from ``source``.

    ``definition`` is the value that this leaf stands for, kept (or made when asked for) where a gradient may
    still have to go through it. ``tensor`` is the tensor that receives a gradient here, if one does.
    """

    __slots__ = ("definition", "source", "tensor")

    def __init__(
        self,
        type: Type,
        source: Source,
        *,
        definition: Value | Callable[[], Value] | None = None,
        tensor: ref[Tensor] | None = None,
        like: Leaf | None = None,
    ) -> None:
        """``like`` is another leaf of the same type, which saves half the time."""
        if like is None:
            super().__init__(Input(type.shape, type.dtype), (), (type,), (), None)
        else:
            super().__init__(like.op, (), like.types, (), None)
        self.source = source
        self.definition = definition
        self.tensor = tensor


class GradientPoint(Node):
    """An `Alias` at which a tensor receives its gradient."""

    __slots__ = ("tensor",)

    def __init__(self, value: Value, tensor: ref[Tensor], *, line: object = None) -> None:
        super().__init__(Alias(), (value,), (value.type,), (), line or caller())
        self.tensor = tensor


def caller() -> Line | None:
    """The innermost line outside this package: the user's."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file not in _OWN_FILES:
            if not file.startswith(_PACKAGE):
                return file, frame.f_lineno
            _OWN_FILES.add(file)
        frame = frame.f_back
    return None


def definition_of(leaf: Leaf) -> Value | None:
    """The value that the leaf stands for, if it is still known."""
    if callable(leaf.definition):
        leaf.definition = leaf.definition()
    return leaf.definition


def with_definitions(values: Sequence[Value]) -> tuple[Value, ...]:
    """The same values, with every leaf below a `Gradient` replaced by its definition, as differentiation needs it."""
    ys = [y for node in topological(values) if isinstance(node.op, Gradient) for y in node.inputs[: node.op.outputs]]
    if not ys:
        return tuple(values)
    open_leaves: set[int] = set()

    def look_through(node: Node) -> tuple[Value, ...]:
        definition = definition_of(node) if isinstance(node, Leaf) else None
        if definition is None:
            return node.inputs
        open_leaves.add(id(node))
        return (definition,)

    topological(ys, inputs_of=look_through)
    if not open_leaves:
        return tuple(values)
    order = topological(values, inputs_of=lambda n: look_through(n) if id(n) in open_leaves else n.inputs)
    replaced: dict[tuple[int, int], Value] = {}

    def new(value: Value) -> Value:
        return replaced.get((id(value.node), value.index), value)

    for node in order:
        if id(node) in open_leaves:
            definition = definition_of(cast(Leaf, node))
            assert definition is not None
            replaced[id(node), 0] = new(definition)
            continue
        inputs = tuple([new(v) for v in node.inputs])
        if any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
            for i, value in enumerate(rebuilt(node, inputs).outputs):
                replaced[id(node), i] = value
    return tuple([new(v) for v in values])


def rebuilt(node: Node, inputs: tuple[Value, ...]) -> Node:
    """The node on other inputs; it stays the place where its tensor receives a gradient."""
    if isinstance(node, GradientPoint):
        return GradientPoint(inputs[0], node.tensor, line=node.origin)
    return Node(node.op, inputs, node.types, node.regions, node.origin)


def gradient_points(values: Sequence[Value]) -> list[tuple[Value, Tensor]]:
    """Where a backward from ``values`` ends: (value, tensor that receives the gradient), in graph order.

    Looks through leaves that have a definition, and not through integers or `StopGradient`.
    """
    found: list[tuple[Value, Tensor]] = []
    seen: set[int] = set()
    stack = [value.node for value in reversed(values)]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, (Leaf, GradientPoint)):
            tensor = node.tensor() if node.tensor is not None else None
            if tensor is not None:
                found.append((Value(node), tensor))
                continue
            if isinstance(node, Leaf):
                definition = definition_of(node)
                if definition is not None:
                    stack.append(definition.node)
                continue
        if isinstance(node.op, StopGradient):
            continue
        stack.extend(v.node for v in reversed(node.inputs) if v.type.dtype.is_float)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Extract:
    """A closed graph, and where each of its inputs comes from. The origin of a node is the client's line."""

    graph: Graph
    sources: tuple[Source, ...]


def extract(outputs: Sequence[Value], arguments: Sequence[Value] = ()) -> Extract:
    """The graph of ``outputs``; ``arguments`` are inputs even where nothing needs them, and come first.

    Raises VariableChanged if it needs a version of a variable that an update has replaced.
    """
    closed, stop = tuple(outputs), [v.node for v in arguments]
    order = topological(closed, stop=stop)
    if any([isinstance(node.op, Gradient) for node in order]):
        closed = with_definitions(outputs)
        order = topological(closed, stop=stop)
    leaves = [node for node in order if isinstance(node, Leaf)]
    inner = [node for node in order if not isinstance(node, Leaf)]
    for node in inner:
        if isinstance(node.op, Input):
            raise TraceError("a tensor made inside checkpoint or custom_vjp is used outside; return it instead")
    inputs = (*arguments, *(Value(leaf) for leaf in leaves))
    nodes = (*(v.node for v in inputs), *inner)
    for leaf in leaves:
        if isinstance(leaf.source, Version):
            check_version(leaf.source)
    sources = tuple(cast(Leaf, v.node).source for v in inputs)
    return Extract(Graph(inputs, closed, nodes), sources)


def extract_region(
    outputs: Sequence[Value], parameters: Sequence[Value], inside: Sequence[Node]
) -> tuple[Graph, tuple[Value, ...]]:
    """The graph of a region and the outer values that it uses, which become inputs after ``parameters``.

    ``inside`` are the nodes that were made for the region; constants belong to it as well.
    """
    own = {id(node) for node in inside}
    stop = {id(v.node) for v in parameters}
    captured: dict[Value, Value] = {}

    def inputs_of(node: Node) -> tuple[Value, ...]:
        return node.inputs if id(node) in own else ()

    def is_outer(value: Value) -> bool:
        node = value.node
        return id(node) not in own and id(node) not in stop and (bool(node.inputs) or isinstance(node.op, Input))

    order = topological(outputs, stop=[v.node for v in parameters], inputs_of=inputs_of)
    for node in order:
        if id(node) in own and isinstance(node.op, Gradient):
            n = node.op.outputs
            if any(map(is_outer, node.inputs[:n])) and any(map(is_outer, node.inputs[2 * n :])):
                raise TraceError(
                    "a gradient of what was made outside of the body of a loop, of vmap, checkpoint or custom_vjp "
                    "cannot be taken inside; call vjp or grad inside, too"
                )
    used = [v for node in order if id(node) in own for v in node.inputs] + list(outputs)
    for value in used:
        if is_outer(value) and value not in captured:
            captured[value] = new_input(value.type)
    graph = Graph((), tuple(outputs), tuple(node for node in order if id(node) in own))
    results = rewrite(graph, lambda node, inputs: None, mapping=captured)
    return Graph.of([*parameters, *captured.values()], results), tuple(captured)


def check_version(source: Version) -> None:
    """Raise VariableChanged unless the variable still has this version."""
    variable = source.variable
    if variable.version != source.number:
        where = f" at {show(variable.updated_at)}" if variable.updated_at else ""
        raise VariableChanged(
            f"the graph needs version {source.number} of {variable.describe()}, which was updated{where} to version "
            f"{variable.version}; call backward before the update, or compute the loss again"
        )


def show(line: Line | None) -> str:
    """A line as ``file.py:12``."""
    return f"{line[0]}:{line[1]}" if line else "an unknown line"
