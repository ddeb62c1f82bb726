"""The other workers of a run: what a start gives them, and a finish waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from telegrad.errors import ExecutionError, WorkerLost

from telegrad_server.compiler.collective import Finish, StartAllReduce, StartGather, bounds
from telegrad_server.executors.base import Array
from telegrad_server.executors.communicator import Communicator, Pending
from telegrad_server.tree import Division

BUCKETS = 1 << 16
"""More than a function has: a run's messages are told apart from those of the run before by their tags."""

_present = threading.local()


class Company:
    """One member's end of one run. ``waiting`` surrounds the times in which this member computes nothing.

    ``step`` numbers the runs of the group, the same at every member.
    """

    def __init__(
        self,
        communicator: Communicator,
        division: Division,
        *,
        step: int,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.communicator = communicator
        self._division = division
        self._first_tag = step * BUCKETS
        self._waiting = waiting
        self._under_way: dict[int, tuple[Pending, Array]] = {}

    @contextmanager
    def present(self) -> Generator[None, None, None]:
        """Inside the ``with`` the thread runs a plan with these others; what it leaves under way breaks the group."""
        _present.company = self
        try:
            yield
        except BaseException as error:
            self.communicator.abort(f"{type(error).__name__}: {error}")
            raise
        finally:
            _present.company = None
            for pending, _ in self._under_way.values():  # the memory it uses is used again
                with suppress(WorkerLost):
                    pending.wait(timeout_seconds=None)
            self._under_way.clear()

    def start(self, op: StartAllReduce, token: Array) -> None:
        """Let a bucket's sums go on their way; ``token[nodes, elements]`` holds them, and then what comes of it."""
        rows: list[Any] = [token[i] for i in range(len(op.nodes))]
        tag = self._first_tag + op.bucket
        if op.span is None:
            pending = self.communicator.start_all_reduce(rows, rows[0], division=self._division, tag=tag)
        else:
            first, last = op.span
            out = rows[0][first:last]
            pending = self.communicator.start_reduce_scatter(rows, out, division=self._division, tag=tag)
        self._under_way[op.bucket] = pending, token

    def gather(self, op: StartGather, token: Any) -> None:
        """Let this member's span of the token go to all others, and theirs come."""
        first, last = op.span
        pending = self.communicator.start_all_gather(token[first:last], token, tag=self._first_tag + op.bucket)
        self._under_way[op.bucket] = pending, token

    def finish(self, op: Finish) -> None:
        """Wait until a bucket is there, which is in its token then."""
        pending, _ = self._under_way[op.bucket]
        if not pending.is_done:
            with self._waiting():
                pending.wait(timeout_seconds=None)
        else:
            pending.wait(timeout_seconds=None)
        del self._under_way[op.bucket]


def _company() -> Company:
    found = getattr(_present, "company", None)
    if found is None:
        raise ExecutionError("a plan for one of several workers runs in their company only")
    return found


def start_body(op: StartAllReduce, lib: Any, *, is_in_place: bool) -> Callable[..., None]:
    """The body of a start: operands, then the token to write, which may be the memory of the only operand."""
    nodes = len(op.nodes)

    def start(*arrays: Array) -> None:
        *operands, token = arrays
        if not is_in_place:
            count = len(operands) // nodes
            at = bounds([x.shape for x in operands[:count]], token.dtype.itemsize)
            for i in range(nodes):
                for k, x in enumerate(operands[i * count : (i + 1) * count]):
                    token[i, at[k] : at[k] + x.size] = x.reshape(-1)
                    token[i, at[k] + x.size : at[k + 1]] = 0
        _company().start(op, token)

    return start


def gather_body(op: StartGather) -> Callable[..., None]:
    """The body of a gather's start: the span, then the token to write."""
    first, last = op.span

    def start(x: Array, token: Any) -> None:
        token[first:last] = x
        _company().gather(op, token)

    return start


def finish_view(op: Finish) -> Callable[[Array], Array]:
    """What takes a token and returns it, once what it stands for is there."""

    def finish(token: Array) -> Array:
        _company().finish(op)
        return token

    return finish
