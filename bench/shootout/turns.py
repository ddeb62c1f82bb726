"""Peers take turns, A B A B, so that a machine that becomes slower slows all of them; each is alone in its turn."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.shootout.child import Child
from bench.shootout.lines import Line
from bench.shootout.peers import Feed

FEEDS: tuple[Feed, ...] = ("resident", "fresh")
CHECKED_STEPS = 5
TOLERANCE = 1e-3
"""Losses of the first steps agree that far, relatively: rounding alone makes 1e-6 of the first and 1e-4 of the last."""
PAUSE_SECONDS = 0.1
"""Between turns: threads that spin after their work have gone to sleep then."""

NEIGHBOUR = """
import time
while True:
    end = time.perf_counter() + 0.01
    while time.perf_counter() < end:
        pass
    time.sleep(0.02)
"""


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int
    seconds: float
    """Of one turn."""


@dataclass(frozen=True)
class Condition:
    """What is measured: where the batch comes from, and whether somebody else uses a third of a core."""

    feed: Feed
    has_neighbour: bool

    def __str__(self) -> str:
        return f"{self.feed} batch, {'a neighbour' if self.has_neighbour else 'quiet'}"


Times = dict[str, list[float]]
"""Seconds a step of each round, by peer."""


@dataclass(frozen=True)
class Outcome:
    """What was found for a line."""

    line: Line
    first_seconds: dict[str, float]
    """The first step, with all that is done once: tracing, compiling, loading."""
    apart: float
    """By how much losses differ at most, relatively."""
    times: dict[Condition, Times]


class LossesDiffer(Exception):
    """The peers do not train the same model."""


def measured(line: Line, peers: Sequence[str], effort: Effort) -> Outcome:
    """A line's outcome. Raises LossesDiffer, ChildFailed."""
    with ExitStack() as stack:
        children = [stack.enter_context(Child(peer)) for peer in peers]
        losses: dict[str, list[float]] = {}
        first: dict[str, float] = {}
        for child in children:
            child.load(line.name)
            losses[child.peer], first[child.peer] = child.losses(CHECKED_STEPS)
        apart = agreed(losses)
        times: dict[Condition, Times] = {}
        for has_neighbour in (False, True):
            with neighbour() if has_neighbour else ExitStack():
                for feed in FEEDS:
                    condition = Condition(feed, has_neighbour)
                    times[condition] = _in_turns(children, feed, effort)
                    print(f"{line.name}, {condition}: {_in_words(times[condition])}", file=sys.stderr, flush=True)
        return Outcome(line, first, apart, times)


def agreed(losses: dict[str, list[float]]) -> float:
    """By how much losses differ at most, relatively. LossesDiffer if that is no rounding."""
    by_step = list(zip(*losses.values(), strict=True))
    apart = max((max(step) - min(step)) / abs(max(step)) for step in by_step)
    if apart > TOLERANCE or not all(math.isfinite(loss) for step in by_step for loss in step):
        raise LossesDiffer(f"the losses of the first steps differ by {apart:.1e}, relatively: {losses}")
    return apart


@contextmanager
def neighbour() -> Iterator[None]:
    """Another process that uses a third of a core."""
    with subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) as process:
        try:
            yield
        finally:
            process.terminate()


def _in_turns(children: Sequence[Child], feed: Feed, effort: Effort) -> Times:
    steps = {child.peer: _steps(child, feed, effort.seconds) for child in children}
    times: Times = {child.peer: [] for child in children}
    for _ in range(effort.rounds):
        for child in children:
            time.sleep(PAUSE_SECONDS)
            times[child.peer].append(child.turn(feed, steps[child.peer]))
    return times


def _steps(child: Child, feed: Feed, seconds: float) -> int:
    """So many steps take about so long, found in two tries, since the first steps are slower."""
    count = 2
    for share in (0.1, 1.0):
        count = max(2, round(share * seconds / child.turn(feed, count)))
    return count


def _in_words(times: Times) -> str:
    return ", ".join(f"{peer} {1e3 * statistics.median(found):.2f} ms" for peer, found in times.items())
