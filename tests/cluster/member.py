"""A member of a group in a process of its own, for `test_collectives`: prints its port, reads members, does as told.

Each line that it reads is JSON: the members to join with, then calls. It answers each with one line of JSON. Told what
devices the members have, and what happens at its own door to them, it says how it exchanges.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from telegrad.errors import TelegradError
from telegrad_server.cluster.collectives import Listener, Member, host_identity
from telegrad_server.executors.communicator import Communicator
from telegrad_server.executors.direct import agreed
from telegrad_server.executors.staged import Staged
from telegrad_server.tree import Division, adds_within

from tests.cluster.doors import ToldDoor
from tests.executors.away import Ferry, away

KEY = bytes(range(32))


def leaf(replica: int, count: int) -> np.ndarray:
    """The values of one replica: of very different sizes, so that every order of adding them gives other bits."""
    rng = np.random.default_rng(replica)
    return (rng.standard_normal(count) * 10.0 ** rng.integers(-4, 5, count)).astype(np.float32)


def summed(node: tuple[int, int], leaves: dict[int, np.ndarray]) -> np.ndarray:
    """A node's sum in the order of the tree, 16-bit floats in float32."""
    made: dict[tuple[int, int], np.ndarray] = {(r, r + 1): x for r, x in leaves.items()}
    for add in adds_within(node):
        left, right = made[add.left], made[add.right]
        if left.dtype.itemsize == 2 and left.dtype.kind not in "iu":
            left = left.astype(np.float32)
        if right.dtype.itemsize == 2 and right.dtype.kind not in "iu":
            right = right.astype(np.float32)
        made[add.out] = left + right
    return made[node]


def digest(x: np.ndarray) -> str:
    """What two arrays share only if all their bits do."""
    return hashlib.sha256(x.tobytes()).hexdigest()


def obey(group: Communicator, order: dict[str, Any]) -> dict[str, Any]:
    """Do one call and say what came of it."""
    division = Division.even(order["replicas"], size=group.size)
    count = order["count"]
    first, last = division.blocks[group.rank]
    leaves = {r: leaf(r, count) for r in range(first, last)}
    parts = [summed(node, leaves) for node in division.nodes(group.rank)]
    out = np.zeros(count, np.float32)
    if isinstance(group, Staged):
        parts, out = [away(part) for part in parts], away(out)
    for tag in range(order["times"]):
        group.all_reduce(parts, out, division=division, tag=tag)
    return {"digest": digest(out)}


def main() -> None:
    """Join, obey until the input ends, leave."""
    listener = Listener("127.0.0.1", 0, tls=None)
    listener.start()
    print(json.dumps({"port": listener.port, "machine": host_identity()}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "members" in order:
                order["members"] = [Member(*m) for m in order["members"]]
                group = listener.join(**order, group="g", key=KEY)
                answer: dict[str, Any] = {"links": {str(r): kind for r, kind in getattr(group, "links", {}).items()}}
            elif "devices" in order:
                group = agreed(group, order["devices"], ToldDoor(order["door"], Path(order["folder"])), Ferry())
                answer = {"exchanges": type(group).__name__}
            else:
                answer = obey(group, order)
        except TelegradError as error:
            answer = {"error": type(error).__name__, "message": error.message, **error.details}
        print(json.dumps(answer), flush=True)
    listener.close()
    print(json.dumps({"threads": [t.name for t in threading.enumerate()]}), flush=True)


if __name__ == "__main__":
    main()
