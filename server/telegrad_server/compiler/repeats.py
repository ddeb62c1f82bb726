"""What a group computes again instead of reading it: cheap ops of earlier groups. Exact: an op has its bits wherever
it stands.

The gradient of an activation needs what the forward made on the way. Where that is a few sums and products away from
something that is kept in any case, it is made again in registers, and the forward writes one array instead of six.
"""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.ir.value import Node, Value
from telegrad.ops.reduce import Max, Sum
from telegrad.ops.shape import Reshape

from telegrad_server.compiler.c_words import UNLIKE_NUMPY
from telegrad_server.compiler.dialect import Dialect
from telegrad_server.compiler.expressions import words
from telegrad_server.compiler.groups import MOST_OPERANDS, MOST_OPS, Group, Grouping, bounds, is_constant, joined_bounds

DEAR = UNLIKE_NUMPY | {"power", "sqrt", "divide", "reciprocal"}
"""Words that take longer than to read a number."""

SMALL = 16
"""A value with so many times fewer elements than the group has is read for nothing."""


def repeat_cheap(grouping: Grouping) -> None:
    """Let groups compute again what makes them read less."""
    for group in grouping.groups():
        _Repeating(group, grouping).run()


class _Repeating:
    """A group that reads some values, and computes some again."""

    def __init__(self, group: Group, grouping: Grouping) -> None:
        self._group, self._grouping = group, grouping
        self._inside = {id(node) for node in group.nodes}
        self._read = dict.fromkeys(self._from_outside(group.nodes))

    def run(self) -> None:
        while (v := next(filter(self._is_better_repeated, reversed(self._read)), None)) is not None:
            cuts = joined_bounds(self._group.cuts, bounds(v.shape))
            assert cuts is not None
            self._group.cuts = cuts
            self._group.repeats.append(v.node)
            self._inside.add(id(v.node))
            del self._read[v]
            self._read |= dict.fromkeys(self._from_outside([v.node]))

    def _from_outside(self, nodes: Sequence[Node]) -> list[Value]:
        read = [v for node in nodes for v in node.inputs if id(v.node) not in self._inside]
        return [v for v in read if not is_constant(v, self._grouping.dialect)]

    def _is_better_repeated(self, v: Value) -> bool:
        group, users = self._group, self._grouping.users(v.node)
        maker = self._grouping.group_of.get(id(v.node))
        if maker is None or v.size != group.size or not _is_cheap(v.node, self._grouping.dialect):
            return False
        if len(group.nodes) + len(group.repeats) >= MOST_OPS or len(self._read) >= MOST_OPERANDS:
            return False
        more = sum([self._bytes(x) for x in dict.fromkeys(self._from_outside([v.node])) if x not in self._read])
        less = self._bytes(v)
        is_only_here = not self._grouping.is_result(v.node) and all(
            self._grouping.group_of.get(id(user)) in (maker, group) for user in users
        )
        if more > less or (more == less and not is_only_here):
            return False
        return joined_bounds(group.cuts, bounds(v.shape)) is not None and all(
            self._grouping.fits(v.type, _shape_of_use(user, v), group) for user in users if id(user) in self._inside
        )

    def _bytes(self, v: Value) -> int:
        return v.type.nbytes if v.size * SMALL > self._group.size else 0


def _is_cheap(node: Node, dialect: Dialect) -> bool:
    found = words(node.op, node.inputs, dialect)
    return found is not None and found.isdisjoint(DEAR)


def _shape_of_use(user: Node, v: Value) -> tuple[int, ...]:
    if isinstance(user.op, Reshape):
        return v.shape
    return v.shape if isinstance(user.op, Sum | Max) else user.types[0].shape
