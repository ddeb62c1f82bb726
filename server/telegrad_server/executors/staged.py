"""A Communicator for arrays that are not in host memory, by way of it: copied there, exchanged, copied back.

The exchange is the host's, so the order of summation and the bits are the host's too. A start waits until the device
has made what is given, and copies it; while the exchange is under way the device computes on; the wait copies the
result back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from telegrad_server.executors.base import Array
from telegrad_server.executors.communicator import Communicator, Pending
from telegrad_server.tree import Division, spans

Host = npt.NDArray[Any]
"""A NumPy array."""


class Staging(Protocol):
    """How an executor's arrays come to host memory and back. Arrays are in C order; shapes do not matter."""

    def room(self, like: Array, /) -> Host:
        """Host memory for the elements of an array, on one axis; they are anything."""
        ...

    def bring(self, x: Array, to: Host, /) -> None:
        """Copy an array's elements to host memory. Returns when they are there."""
        ...

    def take(self, x: Host, to: Array, /) -> None:
        """Copy elements to an array. Returns when host memory may be used again."""
        ...


class Staged:
    """One member's end of a group of the host's, for arrays elsewhere: see `telegrad_server.executors.communicator`."""

    def __init__(self, host: Communicator, staging: Staging) -> None:
        """``host``: the group in host memory, which this one uses alone, and closes."""
        self.rank = host.rank
        self.size = host.size
        self.generation = host.generation
        self._host = host
        self._staging = staging

    def start_all_reduce(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Pending:
        """Begin to sum over all replicas into ``out`` on every rank."""
        brought = [self._brought(part) for part in parts]
        is_alike = bool(parts) and parts[0].dtype == out.dtype
        room = brought[0] if is_alike else self._staging.room(out)
        pending = self._host.start_all_reduce(brought, room, division=division, tag=tag)
        return _Staged(pending, self._staging, room, out)

    def all_reduce(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> None:
        """Sum over all replicas into ``out`` on every rank."""
        self.start_all_reduce(parts, out, division=division, tag=tag).wait(timeout_seconds=None)

    def reduce_scatter(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> None:
        """Sum over all replicas; this rank's span of the sum into ``out``."""
        self.start_reduce_scatter(parts, out, division=division, tag=tag).wait(timeout_seconds=None)

    def start_reduce_scatter(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Pending:
        """Begin to sum over all replicas; this rank's span of the sum into ``out``."""
        brought = [self._brought(part) for part in parts]
        room = self._staging.room(out)
        pending = self._host.start_reduce_scatter(brought, room, division=division, tag=tag)
        return _Staged(pending, self._staging, room, out)

    def all_gather(self, x: Array, out: Array, *, tag: int) -> None:
        """Every rank's ``x`` one after the other into ``out``."""
        self.start_all_gather(x, out, tag=tag).wait(timeout_seconds=None)

    def start_all_gather(self, x: Array, out: Array, *, tag: int) -> Pending:
        """Begin to put every rank's ``x`` one after the other into ``out``."""
        room = self._staging.room(out)
        first, last = spans(room.size, self.size)[self.rank]
        self._staging.bring(x, room[first:last])
        pending = self._host.start_all_gather(room[first:last], room, tag=tag)
        return _Staged(pending, self._staging, room, out)

    def broadcast(self, x: Array, *, root: int, tag: int) -> None:
        """Fill ``x`` on every rank with what it is on ``root``."""
        room = self._brought(x) if self.rank == root else self._staging.room(x)
        self._host.broadcast(room, root=root, tag=tag)
        if self.rank != root:
            self._staging.take(room, x)

    def send(self, x: Array, *, peer: int, tag: int) -> None:
        """Send to one rank."""
        self._host.send(self._brought(x), peer=peer, tag=tag)

    def recv(self, out: Array, *, peer: int, tag: int) -> None:
        """Receive from one rank."""
        room = self._staging.room(out)
        self._host.recv(room, peer=peer, tag=tag)
        self._staging.take(room, out)

    def barrier(self) -> None:
        """Return when every member has called it."""
        self._host.barrier()

    def check(self) -> None:
        """WorkerLost if the group is broken."""
        self._host.check()

    def abort(self, reason: str) -> None:
        """Break the group on every member."""
        self._host.abort(reason)

    def close(self) -> None:
        """Leave the group and end its threads."""
        self._host.close()

    def _brought(self, x: Array) -> Host:
        room = self._staging.room(x)
        self._staging.bring(x, room)
        return room


class _Staged:
    """An exchange under way, whose result is copied back when it is waited for."""

    def __init__(self, pending: Pending, staging: Staging, room: Host, out: Array) -> None:
        self._pending = pending
        self._staging = staging
        self._room: Host | None = room
        self._out = out

    @property
    def is_done(self) -> bool:
        """Whether `wait` waits for no other member."""
        return self._pending.is_done

    def wait(self, *, timeout_seconds: float | None) -> None:
        """Return when the result is in place."""
        self._pending.wait(timeout_seconds=timeout_seconds)
        room, self._room = self._room, None
        if room is not None:
            self._staging.take(room, self._out)
