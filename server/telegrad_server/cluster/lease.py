"""The lease that a worker holds on itself: while it runs, the worker may accept and commit. Any thread.

It is counted from when the worker *asked* for it, the gateway's view of it from when that was answered, which is later:
so a worker has always stopped before its work is given away, whatever the network did.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf

MARGIN_SECONDS = 0.25
"""A worker stops so long before its lease is over: what it began a moment before takes no longer."""


class Lease:
    """Runs until a time. A lease of `forever` is for a worker that nobody can replace."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._until = 0.0
        self._is_over = False

    @classmethod
    def forever(cls) -> Lease:
        """One that never ends."""
        lease = cls()
        lease._until = inf
        return lease

    @property
    def is_running(self) -> bool:
        """Whether the worker may accept and commit now."""
        return self._clock() < self._until and not self._is_over

    @property
    def is_over(self) -> bool:
        """Whether it will never run again."""
        return self._is_over

    def renew(self, *, asked_at: float, seconds: float) -> None:
        """The gateway has granted ``seconds`` from when it was asked, by this lease's clock."""
        with self._changed:
            self._until = max(self._until, asked_at + seconds - MARGIN_SECONDS)
            self._changed.notify_all()

    def end(self) -> None:
        """It is over for good: the gateway has given the worker up."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait until it runs (True), or is over for good (False). Returns at once where it runs."""
        if self.is_running:
            return True
        with self._changed:
            while not self.is_running and not self._is_over:
                self._changed.wait(1.0)
            return not self._is_over
