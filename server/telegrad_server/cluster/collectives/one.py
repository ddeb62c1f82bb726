"""A Communicator for a group of one: nothing is sent, and the rules are the same."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad_server.cluster.collectives.connected import checked_parts, flat
from telegrad_server.cluster.collectives.members import Failure, Group, Member
from telegrad_server.executors.base import Array
from telegrad_server.executors.communicator import Pending
from telegrad_server.tree import Division


class One:
    """The whole group. Its block is all replicas, so its part is the root of the tree: the sum, not rounded yet."""

    rank = 0
    size = 1

    def __init__(self, name: str, *, generation: int) -> None:
        self.generation = generation
        self._group = Group(name, generation, (Member("this worker", "localhost", 0, ""),))
        self._failure: Failure | None = None

    def start_all_reduce(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Pending:
        """The sum, rounded to ``out``'s dtype."""
        self.all_reduce(parts, out, division=division, tag=tag)
        return _Done()

    def all_reduce(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> None:
        """The sum, rounded to ``out``'s dtype."""
        self._check(f"all_reduce under tag {tag}")
        target = flat(out)
        own = checked_parts(parts, division=division, rank=0, dtype=target.dtype, count=target.size)
        target[...] = own[0, division.replicas]

    def reduce_scatter(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> None:
        """As `all_reduce`: the only span is all of it."""
        self.all_reduce(parts, out, division=division, tag=tag)

    def all_gather(self, x: Array, out: Array, *, tag: int) -> None:
        """A copy."""
        self._check(f"all_gather under tag {tag}")
        flat(out)[...] = flat(x)

    def start_reduce_scatter(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Pending:
        """As `all_reduce`."""
        return self.start_all_reduce(parts, out, division=division, tag=tag)

    def start_all_gather(self, x: Array, out: Array, *, tag: int) -> Pending:
        """A copy."""
        self.all_gather(x, out, tag=tag)
        return _Done()

    def broadcast(self, x: Array, *, root: int, tag: int) -> None:
        """Nothing to do."""
        assert root == 0, f"there is no rank {root}"
        self._check(f"broadcast under tag {tag}")

    def send(self, x: Array, *, peer: int, tag: int) -> None:
        """There is nobody to send to."""
        raise AssertionError(f"there is no rank {peer}")

    def recv(self, out: Array, *, peer: int, tag: int) -> None:
        """There is nobody to receive from."""
        raise AssertionError(f"there is no rank {peer}")

    def barrier(self) -> None:
        """Everyone is here."""
        self._check("barrier")

    def check(self) -> None:
        """WorkerLost if the group is broken."""
        self._check("nothing")

    def abort(self, reason: str) -> None:
        """Break the group."""
        self._failure = self._failure or Failure("abort", 0, f"it was aborted: {reason}")

    def close(self) -> None:
        """Leave the group."""
        self._failure = self._failure or Failure("left", 0, "its only member has left it")

    def _check(self, during: str) -> None:
        if self._failure is not None:
            raise self._failure.error(self._group, during=during)


class _Done:
    is_done = True

    def wait(self, *, timeout_seconds: float | None) -> None:
        """Nothing to wait for."""
