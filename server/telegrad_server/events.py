"""A session's numbered events: kept until the client has heard them, delivered again to a new stream. Pure."""

from __future__ import annotations

from collections import deque

from telegrad.wire import messages as m

EVENT_BYTES = 256
"""What an event costs beside its data."""


class Events:
    """Events in order. ``outbox`` waits for delivery; what was delivered waits in ``unheard``, within limits."""

    def __init__(self, *, limit: int, limit_bytes: int, is_kept: bool = True) -> None:
        self.number = 0
        self.heard = 0
        self.outbox: deque[tuple[int, m.Event]] = deque()
        self.unheard: deque[tuple[int, m.Event]] = deque()
        self.unheard_bytes = 0
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._is_kept = is_kept

    @property
    def is_full(self) -> bool:
        """Whether the client must hear something before more can happen."""
        return len(self.unheard) >= self._limit or self.unheard_bytes >= self._limit_bytes

    def add(self, event: m.Event) -> None:
        """The next event. Acknowledgements and questions are not kept: a new stream is told what holds then."""
        self.number += 1
        self.outbox.append((self.number, event))
        if self._is_kept and not isinstance(event, m.Acknowledged | m.FunctionNeeded):
            self.unheard.append((self.number, event))
            self.unheard_bytes += _cost(event)

    def hear(self, number: int) -> None:
        """The client has handled the events up to this number."""
        self.heard = max(self.heard, min(number, self.number))
        while self.unheard and self.unheard[0][0] <= self.heard:
            self.unheard_bytes -= _cost(self.unheard.popleft()[1])

    def deliver_again(self) -> None:
        """A new stream: all that has not been heard, in order."""
        self.outbox = deque(self.unheard)

    def clear(self) -> None:
        """Nobody will hear what is there."""
        self.outbox.clear()
        self.unheard.clear()
        self.unheard_bytes = 0

    def validate(self) -> None:
        """Assert what must always hold."""
        numbers = [n for n, _ in self.unheard]
        assert numbers == sorted(set(numbers))
        assert self.heard <= self.number
        assert all(self.heard < n <= self.number for n in numbers)
        assert self.unheard_bytes == sum(_cost(event) for _, event in self.unheard)


def _cost(event: m.Event) -> int:
    match event:
        case m.Fetched():
            return EVENT_BYTES + len(event.data or b"")
        case m.Explained():
            return EVENT_BYTES * (1 + len(event.steps))
        case m.Profiled():
            return EVENT_BYTES * (1 + len(event.spans))
        case _:
            return EVENT_BYTES
