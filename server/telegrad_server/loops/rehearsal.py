"""A capture at the beginning of a loop of which nothing is written, so that the first checkpoint stalls no step.

While a checkpoint is being written, its tensors stay as they were, and the steps beside it alternate between two other
versions. The third one's memory is new, and the kernel makes new pages when they are first written to: for 100 MB more
than 100 ms, within one step. Here that happens among the first steps, which pay for their own memory too; the executor
keeps it (`telegrad_server.executors.recycle`), and no checkpoint pays. It is no more memory than the checkpoint needs.
"""

from __future__ import annotations

from contextlib import suppress

from telegrad_server.loops.calls import Calls
from telegrad_server.loops.hands import Answer, Broken, Ended

_BEGIN, _NEEDS = 2, 4
"""After the one step, counted from here, everything is held; the other is the first that finds no block free."""


class Rehearsal:
    """To be told of each step, and ended before a checkpoint: two captures at once would need yet another version."""

    def __init__(self, calls: Calls, *, in_flight: int) -> None:
        self._calls = calls
        self._last = _NEEDS + in_flight + 1  # when so many steps have been called, that one has been computed
        self._steps = 0
        self._held: dict[str, Answer] = {}

    def stepped(self) -> None:
        """A step has been called."""
        self._steps += 1
        if self._steps == _BEGIN:
            self._held = self._calls.capture()
        elif self._steps == self._last:
            self.end()

    def end(self) -> None:
        """Let go of everything, and hold nothing later."""
        self._steps = max(self._steps, self._last)
        held, self._held = self._held, {}
        for answer in held.values():
            with suppress(Broken, Ended):  # of the step that failed, or its session: the loop comes upon it by itself
                answer.wait()
                answer.done()
