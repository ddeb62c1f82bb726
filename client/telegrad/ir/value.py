"""Value and Node: the graph. A value is one output of a node; a node is an op applied to values.

Both are immutable, so a graph is never edited: a pass builds new nodes. ``Operators`` is what a value
and a client tensor have in common: a type, Python's operators, and one way to apply an op. Functions in
`telegrad.ops` are written once, over ``Operators``, and serve derivative rules, composite functions
and users alike.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import telegrad.ir.op as ir_op
from telegrad.errors import TraceError
from telegrad.ir.types import DType, Shape, Type

if TYPE_CHECKING:
    from telegrad.ir.graph import Graph
    from telegrad.ir.op import Op

Number = bool | int | float


class Origin(NamedTuple):
    """Where a node comes from: the number of the client's node, and whether it is part of its backward."""

    node: int
    is_backward: bool = False


_ORIGIN: ContextVar[object] = ContextVar("telegrad_origin", default=None)


@contextmanager
def origin(value: object) -> Generator[None, None, None]:
    """Give every node that is built inside the ``with`` this origin."""
    token = _ORIGIN.set(value)
    try:
        yield
    finally:
        _ORIGIN.reset(token)


V = TypeVar("V", bound="Operators")


class Operators:
    """Something with a type that ops apply to: a graph value, or a client's tensor.

    No ABC, whose ``isinstance`` costs several times as much: functions ask it of every operand.
    """

    __slots__ = ()

    type: Type

    def bind(self, op: Op, inputs: Sequence[Self], regions: Sequence[Graph] = ()) -> tuple[Self, ...]:
        """The outputs of ``op`` applied to ``inputs``, made in the same way as self was."""
        raise NotImplementedError

    def literal(self, number: Number, dtype: DType) -> Self:
        """A Python number as a 0-d operand beside self."""
        raise NotImplementedError

    def fresh(self) -> Self:
        """Another handle on the same value, which ``x[i] = y`` on this one leaves alone; a graph value is its own."""
        return self

    def concrete(self, asker: str) -> Any:
        """The elements now, in nested lists, for a function whose result's shape they decide. TraceError in a graph."""
        raise TraceError(f"{asker} depends on data, which is not known while a graph is built")

    @property
    def is_weak(self) -> bool:
        """Whether the dtype yields to that of another operand, as a Python number's does."""
        return False

    @property
    def shape(self) -> Shape:
        """The sizes of the axes."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.type.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.type.size

    # The names below are registered by telegrad.ops, which ir may not import.
    def __add__(self, other: Self | Number) -> Self:
        return FUNCTIONS["add"](self, other)

    def __radd__(self, other: Number) -> Self:
        return FUNCTIONS["add"](other, self)

    def __sub__(self, other: Self | Number) -> Self:
        return FUNCTIONS["subtract"](self, other)

    def __rsub__(self, other: Number) -> Self:
        return FUNCTIONS["subtract"](other, self)

    def __mul__(self, other: Self | Number) -> Self:
        return FUNCTIONS["multiply"](self, other)

    def __rmul__(self, other: Number) -> Self:
        return FUNCTIONS["multiply"](other, self)

    def __truediv__(self, other: Self | Number) -> Self:
        return FUNCTIONS["divide"](self, other)

    def __rtruediv__(self, other: Number) -> Self:
        return FUNCTIONS["divide"](other, self)

    def __floordiv__(self, other: Self | Number) -> Self:
        return FUNCTIONS["floor_divide"](self, other)

    def __rfloordiv__(self, other: Number) -> Self:
        return FUNCTIONS["floor_divide"](other, self)

    def __mod__(self, other: Self | Number) -> Self:
        return FUNCTIONS["remainder"](self, other)

    def __rmod__(self, other: Number) -> Self:
        return FUNCTIONS["remainder"](other, self)

    def __pow__(self, other: Self | Number) -> Self:
        return FUNCTIONS["pow"](self, other)

    def __rpow__(self, other: Number) -> Self:
        return FUNCTIONS["pow"](other, self)

    def __matmul__(self, other: Self) -> Self:
        return FUNCTIONS["matmul"](self, other)

    def __and__(self, other: Self | Number) -> Self:
        return FUNCTIONS["bitwise_and"](self, other)

    def __rand__(self, other: Number) -> Self:
        return FUNCTIONS["bitwise_and"](other, self)

    def __or__(self, other: Self | Number) -> Self:
        return FUNCTIONS["bitwise_or"](self, other)

    def __ror__(self, other: Number) -> Self:
        return FUNCTIONS["bitwise_or"](other, self)

    def __xor__(self, other: Self | Number) -> Self:
        return FUNCTIONS["bitwise_xor"](self, other)

    def __rxor__(self, other: Number) -> Self:
        return FUNCTIONS["bitwise_xor"](other, self)

    def __lshift__(self, other: Self | Number) -> Self:
        return FUNCTIONS["bitwise_left_shift"](self, other)

    def __rlshift__(self, other: Number) -> Self:
        return FUNCTIONS["bitwise_left_shift"](other, self)

    def __rshift__(self, other: Self | Number) -> Self:
        return FUNCTIONS["bitwise_right_shift"](self, other)

    def __rrshift__(self, other: Number) -> Self:
        return FUNCTIONS["bitwise_right_shift"](other, self)

    def __neg__(self) -> Self:
        return FUNCTIONS["negative"](self)

    def __pos__(self) -> Self:
        return self.fresh()

    def __abs__(self) -> Self:
        return FUNCTIONS["abs"](self)

    def __invert__(self) -> Self:
        return FUNCTIONS["bitwise_invert"](self)

    def __lt__(self, other: Self | Number) -> Self:
        return FUNCTIONS["less"](self, other)

    def __le__(self, other: Self | Number) -> Self:
        return FUNCTIONS["less_equal"](self, other)

    def __gt__(self, other: Self | Number) -> Self:
        return FUNCTIONS["greater"](self, other)

    def __ge__(self, other: Self | Number) -> Self:
        return FUNCTIONS["greater_equal"](self, other)

    def __getitem__(self, key: Any) -> Self:
        return FUNCTIONS["getitem"](self, key)


FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""What Python's operators mean, by array-API name; filled by ``@operator`` in `telegrad.ops`."""


