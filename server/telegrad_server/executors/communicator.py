"""The Communicator protocol: how the workers of one group add and exchange arrays.

Implemented by `telegrad_server.cluster.collectives` for arrays in a host's memory and by `executors.nccl` for arrays on
GPUs. All members make the same calls. Arrays are in C order and of the executor's own kind; shapes do not matter,
only the number of elements. What docs/collectives.md says of the order of summation holds for every implementation.

Every call raises WorkerLost, with ``rank``, ``worker`` and ``during`` in its details, as soon as the group is broken: a
member died, a member called `abort`, or nothing was heard for the group's timeout. A broken group stays broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from telegrad_server.executors.base import Array
from telegrad_server.tree import Division

ONCE = 1 << 16
"""The first tag that is used once."""


class Pending(Protocol):
    """An exchange under way."""

    @property
    def is_done(self) -> bool:
        """Whether `wait` returns at once, or raises."""
        ...

    def wait(self, *, timeout_seconds: float | None) -> None:
        """Return when the result is in place and the parts may be written again.

        None: as long as the group's timeout allows. WorkerLost when the group breaks; the wait's own timeout breaks it.
        """
        ...


class Communicator(Protocol):
    """One member's end of a group of ``size`` members.

    Messages are matched by ``tag``, an integer from 0, below 2**62. Tags below ``ONCE`` may be used again, and their
    messages are matched by their order; tags from ``ONCE`` on are used once in the life of a group, so that it need not
    remember them: for those who number their calls. Calls with different tags may be in flight at once and may be
    issued in another order by every member; NCCL alone needs one order everywhere. Calls of one tag must not be issued
    by two threads at once.
    """

    @property
    def rank(self) -> int:
        """This member's number, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many members there are."""
        ...

    @property
    def generation(self) -> int:
        """How many times the group has been built; a newer one replaces it."""
        ...

    def start_all_reduce(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Pending:
        """Begin to sum over all replicas into ``out`` on every rank. Until it is waited for, parts must not be
        written and ``out`` not read.

        ``parts``: one array for each of ``division.nodes(rank)``, of ``out``'s size and dtype; where ``out`` has a
        16-bit float, the part of a node of several replicas is float32. ``out`` may be one of the parts.
        """
        ...

    def all_reduce(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> None:
        """`start_all_reduce`, and wait."""
        ...

    def start_reduce_scatter(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Pending:
        """`reduce_scatter`, to be waited for. ``out`` may be this rank's span of a part."""
        ...

    def start_all_gather(self, x: Array, out: Array, *, tag: int) -> Pending:
        """`all_gather`, to be waited for. ``x`` may be this rank's span of ``out``."""
        ...

    def reduce_scatter(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> None:
        """The sum as by `all_reduce`, but ``out`` gets only this rank's of ``spans(parts' size, size)``.

        A rank whose block is empty has no parts to tell the size by, so every block must hold a replica.
        """
        ...

    def all_gather(self, x: Array, out: Array, *, tag: int) -> None:
        """Every rank's ``x`` one after the other; ``x`` is as long as this rank's of ``spans(out's size, size)``."""
        ...

    def broadcast(self, x: Array, *, root: int, tag: int) -> None:
        """Fill ``x`` on every rank with what it is on ``root``."""
        ...

    def send(self, x: Array, *, peer: int, tag: int) -> None:
        """Send to one rank. Returns when it is on its way, which may be only after the receiver asks for it."""
        ...

    def recv(self, out: Array, *, peer: int, tag: int) -> None:
        """Receive what ``peer`` sends to this rank under the same tag."""
        ...

    def barrier(self) -> None:
        """Return when every member has called it."""
        ...

    def check(self) -> None:
        """WorkerLost if the group is broken."""
        ...

    def abort(self, reason: str) -> None:
        """Break the group on every member. Does not wait; any thread may call it, any number of times."""
        ...

    def close(self) -> None:
        """Leave the group and end its threads. What is still under way breaks. Idempotent."""
        ...
