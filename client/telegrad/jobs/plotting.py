"""Metrics as curves: in matplotlib where there is one, else as text."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy.typing as npt

from telegrad.errors import NotFound
from telegrad.jobs.braille import curve
from telegrad.jobs.watching import notebook_display

History = Mapping[str, Mapping[str, npt.NDArray[Any]]]


def plot(title: str, history: History, metrics: Sequence[str]) -> Any:
    """matplotlib's figure with a panel for each quantity, or None once curves have been printed.

    ``metrics`` are names of the history; none: those of losses, else all. NotFound for one that was not recorded.
    """
    names = chosen(history, metrics)
    if find_spec("matplotlib") is None:
        print(as_text(history, names, width=shutil.get_terminal_size().columns))
        return None
    return _figure(title, history, names)


def chosen(history: History, metrics: Sequence[str]) -> list[str]:
    """The names to show. NotFound."""
    unknown = [name for name in metrics if name not in history]
    if unknown:
        raise NotFound(f"no metric {unknown[0]!r} is recorded; there are {', '.join(history) or 'none yet'}")
    losses = [name for name in history if quantity(name) == "loss"]
    return list(metrics) or losses or list(history)


def quantity(name: str) -> str:
    """What a metric measures: the same over a step, an epoch and a validation."""
    return name.rpartition("/")[2]


def as_text(history: History, names: Sequence[str], *, width: int) -> str:
    """A curve for each metric, one below the other."""
    if not names:
        return "no metric is recorded yet"
    curves = [
        curve(name, history[name]["step"].tolist(), history[name]["value"].tolist(), width=min(100, width))
        for name in names
    ]
    return "\n\n".join(["\n".join(lines) for lines in curves])


def _figure(title: str, history: History, names: Sequence[str]) -> Any:
    pyplot: Any = import_module("matplotlib.pyplot")
    panels = list(dict.fromkeys([quantity(name) for name in names])) or [""]
    figure, axes = pyplot.subplots(len(panels), 1, sharex=True, squeeze=False, figsize=(7, 1 + 2.5 * len(panels)))
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        here = [name for name in names if quantity(name) == panel]
        for name in here:
            own = history[name]
            axis.plot(own["step"], own["value"], label=name, marker="." if len(own["step"]) < 50 else None)
        axis.set_ylabel(panel)
        axis.grid(alpha=0.3)
        if here:
            axis.legend(axis.lines, here)  # said, since matplotlib would leave out names that begin with "_"
    axes[-1, 0].set_xlabel("step")
    figure.suptitle(title)
    figure.tight_layout()
    if notebook_display() is not None:
        pyplot.close(figure)  # the cell shows what it returns; an open figure would be shown a second time
    return figure
