"""Events on their way from the worker's threads to the event loop that writes them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from telegrad.errors import SessionError, TelegradError
from telegrad.wire import messages as m


class Mailbox:
    """A queue that any thread fills and one task of the loop empties; the loop is woken once for many events.

    Made on the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._events: deque[tuple[int, m.Event]] = deque()
        self._filled = asyncio.Event()
        self._is_ended = False
        self._error: TelegradError | None = None

    def deliver(self, number: int, event: m.Event) -> None:
        """Take an event, on any thread."""
        self._events.append((number, event))
        if len(self._events) == 1:
            self._wake()

    def taken(self) -> None:
        """Another stream has the session now; called on any thread."""
        self._error = SessionError("another stream has taken the session over", reason="STREAM_TAKEN")
        self._is_ended = True
        self._wake()

    def end(self, error: TelegradError | None = None) -> None:
        """Nothing more will come: the client is done, or wrong. Called on the loop."""
        if not self._is_ended:
            self._is_ended, self._error = True, error
        self._filled.set()

    def _wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._filled.set()
        elif not self._loop.is_closed():  # a server that stops has nobody to tell
            self._loop.call_soon_threadsafe(self._filled.set)

    async def next(self) -> tuple[int, m.Event] | None:
        """The next event; None when there will be no more. Raises what ended it, if that was an error."""
        while not self._events:
            if self._is_ended:
                if self._error is not None:
                    raise self._error
                return None
            self._filled.clear()
            if not self._events and not self._is_ended:  # filled before it was cleared: no need to wait
                await self._filled.wait()
        return self._events.popleft()
