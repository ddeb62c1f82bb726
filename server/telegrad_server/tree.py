"""The order in which the values of n replicas are summed: a fixed balanced binary tree.

Floating-point addition is not associative, so the order is part of the numerics. The tree over the replicas
[0, n) is fixed by n alone: a node [lo, hi) is the sum of [lo, lo + p) and [lo + p, hi), where p is the largest power
of two smaller than hi - lo. Replicas live on workers in contiguous blocks; a worker sums the nodes that lie
within its block, only these are exchanged, and the rest of the tree is summed where they meet. So the bits are the
same however the replicas are divided, also over one worker. A ring, whose order follows from the number of
workers, cannot give that.

No arrays here: the compiler, which emits a worker's own sums, and every communicator read the same tree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

T = TypeVar("T")

Node = tuple[int, int]
"""The sum over the replicas [first, second)."""


class Add(NamedTuple):
    """One addition: ``out = left + right``, in this order."""

    left: Node
    right: Node
    out: Node


def children(node: Node) -> tuple[Node, Node]:
    """The two nodes that a node of more than one replica is the sum of, left first."""
    first, last = node
    middle = first + (1 << ((last - first - 1).bit_length() - 1))
    return (first, middle), (middle, last)


def nodes_within(first: int, last: int, *, replicas: int) -> tuple[Node, ...]:
    """The largest nodes of the tree over [0, replicas) that lie within the block [first, last), left to right."""
    return tuple(_within((0, replicas), first, last)) if first < last else ()


def _within(node: Node, first: int, last: int) -> Iterator[Node]:
    if first <= node[0] and node[1] <= last:
        yield node
    elif node[0] < last and first < node[1]:
        for child in children(node):
            yield from _within(child, first, last)


def adds_to(node: Node, leaves: frozenset[Node]) -> list[Add]:
    """The additions that make a node from nodes below it, each after those it needs."""
    if node in leaves:
        return []
    left, right = children(node)
    return [*adds_to(left, leaves), *adds_to(right, leaves), Add(left, right, node)]


def total(node: Node, sums: Mapping[Node, T], add: Callable[[T, T], T]) -> T:
    """The sum of a node, given those of nodes below it that make it up; of single replicas, if need be."""
    known = sums.get(node)
    if known is not None:
        return known
    left, right = children(node)
    return add(total(left, sums, add), total(right, sums, add))


def adds_within(node: Node) -> list[Add]:
    """The additions that make a node from its single replicas."""
    return adds_to(node, frozenset((r, r + 1) for r in range(*node)))


@dataclass(frozen=True)
class Division:
    """Which block of replicas each rank holds: ``blocks[rank] = (first, last)``; contiguous, in the order of ranks.

    A block may be empty. ValueError if the blocks are not a division of [0, replicas).
    """

    replicas: int
    blocks: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        bounds = [0, *(last for _, last in self.blocks)]
        if self.replicas < 1 or [*itertools.pairwise(bounds)] != [*self.blocks] or bounds[-1] != self.replicas:
            raise ValueError(f"{self.blocks} does not divide {self.replicas} replicas")
        if any(first > last for first, last in self.blocks):
            raise ValueError(f"{self.blocks} has a block that ends before it begins")

    @classmethod
    def even(cls, replicas: int, *, size: int) -> Division:
        """The division over ``size`` ranks in which the first ``replicas % size`` hold one more than the others."""
        return cls(replicas, tuple(spans(replicas, size)))

    def nodes(self, rank: int) -> tuple[Node, ...]:
        """The nodes that a rank contributes; usually one."""
        first, last = self.blocks[rank]
        return nodes_within(first, last, replicas=self.replicas)

    @cached_property
    def contributions(self) -> tuple[tuple[int, Node], ...]:
        """(rank, node) of everything that is exchanged, left to right. A message names its node by the index here."""
        return tuple((rank, node) for rank in range(len(self.blocks)) for node in self.nodes(rank))

    @cached_property
    def adds(self) -> Sequence[Add]:
        """The additions from what is exchanged to the root."""
        return adds_to((0, self.replicas), frozenset(node for _, node in self.contributions))

    @cached_property
    def add_of(self) -> dict[Node, Add]:
        """The addition that a node goes into. The root is in none."""
        return {child: add for add in self.adds for child in (add.left, add.right)}


def spans(count: int, size: int) -> list[tuple[int, int]]:
    """[0, count) cut into ``size`` spans, the first ``count % size`` of them one longer than the others."""
    short, longer = divmod(count, size)
    starts = [rank * short + min(rank, longer) for rank in range(size + 1)]
    return [*itertools.pairwise(starts)]
