"""Values that a later kernel computes again instead of reading them. Exact: it is the same op on the same operands.

A value of the whole index space costs a kernel a write, and each kernel that needs it a read. Where it follows by a
few cheap ops from something that the later kernel reads anyway, or could read in its place, it is computed there:
batch norm then keeps the output of the convolution alone, not what is centred, scaled and shifted of it.
"""

from __future__ import annotations

from telegrad.ir.types import Type
from telegrad.ir.value import Node, Value
from telegrad.ops import elementwise as e

from telegrad_server.compiler.groups import (
    MOST_OPERANDS,
    MOST_OPS,
    Group,
    Grouping,
    bounds,
    constant_behind,
    is_constant,
    joined_bounds,
)

CHEAP = (
    e.Add, e.Subtract, e.Multiply, e.Divide, e.Negative, e.Square, e.Relu, e.Where, e.Maximum, e.Minimum,
    e.Equal, e.NotEqual, e.Less, e.LessEqual, e.Greater, e.GreaterEqual,
)  # fmt: skip
"""Ops that take less than a read from memory."""

MOST_AGAIN = 12
"""Ops that a kernel does again for one value."""


class Recomputing:
    """Which values each group computes again."""

    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._again: dict[int, dict[Value, None]] = {}  # by the group's id
        self._operands: dict[int, set[Value]] = {}
        self._ops: dict[int, int] = {}
        for group in grouping.groups():
            members = {id(node) for node in group.nodes}
            self._operands[id(group)] = {
                v
                for node in group.nodes
                for v in node.inputs
                if id(v.node) not in members and not is_constant(constant_behind(v))
            }
            self._ops[id(group)] = len(group.nodes)
        for node in grouping.graph.nodes:
            group = grouping.group_of.get(id(node))
            if group is not None and isinstance(node.op, CHEAP) and node.types[0].size == group.size:
                self._consider(node, group)

    def is_again(self, v: Value, group: Group) -> bool:
        """Whether the group computes a value from outside."""
        return v in self._again.get(id(group), ())

    def _consider(self, node: Node, own: Group) -> None:
        """Decide who computes a node's value again: all who need it, or those who read all of its operands anyway."""
        v = Value(node)
        users = [self._grouping.group_of.get(id(user)) for user in self._grouping.users(node)]
        others = [group for group in dict.fromkeys(users) if group is not None and group is not own]
        if not others:
            return
        found = self._chain(v, own)
        if found is None:
            return
        chain, roots, small = found
        able = [group for group in others if self._takes(group, v.type, chain, roots | small)]
        missing = [roots - self._operands[id(group)] for group in able]
        is_gone = (
            len(able) == len(others)
            and None not in users
            and not self._grouping.leaves(node)
            and all(len(more) <= 1 and all(r.type.nbytes <= v.type.nbytes for r in more) for more in missing)
        )
        for group, more in zip(able, missing, strict=True):
            if is_gone or not more:
                self._again.setdefault(id(group), {}).update(dict.fromkeys(chain))
                operands = self._operands[id(group)]
                operands |= roots | small
                operands.discard(v)
                self._ops[id(group)] += len(chain)

    def _chain(self, v: Value, own: Group) -> tuple[list[Value], set[Value], set[Value]] | None:
        """What must be computed for a value of a group, what large values it follows from, and what small ones."""
        chain: dict[Value, None] = {}
        roots: set[Value] = set()
        small: set[Value] = set()
        pending = [v]
        while pending:
            x = pending.pop()
            is_inside = self._grouping.group_of.get(id(x.node)) is own
            if x in chain or is_constant(constant_behind(x)):
                continue
            if x.shape == v.shape and (is_inside or self.is_again(x, own)):
                if not isinstance(x.node.op, CHEAP) or len(chain) == MOST_AGAIN:
                    return None
                chain[x] = None
                pending += x.node.inputs
            elif is_inside:
                return None
            elif 2 * x.size > v.size:
                roots.add(x)
            else:
                small.add(x)
        return list(chain), roots, small

    def _takes(self, group: Group, type: Type, chain: list[Value], more: set[Value]) -> bool:
        cuts = joined_bounds(group.cuts, bounds(type.shape))
        operands = len(self._operands[id(group)] | more)
        if cuts is None or type.size != group.size or operands > MOST_OPERANDS:
            return False
        if self._ops[id(group)] + len(chain) > MOST_OPS:
            return False
        group.cuts = cuts
        return True
