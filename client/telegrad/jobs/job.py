"""A job's handle: how it stands, what it does, and its end. It needs the server, and no open session of the job's."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from telegrad.errors import GraphError, JobFailed, NotFound, TimedOut
from telegrad.jobs.naming import module_tensors, optimizer_tensors
from telegrad.tensor import Variable
from telegrad.wire.jobs import JobEvent, JobInfo, MetricRow

if TYPE_CHECKING:
    from telegrad.nn.module import Module
    from telegrad.optim.optimizer import Optimizer
    from telegrad.transport import JobCalls


class Job:
    """A job on the server, by id. Made by `Session.submit` and `Session.jobs`."""

    def __init__(self, calls: JobCalls, info: JobInfo) -> None:
        self._calls = calls
        self._info = info

    def __repr__(self) -> str:
        return f"<Job {self.name!r}, {self._info.state} at step {self._info.live_step} of {self._info.last_step}>"

    # ---- how it stands

    @property
    def id(self) -> str:
        """Its id, which no other job ever has."""
        return self._info.id

    @property
    def name(self) -> str:
        """Its name; the newest job of a name has it."""
        return self._info.name

    @property
    def info(self) -> JobInfo:
        """How it stood when the server last said so."""
        return self._info

    def refresh(self) -> JobInfo:
        """How it stands now: all of it."""
        self._info = self._calls.get(self.id)
        return self._info

    @property
    def state(self) -> str:
        """QUEUED, STARTING, RUNNING, PAUSED, SUCCEEDED, FAILED or CANCELLED."""
        return self.refresh().state

    @property
    def reason(self) -> str:
        """Why it is where it is: a stable word, and what a person should know."""
        info = self.refresh()
        return f"{info.reason}: {info.message}" if info.message else info.reason

    @property
    def checkpoints(self) -> list[int]:
        """The steps of which there is a checkpoint."""
        return self._calls.checkpoints(self.id)

    @property
    def history(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Every metric that a checkpoint covers, by name: {"loss": {"step": int64[n], "value": float64[n]}}.

        A step's metric over an epoch is called "epoch/loss", one of a validation "val/loss".
        """
        found: dict[str, list[MetricRow]] = {}
        for row in self.events_so_far():
            if isinstance(row, MetricRow):
                found.setdefault(row.name, []).append(row)
        return {
            name: {
                "step": np.array([row.step for row in own], np.int64),
                "epoch": np.array([row.epoch for row in own], np.int64),
                "value": np.array([row.value for row in own], np.float64),
            }
            for name, own in found.items()
        }

    # ---- following it

    def events(self, *, after: int = 0) -> Iterator[JobEvent | MetricRow]:
        """What has happened and what happens, in order, until it ends: events, and metrics as checkpoints cover them.

        ``after``: only events after the one of this number, and what they bring.
        """
        for news in self._calls.watch(self.id, after_event=after):
            self._info = news.job
            yield from news.rows
            yield from news.events

    def events_so_far(self, *, after: int = 0) -> Iterator[JobEvent | MetricRow]:
        """As `events`, and only what has happened until now."""
        for news in self._calls.watch(self.id, after_event=after):
            self._info = news.job
            yield from news.rows
            yield from news.events
            if not news.rows:  # else there may be more than one message holds
                return

    def wait(self, *, timeout_seconds: float | None = None) -> Job:
        """Wait until it has ended, and return it. JobFailed if it failed or was cancelled, TimedOut.

        A job that is paused is waited for: somebody may resume it.
        """
        began = time.monotonic()
        for news in self._calls.watch(self.id):
            self._info = news.job
            if timeout_seconds is not None and time.monotonic() - began > timeout_seconds and not news.job.has_ended:
                raise TimedOut(f"the job {self.name} has not ended within {timeout_seconds} s; it goes on")
        return self.check()

    def check(self) -> Job:
        """The job, unless it failed or was cancelled: JobFailed."""
        info = self._info
        if info.state in ("FAILED", "CANCELLED"):
            error = JobFailed(
                f"the job {info.name} is {info.state} ({info.reason}): {info.message or 'somebody asked for it'};"
                f" its last checkpoint is of step {info.step}",
                state=info.state,
                cause=info.reason,
                checkpoint=info.step,
            )
            if info.line:
                error.location = info.line
            raise error
        return self

    def watch(self) -> Job:
        """Show its progress until it has ended, and return it. Ctrl-C stops the show; the job goes on."""
        try:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError:
            return self._watch_plainly()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        try:
            with Progress(*columns, TextColumn("{task.fields[more]}")) as bar:
                task = bar.add_task(self.name, total=self._info.last_step, more="")
                for news in self._calls.watch(self.id):
                    self._info = info = news.job
                    bar.update(
                        task,
                        completed=info.live_step,
                        total=info.last_step,
                        description=f"{info.name} {info.state}",
                        more=_more(info),
                    )
        except KeyboardInterrupt:
            return self
        return self

    def _watch_plainly(self) -> Job:
        try:
            for news in self._calls.watch(self.id):
                self._info = info = news.job
                if news.events or news.rows:
                    print(f"{info.name} {info.state} {info.live_step}/{info.last_step} {_more(info)}", file=sys.stderr)
        except KeyboardInterrupt:
            pass
        return self

    # ---- what it shall do

    def pause(self) -> Job:
        """Let it stop at a checkpoint and wait."""
        self._info = self._calls.pause(self.id)
        return self

    def resume(self) -> Job:
        """Let it go on."""
        self._info = self._calls.resume(self.id)
        return self

    def cancel(self) -> Job:
        """End it; its checkpoints stay."""
        self._info = self._calls.cancel(self.id)
        return self

    def extend(self, *, epochs: int | None = None, steps: int | None = None) -> Job:
        """Let it end later: after so many epochs, or steps, in all. Also one that has ended."""
        if (epochs is None) == (steps is None):
            raise GraphError("extend takes either epochs or steps, in all")
        self._info = self._calls.extend(self.id, secrets.token_hex(16), epochs=epochs, steps=steps)
        return self

    # ---- what it has made

    def state_dict(self, step: int | None = None) -> dict[str, npt.NDArray[Any]]:
        """Every tensor of a checkpoint by name, ``model.0.weight``; of the newest one if ``step`` is None."""
        return self._calls.checkpoint(self.id, step)[1]

    def load_state(self, model: Module, optimizer: Optimizer | None = None, *, step: int | None = None) -> int:
        """Assign a checkpoint to a model, and an optimizer of the same kind; returns the checkpoint's step.

        They may be of another session or program than the one that submitted. NotFound if the job trains none like it.
        """
        found, tensors = self._calls.checkpoint(self.id, step)
        _assign(tensors, dict(module_tensors(model)), f"a model like this {type(model).__name__}", needs_all=False)
        if optimizer is not None:
            own = dict(optimizer_tensors(optimizer))
            _assign(tensors, own, f"an optimizer like this {type(optimizer).__name__}", needs_all=True)
        return found