F = TypeVar("F", bound=Callable[..., Any])


def operator(function: F) -> F:
    """Let the Python operator of this name (without a trailing underscore) call ``function``."""
    FUNCTIONS[function.__name__.rstrip("_")] = function
    return function


_SERIAL = count()


class Node:
    """An op applied to values. ``regions`` are sub-graphs that the op owns; ``origin`` says who made it.

    ``serial`` grows from node to node. Operands exist before their users, so the order of serials is topological, and
    it is the natural order to run a graph in: forward as it was written, backward as it was derived.
    """

    __slots__ = ("__weakref__", "inputs", "op", "origin", "regions", "serial", "types")

    def __init__(
        self,
        op: Op,
        inputs: tuple[Value, ...],
        types: tuple[Type, ...],
        regions: tuple[Graph, ...] = (),
        origin: object = None,
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.types = types
        self.regions = regions
        self.origin = origin
        self.serial = next(_SERIAL)

    def __repr__(self) -> str:
        return f"{self.op!r}({', '.join(str(v.type) for v in self.inputs)}) -> {', '.join(map(str, self.types))}"

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The node's values, one for each output."""
        return tuple(Value(self, i) for i in range(len(self.types)))


class Value(Operators):
    """One output of a node. Two Value objects are the same value when node and index are."""

    __slots__ = ("index", "node", "type")

    def __init__(self, node: Node, index: int = 0) -> None:
        self.node = node
        self.index = index
        self.type = node.types[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and self.node is other.node and self.index == other.index

    def __hash__(self) -> int:
        return hash((id(self.node), self.index))

    def __repr__(self) -> str:
        return f"<{self.node.op.name} {self.type}>"

    def bind(self, op: Op, inputs: Sequence[Any], regions: Sequence[Graph] = ()) -> tuple[Any, ...]:
        return apply(op, inputs, regions)

    def literal(self, number: Number, dtype: DType) -> Value:
        return apply(FUNCTIONS["literal_op"](number, dtype), ())[0]


def apply(
    op: Op, inputs: Sequence[Value], regions: Sequence[Graph] = (), *, origin: object = None
) -> tuple[Value, ...]:
    """The outputs of a new node; raises what ``op.infer`` raises if the operands do not fit."""
    inputs, regions = tuple(inputs), tuple(regions)
    types = ir_op.result_types(op, tuple([v.type for v in inputs]), regions)
    node = Node(op, inputs, types, regions, _ORIGIN.get() if origin is None else origin)
    if len(types) == 1:
        return (Value(node),)
    return node.outputs
