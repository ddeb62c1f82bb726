"""The shoot-out's sections of RESULTS.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.results import Section, Table, cores
from bench.shootout.lines import MEMORY_LINES
from bench.shootout.peers import OURS
from bench.shootout.turns import Effort, Outcome, Times

PACKAGES = ("numpy", "torch", "jax")


def speed(outcome: Outcome, effort: Effort) -> Section:
    """Times of all peers, and how many times as fast as the best of the others ours are."""
    peers = list(outcome.first_seconds)
    rows = [(str(condition), *[_spread(times[p], 1e3) for p in peers]) for condition, times in outcome.times.items()]
    rows.append(("first step, s", *[f"{outcome.first_seconds[peer]:.2f}" for peer in peers]))
    tables = [Table(("ms a step", *peers), rows)]
    ours, others = [p for p in peers if p in OURS], [p for p in peers if p not in OURS]
    if ours and others:
        goal = f"{outcome.line.goal:g}"
        compared = [
            (str(condition), best := _best(times, others), *[_ratios(times, best, own) for own in ours], goal)
            for condition, times in outcome.times.items()
        ]
        tables.append(Table(("times as fast as the best peer", "which is", *ours, "goal (remote)"), compared))
    about = (
        f"{effort.rounds} turns of about {effort.seconds:g} s each, A B A B: medians (lowest..highest). Losses of the"
        f" first steps differ by {outcome.apart:.0e} of themselves at most. The neighbour uses a third of a core."
    )
    return Section(f"Shoot-out on {_cores()}: {outcome.line.title}", about, tuple(tables), PACKAGES)


def memory(growth: dict[str, dict[str, int]]) -> Section:
    """What a step of each line needs at most, by line and peer."""
    about = (
        "By how many MB the computing process grows at most in a training step, over its state after loading weights,"
        " optimizer and libraries. The goal is at most PyTorch eager's. JAX's attention is written out, as XLA has none"
        " for the CPU."
    )
    rows = [(MEMORY_LINES[name].title, *[f"{n / 1e6:,.0f}" for n in found.values()]) for name, found in growth.items()]
    peers = next(iter(growth.values()))
    return Section("Memory of a training step", about, (Table(("MB", *peers), rows),), PACKAGES)


def _cores() -> str:
    return "one core" if cores() == 1 else f"{cores()} cores"


def _best(times: Times, others: Sequence[str]) -> str:
    return min(others, key=lambda peer: statistics.median(times[peer]))


def _ratios(times: Times, best: str, own: str) -> str:
    return _spread([b / a for a, b in zip(times[own], times[best], strict=True)], 1)


def _spread(found: Sequence[float], factor: float) -> str:
    ordered = [factor * value for value in sorted(found)]
    middle, low, high = (f"{value:.3g}" for value in (statistics.median(ordered), ordered[0], ordered[-1]))
    return f"{middle} ({low}..{high})"
