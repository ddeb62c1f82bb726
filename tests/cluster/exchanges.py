"""What three members exchange whose arrays are elsewhere, by whichever group, and whether the bits are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from telegrad_server.executors.communicator import Communicator
from telegrad_server.tree import Division, spans

from tests.cluster.member import leaf, summed
from tests.executors.away import away

SIZE = 3
DIVISION = Division(7, ((0, 2), (2, 3), (3, 7)))


def leaves_of(count: int, dtype: Any = np.float32) -> dict[int, Any]:
    """For each replica an array whose sums need rounding."""
    return {r: (leaf(r, count) / 64).astype(dtype) for r in range(DIVISION.replicas)}


def parts_of(rank: int, leaves: dict[int, Any]) -> list[Any]:
    """What a member brings."""
    return [away(summed(node, leaves)) for node in DIVISION.nodes(rank)]


def sum_of(leaves: dict[int, Any], dtype: Any = np.float32) -> Any:
    """What all get."""
    return summed((0, DIVISION.replicas), leaves).astype(dtype)


def sums(groups: Sequence[Communicator], rank: int, count: int, dtype: Any) -> list[bool]:
    """A member's all-reduce, reduce-scatter and all-gather."""
    leaves = leaves_of(count, dtype)
    parts, expected = parts_of(rank, leaves), sum_of(leaves, dtype)
    whole, gathered = away(np.zeros(count, dtype)), away(np.zeros(count, dtype))
    first, last = spans(count, SIZE)[rank]
    own = away(np.zeros(last - first, dtype))
    groups[rank].all_reduce(parts, whole, division=DIVISION, tag=1)
    groups[rank].reduce_scatter(parts, own, division=DIVISION, tag=2)
    groups[rank].all_gather(own, gathered, tag=3)
    wanted = [expected, expected[first:last], expected]
    return [a.tobytes() == b.tobytes() for a, b in zip([whole, own, gathered], wanted, strict=True)]


def messages(groups: Sequence[Communicator], rank: int) -> bool:
    """A member's part in a broadcast by rank 1, a barrier, and a message from rank 0 to rank 2."""
    value = leaf(3, 777)
    x = away(value if rank == 1 else np.zeros_like(value))
    groups[rank].broadcast(x, root=1, tag=1)
    groups[rank].barrier()
    y = away(x if rank == 0 else np.zeros_like(value))
    if rank == 0:
        groups[rank].send(y, peer=2, tag=2)
    elif rank == 2:
        groups[rank].recv(y, peer=0, tag=2)
    return x.tobytes() == value.tobytes() and (rank == 1 or y.tobytes() == value.tobytes())