def _assign(tensors: dict[str, npt.NDArray[Any]], own: dict[str, Variable], what: str, *, needs_all: bool) -> None:
    """Assign what is called so under one root: the one that fits best."""
    roots = dict.fromkeys([name.partition(".")[0] for name in tensors])
    fitting: dict[str, list[str]] = {}
    for root in roots:
        known = [name for name in own if f"{root}.{name}" in tensors]
        fits = all(tensors[f"{root}.{name}"].shape == own[name].shape for name in known)
        if known and fits and (len(known) == len(own) or not needs_all):
            fitting[root] = known
    if not fitting:
        raise NotFound(f"the job's checkpoint holds no state of {what}; it has {', '.join(list(tensors)[:8])}")
    best = max(fitting, key=lambda root: len(fitting[root]))
    for name in fitting[best]:
        own[name].assign(tensors[f"{best}.{name}"])
    if own:
        next(iter(own.values())).session.flush()


def _more(info: JobInfo) -> str:
    metrics = "  ".join([f"{name} {value:.4g}" for name, value in list(info.live_metrics.items())[:4]])
    rate = f"{info.steps_per_second:.3g} steps/s" if info.steps_per_second else ""
    waits = f"number {info.position} in the line" if info.position else ""
    return "  ".join([part for part in (metrics, rate, waits) if part])
