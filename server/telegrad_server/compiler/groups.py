"""Which ops share a kernel: elementwise ops over one index space, and sums and maxima over its rows or columns.

An index space is a number of elements in C order, cut into rows of one length where a group holds reductions over
trailing axes. A *full* value has an element for each, a *row* value one for each row. Reshapes and broadcasts between
the two are part of a group and cost nothing.

Groups never make a cycle, because each has a *level*: a value from outside comes from a lower one. A node joins the
groups of its operands if they have the highest level among its operands and one index space; else it begins a group one
level up. What nobody needs before a later group is moved there, so that one operand is kept and not its results.

All follows from types alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from telegrad.ir import types as t
from telegrad.ir.graph import Graph
from telegrad.ir.types import Shape, Type, product
from telegrad.ir.value import Node, Value
from telegrad.ops.elementwise import Cast, Constant
from telegrad.ops.random import RandomUniform
from telegrad.ops.reduce import Max, Sum
from telegrad.ops.shape import BroadcastTo, Reshape

from telegrad_server.compiler.dialect import Dialect
from telegrad_server.compiler.expressions import C, is_unlike_numpy, words

MOST_OPS = 96
"""In one group: beyond that a kernel has more local variables than a processor has registers."""

MOST_OPERANDS = 24

LONG = 1 << 15
"""Elements: an op that makes so many gets a kernel even if it stands alone, for all threads."""

LONGEST_ROW = 16384
"""Elements: what a kernel keeps of a row stays in the second-level cache."""

LONGEST_COLUMNS = 65536
"""Columns that are summed up at once."""


def real(shape: Shape) -> Shape:
    """The shape without axes of size 1."""
    return tuple([size for size in shape if size != 1])


def bounds(shape: Shape) -> tuple[int, ...]:
    """How many elements the last axis, the last two and so on have: where an index can be cut."""
    found, step = [1], 1
    for size in reversed(shape):
        step *= size
        if step != found[-1]:
            found.append(step)
    return tuple(found)


def joined_bounds(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...] | None:
    """The cuts of both, None if they cross."""
    found = tuple(sorted({*one, *other}))
    return found if all(b % a == 0 for a, b in pairwise(found)) else None


def row_length(op: Sum | Max, shape: Shape) -> int:
    """The elements that are reduced to one if the axes are the last ones, else 0."""
    axes = [a for a, size in enumerate(shape) if size != 1]
    reduced = [a for a in axes if a in op.axes]
    if not reduced or reduced != axes[len(axes) - len(reduced) :]:
        return 0
    return product(shape[a] for a in reduced)


def column_count(op: Sum | Max, shape: Shape) -> int:
    """The elements of the result if the axes are the first ones, but not all, else 0."""
    axes = [a for a, size in enumerate(shape) if size != 1]
    reduced = [a for a in axes if a in op.axes]
    if not reduced or len(reduced) == len(axes) or reduced != axes[: len(reduced)]:
        return 0
    return product(shape[a] for a in axes[len(reduced) :])


def reduction(node: Node, dialect: Dialect = C) -> tuple[int, int]:
    """The length of the rows, and the number of columns, that a node reduces; zeros where no kernel does."""
    op = node.op
    if not isinstance(op, Sum | Max) or not node.inputs[0].size:
        return 0, 0
    if node.inputs[0].dtype is not t.float32 and node.inputs[0].dtype not in dialect.narrow:
        return 0, 0
    length = row_length(op, node.inputs[0].shape)
    if 2 <= length <= LONGEST_ROW:
        return length, 0
    columns = column_count(op, node.inputs[0].shape) if isinstance(op, Sum) else 0
    return 0, columns if columns <= LONGEST_COLUMNS else 0


@dataclass(eq=False, slots=True)
class Group:
    """Nodes that one kernel computes."""

    size: int
    level: int
    length: int = 0
    columns: int = 0
    cuts: tuple[int, ...] = (1,)
    nodes: list[Node] = field(default_factory=list[Node])
    repeats: list[Node] = field(default_factory=list[Node])
    """Nodes of earlier groups that it computes again, for itself."""
    is_needed: bool = False
    """Whether an op of it must be run by a kernel: its bits are not NumPy's."""


