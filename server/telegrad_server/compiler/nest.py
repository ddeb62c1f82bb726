"""The loops of a group's kernel, whatever language it is printed in: its index space, how operands walk through it, and
the level at which each value is computed.

A level is what lies between one reduction over rows and the next: the loop of level 0 makes what the first reductions
take, level 1 what needs their results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from telegrad.ir.types import DType, Shape, product
from telegrad.ir.value import Node, Value
from telegrad.ops.elementwise import Constant
from telegrad.ops.random import RandomUniform
from telegrad.ops.reduce import Max, Sum
from telegrad.ops.shape import BroadcastTo, Reshape

from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.layout import Strides


class Access(NamedTuple):
    """How an operand is read: its number, its type, and its stride along each dimension of the index space."""

    number: int
    dtype: DType
    strides: tuple[int, ...]
    is_row: bool
    """Whether it is used where values have one element for each row."""


class Nest:
    """The loops of one group whose operands are laid out so, in elements.

    The index space has dimensions, from the innermost: the elements from one index to the next are in ``units``, the
    number of indices in ``sizes``. ``inner`` is the length of what one row of the outer loop holds.
    """

    def __init__(self, op: Fused, strides: tuple[Strides, ...]) -> None:
        self.op = op
        self.body = op.body
        self._strides = strides
        self.number = {v: i for i, v in enumerate(op.body.inputs)}
        self._behind: dict[Value, Value] = {}
        self.nodes: list[Node] = []
        for node in op.body.body:
            if isinstance(node.op, Reshape | BroadcastTo):
                self._behind[Value(node)] = self.source(node.inputs[0])
            elif not isinstance(node.op, Constant):
                self.nodes.append(node)
        self.columns = max([product(n.types[0].shape) for n in self.nodes if self.is_column_sum(n)], default=0)
        self._read_dims()
        self._set_levels()

    def source(self, v: Value) -> Value:
        """The value itself, behind reshapes and broadcasts."""
        return self._behind.get(v, v)

    def is_reduction(self, node: Node) -> bool:
        """Whether the node adds up or takes the largest of something."""
        return isinstance(node.op, Sum | Max)

    def is_column_sum(self, node: Node) -> bool:
        """Whether it is a sum over the first axes: known only when the whole kernel has run."""
        return isinstance(node.op, Sum) and self._reduces_first(node.op, node.inputs[0].shape)

    def _reduces_first(self, op: Sum, shape: Shape) -> bool:
        axes = [a for a, size in enumerate(shape) if size != 1]
        return bool(axes) and axes[-1] not in op.axes

    def is_row_reduction(self, node: Node) -> bool:
        """Whether it is a sum or maximum of each row."""
        return self.is_reduction(node) and not self.is_column_sum(node)

    def is_row(self, v: Value) -> bool:
        """Whether the value has one element for each row."""
        return bool(self.op.length) and v.type.size != self.op.size and not self.is_column_sum(v.node)

    def walked(self, node: Node) -> tuple[Value, ...]:
        """The operands that are read element by element: not the key of random numbers."""
        return () if isinstance(node.op, RandomUniform) else node.inputs

    # ---- the index space

    def shape_of_use(self, node: Node) -> Shape:
        """The shape in which the node's operands are walked through."""
        return node.inputs[0].shape if self.is_reduction(node) else node.types[0].shape

    def _read_dims(self) -> None:
        """Cut the index space where any operand's strides need it, and join what all walk through in one go."""
        size, length = self.op.size, self.op.length
        cuts = {1, size, length or 1, self.columns or 1}
        uses: list[tuple[Value, Shape, int]] = []
        for node in self.nodes:
            shape = self.shape_of_use(node)
            scale = length if length and product(shape) != size else 1
            for v in self.walked(node):
                if v in self.number:
                    uses.append((v, shape, scale))
                    step = scale
                    for axis in reversed(shape):
                        step *= axis
                        cuts.add(step)
        ordered = sorted(cuts)
        units = ordered[:-1]
        found: dict[tuple[Value, Shape, int], list[int]] = {use: self._walk(use, units) for use in uses}
        inner_limits = {length or 1, self.columns or 1} - {1}
        kept: list[int] = []  # the dims that begin a run, from the innermost outwards
        for j in range(len(units)):
            joins = kept and units[j] not in inner_limits
            if joins:
                k = kept[-1]
                joins = all(w[j] == w[k] * (units[j] // units[k]) for w in found.values())
            if not joins:
                kept.append(j)
        self.units = [units[j] for j in kept]
        self.sizes = [b // a for a, b in zip(self.units, [*self.units[1:], size], strict=True)] if units else []
        self.access: dict[tuple[Value, Shape], Access] = {}
        for (v, shape, scale), walk in found.items():
            strides = tuple([walk[j] for j in kept])
            self.access[v, shape] = Access(self.number[v], v.dtype, strides, scale != 1)
        self.inner = length or self.columns
        if not self.inner:
            self.inner = self.sizes[0] if self.sizes else 1
        self.is_flat = not length and not self.columns and len(self.units) <= 1
        self.rows = size // self.inner

    def _walk(self, use: tuple[Value, Shape, int], units: Sequence[int]) -> list[int]:
        """The operand's stride along each dimension."""
        v, shape, scale = use
        own = self._strides[self.number[v]]
        lead = len(shape) - len(own)
        walk = [0] * len(units)
        step = scale
        for axis in range(len(shape) - 1, -1, -1):
            stride = 0 if axis < lead or v.shape[axis - lead] == 1 else own[axis - lead]
            for j, unit in enumerate(units):
                if step <= unit < step * shape[axis]:
                    walk[j] = stride * (unit // step)
            step *= shape[axis]
        return walk

    # ---- levels

    def _set_levels(self) -> None:
        """The level at which each value is computed: a reduction's result is one above what it reduces."""
        soonest: dict[Value, int] = {}
        for node in self.nodes:
            level = max([soonest.get(self.source(v), 0) for v in node.inputs], default=0)
            soonest[Value(node)] = level + 1 if self.is_row_reduction(node) else level
        self.level = dict(soonest)
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for v in node.inputs:
                users.setdefault(self.source(v), []).append(node)
        for node in reversed(self.nodes):
            out = Value(node)
            if self.is_row(out) or self.is_reduction(node) or out in self.body.outputs:
                continue
            wanted = [
                soonest[out] if self.is_row_reduction(user) else self.level[Value(user)] for user in users.get(out, [])
            ]
            self.level[out] = min(wanted, default=soonest[out])
        for node in self.nodes:  # a column sum is taken where its operand is computed
            if self.is_column_sum(node):
                self.level[Value(node)] = self.level.get(self.source(node.inputs[0]), 0)
        self.users = users
