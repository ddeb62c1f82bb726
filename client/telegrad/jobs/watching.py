"""Showing a job's progress where the program runs: a bar in a terminal, one in a notebook, or lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any, Protocol

from telegrad.jobs.notebook import Panel
from telegrad.jobs.progress import ending, farewell, is_news, progress_of
from telegrad.wire.jobs import JobEvent, JobInfo, JobNews

LINE_SECONDS = 10.0
"""Where lines are written, one that only says how far it is comes no more often than so."""


class Display(Protocol):
    """Shows how a job stands."""

    def show(self, news: JobNews) -> None:
        """Show what is new."""
        ...

    def say(self, sentence: str) -> None:
        """Say something that stays."""
        ...


def watch(news: Iterator[JobNews]) -> JobInfo | None:
    """Show a job's news until there are none any more, or until Ctrl-C; how it stood then."""
    last: JobInfo | None = None
    recorded: dict[str, float] = {}
    is_history = True
    with _display() as display:
        try:
            for item in news:
                recorded.update({row.name: row.value for row in item.rows})
                # what had happened before is history: the first message brings all of it, but of a job that went back
                events = () if is_history else item.events
                is_history = is_history and item.goes_back_to is not None
                last = replace(item.job, live_metrics=item.job.live_metrics or recorded)
                display.show(JobNews(last, events, item.rows))
                for event in filter(is_news, events):
                    display.say(_told(event))
        except KeyboardInterrupt:
            if last is not None:
                display.say(farewell(last))
        else:
            if last is not None:
                display.say(ending(last))
    return last


def _told(event: JobEvent) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(event.at))}  {event.words}"


@contextmanager
def _display() -> Generator[Display]:
    """The display that fits this program."""
    if (display := notebook_display()) is not None:
        yield Panel(display.display, display.HTML)
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        yield Lines(print)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    what, rest = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[rest]}"))
    with Progress(what, BarColumn(), rest, console=console) as bar:
        yield Bar(bar)


def notebook_display() -> Any:
    """The module IPython.display if this program is a notebook's kernel, else None. IPython is never loaded for it."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    return import_module("IPython.display")


class Lines:
    """Lines for a log: when the state changes, and every few seconds between."""

    def __init__(self, write: Callable[[str], object], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._state = ""
        self._next = 0.0

    def show(self, news: JobNews) -> None:
        """Write a line, if it is time for one."""
        if news.job.state != self._state or self._clock() >= self._next:
            self._state, self._next = news.job.state, self._clock() + LINE_SECONDS
            self._write(progress_of(news.job).line)

    def say(self, sentence: str) -> None:
        """Write a line."""
        self._write(sentence)


class Bar:
    """A bar of rich's."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._task: Any = None

    def show(self, news: JobNews) -> None:
        """Move the bar."""
        found = progress_of(news.job)
        parts = (found.epoch, found.step, found.metrics, found.rate, found.left, found.where)
        fields = {
            "description": f"{found.name} {found.state}",
            "completed": found.share,
            "rest": "  ".join([part for part in parts if part]),
        }
        if self._task is None:
            self._task = self._bar.add_task(fields.pop("description"), total=1.0, **fields)
        else:
            self._bar.update(self._task, **fields)

    def say(self, sentence: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(sentence, markup=False, soft_wrap=True)
