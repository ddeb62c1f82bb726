"""Steps that are done as a whole: one thread at a time, and Ctrl-C comes before or after them, not within.

A program that dispatches without reading spends most of its time in here, and a KeyboardInterrupt between taking a
number and sending the command that has it would be the end of the session.
"""

from __future__ import annotations

import signal
import threading

# the functions of `signal` without its enums, which take 15 times as long
from _signal import getsignal as get_handler  # pyright: ignore[reportMissingImports]
from _signal import signal as set_handler  # pyright: ignore[reportMissingImports]
from collections.abc import Callable
from typing import Any

SLICE_SECONDS = 0.05
"""How long to wait at once for something that may never come: Ctrl-C takes effect between two slices."""

_INTERRUPT = int(signal.SIGINT)


class Critical:
    """A re-entrant lock for ``with``; the main thread is not interrupted while it holds it.

    ``before`` is called each time before the lock is taken: the place to wait, which may be interrupted. Within the
    lock nothing waits for longer than `SLICE_SECONDS`.
    """

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self._before = before
        self._lock = threading.Lock()
        self._owner = 0
        self._depth = 0
        self._handler: Any = None
        self._was_interrupted = False

    def __enter__(self) -> None:
        thread = threading.get_ident()
        if self._owner == thread:
            self._depth += 1
            return
        self._before()
        handler = get_handler(_INTERRUPT) if thread == threading.main_thread().ident else None
        if handler is not None:  # else not the main thread, or a handler that Python could not put back
            self._was_interrupted = False
            set_handler(_INTERRUPT, self._note)
        self._lock.acquire()
        self._owner, self._depth, self._handler = thread, 1, handler

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        handler, self._handler, self._owner = self._handler, None, 0
        self._lock.release()
        if handler is not None:
            set_handler(_INTERRUPT, handler)
            if self._was_interrupted:
                signal.raise_signal(signal.SIGINT)

    def _note(self, number: int, frame: object) -> None:
        self._was_interrupted = True
