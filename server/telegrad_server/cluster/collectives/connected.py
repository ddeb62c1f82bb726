"""A Communicator over links to all other members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from telegrad_server.cluster.collectives import routes
from telegrad_server.cluster.collectives.engine import Call, Engine
from telegrad_server.cluster.collectives.exchange import Exchange, Spare, sum_dtype
from telegrad_server.cluster.collectives.frames import EVERYONE, PAIR
from telegrad_server.cluster.collectives.links import Link
from telegrad_server.cluster.collectives.members import Failure, Group
from telegrad_server.cluster.collectives.routes import Route
from telegrad_server.executors.base import Array
from telegrad_server.executors.communicator import Pending
from telegrad_server.tree import Division, Node, spans

_BARRIER_TAG = -1


class Connected:
    """One member's end of a group of several: see `telegrad_server.executors.communicator`."""

    def __init__(self, group: Group, *, rank: int, links: Sequence[Link], timeout_seconds: float) -> None:
        self.rank = rank
        self.size = len(group.members)
        self.generation = group.generation
        self.links = {link.peer: link.kind for link in links}
        """What the data to each other rank goes through: "shared memory" or "socket"."""
        self._engine = Engine(group, rank=rank, links=links, timeout_seconds=timeout_seconds)
        self._spare = Spare(limit=256)

    def start(self) -> None:
        """Start the thread that moves the bytes."""
        self._engine.start()

    def start_all_reduce(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Pending:
        """Begin to sum over all replicas into ``out`` on every rank."""
        target = flat(out)
        own = checked_parts(parts, division=division, rank=self.rank, dtype=target.dtype, count=target.size)
        route = routes.all_reduce(self.rank, division=self._fitting(division), **_shape(target))
        return self._begin(route, tag, parts=own, out=target)

    def all_reduce(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> None:
        """Sum over all replicas into ``out`` on every rank."""
        self.start_all_reduce(parts, out, division=division, tag=tag).wait(timeout_seconds=None)

    def reduce_scatter(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> None:
        """Sum over all replicas; this rank's span of the sum into ``out``."""
        self.start_reduce_scatter(parts, out, division=division, tag=tag).wait(timeout_seconds=None)

    def start_reduce_scatter(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Pending:
        """Begin to sum over all replicas; this rank's span of the sum into ``out``."""
        assert all(first < last for first, last in division.blocks), f"{division.blocks} has an empty block"
        target = flat(out)
        count = parts[0].size
        first, last = spans(count, self.size)[self.rank]
        assert target.size == last - first, f"out has {target.size} elements, rank {self.rank} gets {last - first}"
        own = checked_parts(parts, division=division, rank=self.rank, dtype=target.dtype, count=count)
        route = routes.reduce_scatter(self.rank, division=self._fitting(division), **_shape(target, count=count))
        return self._begin(route, tag, parts=own, out=target, out_start=first)

    def all_gather(self, x: Array, out: Array, *, tag: int) -> None:
        """Every rank's ``x`` one after the other into ``out``."""
        self.start_all_gather(x, out, tag=tag).wait(timeout_seconds=None)

    def start_all_gather(self, x: Array, out: Array, *, tag: int) -> Pending:
        """Begin to put every rank's ``x`` one after the other into ``out``."""
        target = flat(out)
        first, last = spans(target.size, self.size)[self.rank]
        source = flat(x)
        assert source.size == last - first and source.dtype == target.dtype, "x is not this rank's span of out"
        if source.ctypes.data != target[first:last].ctypes.data:
            target[first:last] = source
        route = routes.all_gather(self.rank, size=self.size, **_shape(target))
        return self._begin(route, tag, parts={}, out=target)

    def broadcast(self, x: Array, *, root: int, tag: int) -> None:
        """Fill ``x`` on every rank with what it is on ``root``."""
        target = flat(x)
        route = routes.broadcast(self.rank, size=self.size, root=root, **_shape(target))
        parts = {(0, 1): target} if self.rank == root else {}
        self._begin(route, tag, parts=parts, out=target).wait(timeout_seconds=None)

    def send(self, x: Array, *, peer: int, tag: int) -> None:
        """Send to one rank."""
        source = flat(x)
        route = routes.send(self.rank, size=self.size, peer=peer, count=source.size, dtype=source.dtype.name)
        self._begin(route, tag, parts={(0, 1): source}, out=source, space=PAIR, peer=peer).wait(timeout_seconds=None)

    def recv(self, out: Array, *, peer: int, tag: int) -> None:
        """Receive from one rank."""
        target = flat(out)
        route = routes.recv(self.rank, size=self.size, peer=peer, count=target.size, dtype=target.dtype.name)
        self._begin(route, tag, parts={}, out=target, space=PAIR, peer=-2 - peer).wait(timeout_seconds=None)

    def barrier(self) -> None:
        """Return when every member has called it."""
        out = np.zeros(self.size, np.uint8)
        route = routes.all_gather(self.rank, size=self.size, **_shape(out))
        self._begin(route, _BARRIER_TAG, parts={}, out=out).wait(timeout_seconds=None)

    def check(self) -> None:
        """WorkerLost if the group is broken."""
        self._engine.check()

    def abort(self, reason: str) -> None:
        """Break the group on every member."""
        who = self._engine.group.describe([self.rank])
        self._engine.abort(Failure("abort", self.rank, f"{who} aborted it: {reason}"))

    def close(self) -> None:
        """Leave the group and end its thread."""
        self._engine.close()

    def _begin(
        self,
        route: Route,
        tag: int,
        *,
        parts: dict[Node, Array],
        out: Array,
        out_start: int = 0,
        space: int = EVERYONE,
        peer: int = -1,
    ) -> Call:
        key = self._engine.key(space=space, peer=peer, tag=tag)
        call = Call(
            self._engine,
            Exchange(key, route, parts=parts, out=out, out_start=out_start, spare=self._spare),
        )
        self._engine.submit(call)
        return call

    def _fitting(self, division: Division) -> Division:
        assert len(division.blocks) == self.size, f"{division} is not for {self.size} ranks"
        return division


def flat(x: Array) -> Array:
    """The array as one axis, without a copy."""
    assert x.flags.c_contiguous, "arrays are exchanged in C order"
    return x.reshape(-1)


def checked_parts(
    parts: Sequence[Array], *, division: Division, rank: int, dtype: np.dtype[np.generic], count: int
) -> dict[Node, Array]:
    """A rank's parts, flat, by node."""
    nodes = division.nodes(rank)
    assert len(parts) == len(nodes), f"{len(parts)} parts for the nodes {nodes}"
    for node, part in zip(nodes, parts):
        expected = dtype if node[1] - node[0] == 1 else sum_dtype(dtype)
        assert part.dtype == expected and part.size == count, (
            f"the part of {node} is {part.dtype}[{part.size}], not {expected}[{count}]"
        )
    return {node: flat(part) for node, part in zip(nodes, parts)}


class _Shape(TypedDict):
    count: int
    itemsize: int
    dtype: str


def _shape(x: Array, *, count: int | None = None) -> _Shape:
    return {"count": x.size if count is None else count, "itemsize": x.dtype.itemsize, "dtype": x.dtype.name}
