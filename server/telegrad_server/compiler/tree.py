"""The order in which replicas are summed: a fixed binary tree over all of them.

The node [lo, hi) is split at lo + the largest power of two below hi - lo. A worker that holds a block of replicas can
sum the nodes that lie inside it, and whoever adds these up goes on where it stopped: so the bits of a sum do not depend
on who holds which replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

Span = tuple[int, int]
"""A node of the tree: the replicas [lo, hi)."""


def middle(lo: int, hi: int) -> int:
    """Where the node [lo, hi) of at least two replicas is split."""
    return lo + (1 << ((hi - lo - 1).bit_length() - 1))


def cover(first: int, last: int, count: int) -> tuple[Span, ...]:
    """The fewest nodes of the tree over ``count`` replicas that make up [first, last), in order."""
    found: list[Span] = []
    pending: list[Span] = [(0, count)]
    while pending:
        lo, hi = pending.pop()
        if first <= lo and hi <= last:
            found.append((lo, hi))
        elif lo < last and first < hi:
            pending += [(middle(lo, hi), hi), (lo, middle(lo, hi))]
    return tuple(found)


def total(node: Span, sums: Mapping[Span, T], add: Callable[[T, T], T]) -> T:
    """The sum of a node, given those of nodes below it that make it up; of leaves alone, if need be."""
    known = sums.get(node)
    if known is not None:
        return known
    at = middle(*node)
    return add(total((node[0], at), sums, add), total((at, node[1]), sums, add))
