"""The line of tasks before the device, and whose turn it is. One task is carried out at a time.

Next is who has used the device least, in measured time over weight, counted from when each came into the line: a
weighted fair queue. Who was away gets no credit for it.

A thread of the worker's own serves the line. Another thread may take a turn at its head, where that is over
sooner than the first is woken. Values that nobody holds any more are let go of between two turns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar, cast

from telegrad_server.yielding import YieldingLock

Turn = TypeVar("Turn")


@dataclass(slots=True, eq=False)
class Claim:
    """One party's claim on the device: its weight, and what it has used of it."""

    weight: float = 1.0
    used: float = 0.0  # seconds over weight


class Line(Generic[Turn]):
    """Turns by claims; between equals in the order they came. Every method but `wait` is called with ``lock`` held."""

    def __init__(self, lock: YieldingLock) -> None:
        self._lock = lock
        self._changed = threading.Condition(cast("threading.Lock", lock))
        self._turns: list[tuple[float, int, Turn]] = []  # a heap
        self._number = 0
        self._used = 0.0  # of the claim that was served last: where who comes anew begins
        self._garbage: list[Any] = []
        self._is_taken = False
        self._is_ended = False
        self._returning = 0
        self._idle = 0

    def join(self, turn: Turn, claim: Claim) -> None:
        """Stand in line; one turn of a claim at a time. `wake` or `take` must follow."""
        claim.used = max(claim.used, self._used)
        self._number += 1
        heappush(self._turns, (claim.used, self._number, turn))

    def _next(self) -> Turn:
        self._is_taken = True
        self._used, _, turn = heappop(self._turns)
        return turn

    def let_go(self, values: list[Any]) -> None:
        """Let the thread that serves the line free these values."""
        if values:
            self._garbage += values
            self.wake()

    def take(self, suits: Callable[[Turn], bool]) -> Turn | None:
        """The turn at the head, if the device is free and it suits the caller, who then must `give_back`.

        If not, the thread that serves the line is told to see to what there is.
        """
        if self._turns and self._is_free and not self._garbage and suits(self._turns[0][2]):
            return self._next()
        self.wake()
        return None

    def give_back(self) -> None:
        """The turn is over, or pauses. `wake` or `take` must follow."""
        self._is_taken = False
        if self._returning:
            self._changed.notify_all()

    def take_again(self) -> None:
        """Wait for the device, before all who stand in line: a turn that paused goes on."""
        self._returning += 1
        while self._is_taken:
            self._changed.wait()
        self._returning -= 1
        self._is_taken = True

    @property
    def is_served(self) -> bool:
        """Whether a thread waits for a turn."""
        return self._idle > 0

    @property
    def _is_free(self) -> bool:
        return not self._is_taken and not self._returning

    def wake(self) -> None:
        """Tell the thread that serves the line, if there is something for it to do."""
        if self._has_work():
            self._changed.notify_all() if self._returning else self._changed.notify()

    def end(self) -> None:
        """`wait` returns None once no turn is left."""
        self._is_ended = True
        self._changed.notify_all()

    def __len__(self) -> int:
        """How many turns wait or are under way."""
        return len(self._turns) + self._is_taken

    def is_idle(self) -> bool:
        """Whether no turn is under way and none waits."""
        return not (self._turns or self._is_taken)

    def _has_work(self) -> bool:
        return self._is_free and bool(self._turns or self._garbage or self._is_ended)

    def wait(self) -> Turn | None:
        """Wait for a turn and take it. Frees memory first, so that the turn finds it free."""
        garbage: list[Any] = []
        while True:
            garbage.clear()
            with self._lock:
                self._idle += 1
                while not self._has_work():
                    self._changed.wait()
                self._idle -= 1
                garbage, self._garbage = self._garbage, garbage
                if not garbage:
                    if not self._turns:
                        return None
                    return self._next()
