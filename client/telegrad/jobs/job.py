"""A job's handle: how it stands, what it does, and its end. It needs the server, and no open session of the job's."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
import numpy.typing as npt

from telegrad.errors import GraphError, JobFailed, NotFound, TimedOut
from telegrad.jobs.checkpoint import Checkpoint
from telegrad.jobs.counts import count, optional
from telegrad.wire.jobs import Fork, JobEvent, JobInfo, JobNews, MetricRow
from telegrad.wire.naming import check_name

if TYPE_CHECKING:
    from telegrad.nn.module import Module
    from telegrad.optim.optimizer import Optimizer
    from telegrad.transport import JobCalls

SHORTEST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.02, 0.5
"""How long to wait before looking again whether a job has ended."""


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
    def metrics(self) -> dict[str, float]:
        """The newest metrics: those of the step that it is at, or if it is not running of its last checkpoint."""
        info = self.refresh()
        if info.live_metrics:
            return dict(info.live_metrics)
        first = next(news for news in self._calls.watch(self.id, from_step=info.step) if news.goes_back_to is None)
        return {row.name: row.value for row in first.rows}

    @property
    def history(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Every metric that a checkpoint covers, by name: {"loss": {"step": int64[n], "value": float64[n]}}.

        A step's metric over an epoch is called "epoch/loss", one of a validation "val/loss".
        """
        found: dict[str, list[MetricRow]] = {}
        for item in self.events_so_far():
            if isinstance(item, MetricRow):
                found.setdefault(item.name, []).append(item)
            elif item.kind == "Rewound":
                step = int(item.details["step"])
                found = {name: [row for row in own if row.step <= step] for name, own in found.items()}
        return {
            name: {
                "step": np.array([row.step for row in own], np.int64),
                "epoch": np.array([row.epoch for row in own], np.int64),
                "value": np.array([row.value for row in own], np.float64),
            }
            for name, own in found.items()
        }

    # ---- following it

    def news(self, *, after: int = 0) -> Iterator[JobNews]:
        """How it stands each time that something is new, with what that is, until it ends. The first has all so far."""
        for news in self._calls.watch(self.id, after_event=after):
            self._info = news.job
            yield news

    def events(self, *, after: int = 0) -> Iterator[JobEvent | MetricRow]:
        """What has happened and what happens, in order, until it ends: events, and metrics as checkpoints cover them.

        ``after``: only events after the one of this number, and what they bring.
        """
        for news in self.news(after=after):
            yield from news.rows
            yield from news.events

    def events_so_far(self, *, after: int = 0) -> Iterator[JobEvent | MetricRow]:
        """As `events`, and only what has happened until now."""
        for news in self.news(after=after):
            yield from news.rows
            yield from news.events
            if not news.rows and news.goes_back_to is None:  # else there may be more than one message holds
                return

    def wait(self, *, timeout_seconds: float | None = None) -> Job:
        """Wait until it has ended, and return it. JobFailed if it failed or was cancelled, TimedOut.

        A job that is paused is waited for: somebody may resume it.
        """
        ends_at = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        pause = SHORTEST_LOOK_SECONDS
        while not self.refresh().has_ended:
            left = ends_at - time.monotonic()
            if left <= 0:
                stands = f"is {self.state} ({self.reason})" if self.state == "PAUSED" else "goes on"
                raise TimedOut(f"the job {self.name} has not ended within {timeout_seconds} s; it {stands}")
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, LONGEST_LOOK_SECONDS)
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
        """Show its progress until it has ended, and return it. Ctrl-C stops the show; the job goes on.

        In a terminal and in a notebook that is a bar, elsewhere a line now and then.
        """
        from telegrad.jobs.watching import watch  # loads rich

        watch(self.news())
        return self

    def plot(self, *metrics: str) -> Any:
        """Curves of its metrics so far, of its losses if none is named: matplotlib's figure, or text without it.

        Returns the figure, or None once curves have been printed. NotFound for a metric that is not recorded.
        """
        from telegrad.jobs.plotting import plot

        return plot(self.name, self.history, metrics)

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
        epochs, steps = optional(epochs, "epochs", least=1), optional(steps, "steps", least=1)
        self._info = self._calls.extend(self.id, secrets.token_hex(16), epochs=epochs, steps=steps)
        return self

    def fork(
        self,
        at_step: int | None = None,
        *,
        name: str | None = None,
        epochs: int | None = None,
        steps: int | None = None,
        **numbers: float,
    ) -> Job:
        """A new job that goes on from a checkpoint of this one: the newest, or that of ``at_step``.

        It ends when this one does, or after so many ``epochs`` or ``steps`` counted from this one's beginning. Numbers
        of the optimizer's may be others: ``job.fork(lr=1e-4, weight_decay=0.0)``. With the same numbers it does what
        this one does from there, bit for bit. NotFound if the step has no checkpoint; GraphError for a number that the
        job does not have: a schedule of the step is part of its graph.
        """
        if epochs is not None and steps is not None:
            raise GraphError("fork takes epochs or steps, counted from the first job's beginning, and not both")
        name = check_name(name or f"{self.name[:96]}-fork-{secrets.token_hex(3)}", what="a job")
        fork = Fork(
            name=name,
            step=optional(at_step, "at_step", least=0),
            epochs=optional(epochs, "epochs", least=1),
            steps=optional(steps, "steps", least=1),
            numbers={number: _number(value, number) for number, value in numbers.items()},
        )
        return Job(self._calls, self._calls.fork(self.id, secrets.token_hex(16), fork))

    def rewind(self, step: int) -> Job:
        """Let it go on from an earlier checkpoint of its own; what it has made and recorded since is gone.

        Also one that has ended. One that is paused stays so. NotFound if the step has no checkpoint.
        """
        self._info = self._calls.rewind(self.id, secrets.token_hex(16), count(step, "step", least=0))
        return self

    # ---- what it has made

    def checkpoint(self, step: int | None = None) -> Checkpoint:
        """The checkpoint of a step, or the newest one; NotFound if there is none."""
        return Checkpoint(self._calls, self.id, optional(step, "step", least=0))

    @property
    def best(self) -> Checkpoint:
        """The checkpoint at which the metric of ``keep_best`` was best; its ``value`` is that one.

        Of a fork that has become no better it is the one that it began with; the value of that is the first job's to
        tell, and None here. NotFound if the job keeps none, or has not measured it yet.
        """
        metric, mode = self._info.best_metric, self._info.best_mode
        if not metric:
            raise NotFound(f"the job {self.name} keeps no best checkpoint; submit it with keep_best=KeepBest(…)")
        history = self.history
        rows = history.get(f"epoch/{metric}", history.get(metric))
        if rows is None or np.isnan(rows["value"]).all():
            raise NotFound(f"the job {self.name} has not measured {metric} yet")
        place = int(np.nanargmin(rows["value"]) if mode == "min" else np.nanargmax(rows["value"]))
        step, kept = int(rows["step"][place]), self.checkpoints
        if step not in kept:
            return Checkpoint(self._calls, self.id, kept[0])
        return Checkpoint(self._calls, self.id, step, value=float(rows["value"][place]))

    def state_dict(self, step: int | None = None) -> dict[str, npt.NDArray[Any]]:
        """Every tensor of a checkpoint by name, ``model.0.weight``; of the newest one if ``step`` is None."""
        return self.checkpoint(step).state_dict()

    def load_state(
        self, model: Module, optimizer: Optimizer | None = None, *, step: int | None = None, root: str | None = None
    ) -> int:
        """Assign a checkpoint to a model, and an optimizer of the same kind; see `Checkpoint.load_state`."""
        return self.checkpoint(step).load_state(model, optimizer, root=root)


def _number(value: SupportsFloat, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise GraphError(f"{name} must be a number, not {value!r}", reason="JOB_INVALID") from None
