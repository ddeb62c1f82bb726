"""The other workers of a run: what `StartAllReduce` gives them, and `FinishAllReduce` waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from telegrad.errors import ExecutionError, WorkerLost

from telegrad_server.compiler.collective import FinishAllReduce, StartAllReduce
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
        pending = self.communicator.start_all_reduce(
            rows, rows[0], division=self._division, tag=self._first_tag + op.bucket
        )
        self._under_way[op.bucket] = pending, rows[0]

    def finish(self, op: FinishAllReduce) -> Array:
        """A bucket's sums over all workers, once they are there: [elements]."""
        pending, sums = self._under_way[op.bucket]
        with self._waiting():
            pending.wait(timeout_seconds=None)
        del self._under_way[op.bucket]
        return sums


def _company() -> Company:
    found = getattr(_present, "company", None)
    if found is None:
        raise ExecutionError("a plan for one of several workers runs in their company only")
    return found


def start_body(op: StartAllReduce, lib: Any) -> Callable[..., None]:
    """The body of a start: operands, then the token to write."""
    nodes = len(op.nodes)

    def start(*arrays: Array) -> None:
        *operands, token = arrays
        count = len(operands) // nodes
        for i in range(nodes):
            lib.concatenate([lib.reshape(x, -1) for x in operands[i * count : (i + 1) * count]], out=token[i])
        _company().start(op, token)

    return start


def finish_body(op: FinishAllReduce, lib: Any, copy_into: Callable[[Array, Array], None]) -> Callable[..., None]:
    """The body of a finish: the token, then the results to write."""

    def finish(_: Array, *results: Array) -> None:
        sums: Any = _company().finish(op)
        at = 0
        for result in results:
            copy_into(result, lib.reshape(sums[at : at + result.size], result.shape))
            at += result.size

    return finish
