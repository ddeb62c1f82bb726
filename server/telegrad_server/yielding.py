"""A lock for short sections of Python that many threads pass often.

`threading.Lock` wakes a waiter as the lock's owner before it has Python's global lock. The thread that gave it up
still runs, soon wants it again, and must wait: from then on the two pass both locks on at each section, a switch of
threads each time, and never stop. A thread that waits here does not queue; it lets others run and tries again.
"""

from __future__ import annotations

import threading
import time


class YieldingLock:
    """A mutex with `threading.Lock`'s methods, also for `threading.Condition`. Its sections must never block."""

    __slots__ = ("_lock", "_take", "release")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._take = self._lock.acquire
        self.release = self._lock.release

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock; returns False if it is taken and ``blocking`` is false."""
        if self._take(False):
            return True
        if not blocking:
            return False
        while not self._take(False):
            time.sleep(0)
        return True

    def __enter__(self) -> None:
        if not self._take(False):
            self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
