"""How commands speak of a job: for people and in JSON, and how they end when one has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from telegrad.cli.report import Shape, number, write_json
from telegrad.cli.things import complete_job
from telegrad.wire.jobs import JobEvent, JobInfo, MetricRow

_F = TypeVar("_F", bound=Callable[..., Any])


def job_argument(command: _F) -> _F:
    """The argument JOB, as ``job``."""
    return click.argument("job", shell_complete=complete_job)(command)


def say(info: JobInfo, done: str, as_json: bool) -> None:
    """Tell what a job does now."""
    if as_json:
        write_json(job_shape(info))
    else:
        click.echo(f"{info.name} {done}")


def epochs(job: JobInfo) -> str:
    """The epoch that is trained on, from 1, of how many."""
    if not job.steps_per_epoch:
        return ""
    in_all = -(-job.last_step // job.steps_per_epoch)
    return f"{min(job.live_step // job.steps_per_epoch + 1, in_all)}/{in_all}"


def metrics(job: JobInfo) -> str:
    """The newest metrics."""
    return "  ".join([f"{name} {value:.4g}" for name, value in job.live_metrics.items()])


def moment(seconds: float) -> str:
    """A time of the day and its date, here."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def job_shape(job: JobInfo) -> Shape:
    """A job in JSON's shape."""
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "reason": job.reason,
        "message": job.message or None,
        "line": job.line or None,
        "step": job.step,
        "live_step": job.live_step,
        "last_step": job.last_step,
        "steps_per_epoch": job.steps_per_epoch,
        "position": job.position or None,
        "restarts": job.restarts,
        "worker": job.worker or None,
        "submitted_at": job.submitted_at,
        "changed_at": job.changed_at,
        "steps_per_second": job.steps_per_second or None,
        "live_metrics": {name: number(value) for name, value in job.live_metrics.items()},
    }


def event_shape(event: JobEvent) -> Shape:
    """An event in JSON's shape."""
    return {
        "event": event.kind,
        "number": event.number,
        "at": event.at,
        "words": event.words,
        "details": dict(event.details),
    }


def row_shape(row: MetricRow) -> Shape:
    """A metric in JSON's shape."""
    return {"metric": row.name, "step": row.step, "epoch": row.epoch, "value": number(row.value), "at": row.at}
