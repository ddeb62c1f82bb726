"""The order of steps: that of the graph, except that what frees memory runs as soon as it can.

The graph's order is the one in which users and rules built it, which is how an eager framework would run it.
On top of it, a node that makes nothing new (it writes a result, overwrites an operand that ends with it, or is a
view) or much less than it frees runs at once: so a parameter is updated, and its gradient's memory is free
again, before the gradient of the next layer is computed. The live bytes never grow by this. What begins to travel to
other workers runs at once as well, and what waits for it not before its turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple


class Demand(NamedTuple):
    """What scheduling asks about a node: which nodes and which memory it needs, and what it makes."""

    after: tuple[int, ...]
    """The nodes that must run before it."""

    blocks: tuple[int, ...]
    """The blocks of scratch memory that it reads."""

    makes: int
    """The bytes of scratch that its results take."""

    may_overwrite: bool
    """Whether its result may take the place of an operand that ends with it."""

    haste: Literal["", "early", "late"] = ""
    """Whether it runs as soon as it can, whatever it costs, or not before its turn in the graph."""


def schedule(demands: Sequence[Demand], block_bytes: Sequence[int]) -> list[int]:
    """The numbers of the nodes in running order. ``block_bytes`` are the sizes of the blocks."""
    users: list[list[int]] = [[] for _ in demands]
    missing = [len(d.after) for d in demands]
    waiting = [0] * len(block_bytes)  # how many nodes have yet to read a block
    mark = [0] * len(block_bytes)  # and their numbers, xor-ed: the number itself when one is left
    for number, demand in enumerate(demands):
        for before in demand.after:
            users[before].append(number)
        for block in demand.blocks:
            waiting[block] += 1
            mark[block] ^= number
    order: list[int] = []
    is_done = [False] * len(demands)

    def is_worth_it(number: int) -> bool:
        demand = demands[number]
        if demand.haste:
            return demand.haste == "early"
        if demand.makes == 0:
            return True
        freed = sum([block_bytes[b] for b in demand.blocks if waiting[b] == 1])
        return demand.makes <= freed if demand.may_overwrite else 8 * demand.makes <= freed

    for first in range(len(demands)):
        pending = [first]
        while pending:
            number = pending.pop()
            if is_done[number] or missing[number] or (number != first and not is_worth_it(number)):
                continue
            is_done[number] = True
            order.append(number)
            for user in reversed(users[number]):
                missing[user] -= 1
                if not missing[user]:
                    pending.append(user)
            for block in demands[number].blocks:
                waiting[block] -= 1
                mark[block] ^= number
                if waiting[block] == 1:
                    pending.append(mark[block])
    return order