class Grouping:
    """The groups of a graph's nodes, of ``least_ops`` ops at least; ``group_of`` by a node's id."""

    def __init__(self, graph: Graph, *, least_ops: int, dialect: Dialect = C) -> None:
        self.graph = graph
        self.dialect = dialect
        self._least_ops = least_ops
        self.group_of: dict[int, Group] = {}
        self._level: dict[int, int] = {}
        self._users: dict[int, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            for node_id in {id(v.node) for v in node.inputs}:
                self._users[node_id].append(node)
        self._leaving = {id(v.node) for v in graph.outputs}
        self._repeated: dict[int, set[int]] = {}  # what a group computes again, both by id
        self._wanted_again: set[int] = set()  # what is read for that
        for node in graph.nodes:
            self._place(node)
        self._sink()
        self._drop()

    # ---- placing

    def _level_of(self, node: Node) -> int:
        group = self.group_of.get(id(node))
        return group.level if group is not None else self._level[id(node)]

    def _place(self, node: Node) -> None:
        top = max([self._level_of(v.node) for v in node.inputs], default=0)
        near: list[Group] = []
        for v in node.inputs:
            group = self.group_of.get(id(v.node))
            if group is not None and group.level == top and group not in near:
                near.append(group)
        at_top = {id(v.node) for v in node.inputs if self._level_of(v.node) == top}
        is_open = near and all(node_id in self.group_of for node_id in at_top)
        if isinstance(node.op, Reshape | BroadcastTo):
            if is_open and len(near) == 1 and self._moves_inside(node, near[0]):
                self._add(node, near[0])
            else:
                self._level[id(node)] = top  # a view: it costs nothing and changes no order
                if near:
                    self._level[id(node)] = top + 1
            return
        wanted = self._wanted(node)
        if wanted is None:
            self._level[id(node)] = top + 1 if top else 0  # with no group behind it, it can be part of no cycle
            return
        if is_open:
            merged = self._merged(near, node, wanted)
            if merged is not None:
                self._add(node, merged)
                return
        size, length, columns, cuts, is_needed = wanted
        self._add(node, Group(size, top + 1, length, columns, cuts, is_needed=is_needed))

    def _wanted(self, node: Node) -> tuple[int, int, int, tuple[int, ...], bool] | None:
        """The index space of a group of the node alone: size, length of rows, columns, cuts; whether it must be one."""
        if node.regions or len(node.types) != 1:
            return None
        if isinstance(node.op, Sum | Max):
            length, columns = reduction(node, self.dialect)
            if not length and not columns:
                return None
            shape = node.inputs[0].shape
            cuts = joined_bounds(bounds(shape), (length or columns,))
            return None if cuts is None else (product(shape), length, columns, cuts, True)
        out = node.types[0]
        if isinstance(node.op, RandomUniform) and self.dialect.draws and out.dtype is t.float32 and out.size:
            return out.size, 0, 0, (1, out.size), False
        found = words(node.op, node.inputs, self.dialect)
        if found is None or out.dtype not in self.dialect.types or not out.size:
            return None
        return out.size, 0, 0, bounds(out.shape), is_unlike_numpy(found)

    def _merged(
        self, near: list[Group], node: Node, wanted: tuple[int, int, int, tuple[int, ...], bool]
    ) -> Group | None:
        """The groups and the node as one group, if they fit."""
        size, length, columns, cuts, is_needed = wanted
        whole = near[0]
        lengths = {length, *[g.length for g in near]} - {0}
        counts = {columns, *[g.columns for g in near]} - {0}
        if len(lengths) > 1 or len(counts) > 1:
            return None
        length, columns = sum(lengths), sum(counts)
        full = max([g.size for g in near])
        if any(g.size != full for g in near) or size not in (full, full // length if length else full):
            return None
        if (length and columns and length != columns) or sum([len(g.nodes) for g in near]) >= MOST_OPS:
            return None
        rows = size != full  # the node's values are those of rows
        scaled = tuple([c * length for c in cuts]) if rows else cuts
        found: tuple[int, ...] | None = scaled
        for more in ((length or 1,), (columns or 1,), *[g.cuts for g in near]):
            found = joined_bounds(found, more)
            if found is None:
                return None
        inside = {id(v.node) for v in node.inputs if self.group_of.get(id(v.node)) in near}
        shape = node.inputs[0].shape if isinstance(node.op, Sum | Max) else node.types[0].shape
        for v in node.inputs:
            if id(v.node) in inside and reduction(v.node, self.dialect)[1]:
                return None  # a sum over columns is known when the kernel ends
            if id(v.node) in inside and not self._fits(v.type, shape, full, length, is_row=rows):
                return None
        if isinstance(node.op, Sum | Max) and rows:
            return None
        if len({id(v.node) for g in near for n in g.nodes for v in n.inputs}) > MOST_OPERANDS + len(whole.nodes):
            return None
        for other in near[1:]:
            whole.nodes += other.nodes
            whole.is_needed |= other.is_needed
            for member in other.nodes:
                self.group_of[id(member)] = whole
        whole.cuts, whole.length, whole.columns = found, length, columns
        whole.is_needed |= is_needed
        return whole

    def _fits(self, type: Type, shape: Shape, full: int, length: int, *, is_row: bool) -> bool:
        """Whether a value of the group, used in an op of this shape, is used element by element or row by row."""
        own = (1,) * (len(shape) - len(type.shape)) + type.shape
        if own == shape:
            return type.size == (full // length if is_row else full)
        if is_row or not length or type.size != full // length:
            return False
        return any(
            own[:k] == shape[:k] and product(own[k:]) == 1 and product(shape[k:]) == length
            for k in range(len(shape) + 1)
        )

    def _moves_inside(self, node: Node, group: Group) -> bool:
        """Whether a reshape or broadcast of a group's value is one of the same elements, or of rows to full values."""
        x, out = node.inputs[0].type, node.types[0]
        if reduction(node.inputs[0].node, self.dialect)[1]:
            return False
        rows = group.size // group.length if group.length else -1
        if isinstance(node.op, Reshape):
            scale = group.length if x.size == rows else 1
            if x.size not in (group.size, rows):
                return False
            cuts = joined_bounds(group.cuts, tuple([c * scale for c in bounds(out.shape)]))
            if cuts is None:
                return False
            group.cuts = cuts
            return True
        if not self._fits(x, out.shape, group.size, group.length, is_row=out.size == rows):
            return False
        cuts = joined_bounds(group.cuts, bounds(out.shape)) if out.size == group.size else group.cuts
        if cuts is None or out.size not in (group.size, rows):
            return False
        group.cuts = cuts
        return True

    def _add(self, node: Node, group: Group) -> None:
        group.nodes.append(node)
        self.group_of[id(node)] = group

    # ---- afterwards

    def _sink(self) -> None:
        """Move nodes that only one later group needs into it, as long as no more is kept for it than before."""
        for node in reversed(self.graph.nodes):
            group = self.group_of.get(id(node))
            if group is None or id(node) in self._leaving or isinstance(node.op, Sum | Max | Reshape | BroadcastTo):
                continue
            targets = [self.group_of.get(id(user)) for user in self._users[id(node)]]
            target = targets[0] if targets else None
            if target is None or target is group or any(x is not target for x in targets):
                continue
            if self._may_sink(node, target):
                group.nodes.remove(node)
                target.nodes.insert(0, node)
                self.group_of[id(node)] = target

    def _may_sink(self, node: Node, target: Group) -> bool:
        type = node.types[0]
        if type.size != target.size or len(target.nodes) >= MOST_OPS:
            return False
        large = [v for v in dict.fromkeys(node.inputs) if 2 * v.size > type.size]
        if len(large) > 1 or any(v.type.nbytes > type.nbytes for v in large if v.dtype is not t.float32):
            return False
        cuts = joined_bounds(target.cuts, bounds(type.shape))
        for user in self._users[id(node)]:
            shape = user.inputs[0].shape if isinstance(user.op, Sum | Max) else user.types[0].shape
            if isinstance(user.op, Reshape):
                shape = type.shape
            if not self._fits(type, shape, target.size, target.length, is_row=False):
                return False
        inner = [v for v in node.inputs if self.group_of.get(id(v.node)) is target]
        if cuts is None or inner:
            return False
        target.cuts = cuts
        target.is_needed |= is_unlike_numpy(words(node.op, node.inputs, self.dialect) or frozenset())
        return True

    def _drop(self) -> None:
        """Forget groups that are not worth a kernel: of too few ops, or of moves alone, whose bits are NumPy's."""
        for group in self.groups():
            real_ops = [n for n in group.nodes if not isinstance(n.op, Reshape | BroadcastTo | Cast)]
            is_long = group.size >= LONG and len(real_ops) == 1
            if not group.nodes or not (group.is_needed or is_long or len(real_ops) >= self._least_ops):
                for node in group.nodes:
                    del self.group_of[id(node)]

    # ---- what a group computes again

    def users(self, node: Node) -> Sequence[Node]:
        """The nodes that need a node."""
        return self._users[id(node)]

    def is_result(self, node: Node) -> bool:
        """Whether the node's value leaves the graph."""
        return id(node) in self._leaving

    def fits(self, type: Type, shape: Shape, group: Group) -> bool:
        """Whether a full value, used in an op of the group of this shape, is used element by element."""
        return self._fits(type, shape, group.size, group.length, is_row=False)

    def note_repeats(self) -> None:
        """Take account of what groups compute again."""
        for group in self.groups():
            own = {id(node) for node in group.repeats}
            self._repeated[id(group)] = own
            self._wanted_again |= {id(v.node) for node in group.repeats for v in node.inputs} - own

    def is_seen_outside(self, node: Node, members: Collection[int]) -> bool:
        """Whether anything beyond its group needs the node, and does not compute it again."""
        if id(node) in self._leaving or id(node) in self._wanted_again:
            return True
        others = [user for user in self._users[id(node)] if id(user) not in members]
        return any(id(node) not in self._repeated.get(id(self.group_of.get(id(user))), ()) for user in others)

    def groups(self) -> Iterable[Group]:
        """All groups, in the order of their first nodes."""
        return dict.fromkeys([self.group_of[id(n)] for n in self.graph.nodes if id(n) in self.group_of])


def is_constant(value: Value, dialect: Dialect = C) -> bool:
    """Whether a kernel can hold the value as a literal."""
    return isinstance(value.node.op, Constant) and value.dtype in dialect.types
