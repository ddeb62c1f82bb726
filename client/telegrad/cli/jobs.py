"""``telegrad jobs``: the jobs of a server: which there are, how one stands, and what it shall do."""

from __future__ import annotations

import click

from telegrad.cli.following import logs, plot, wait, watch
from telegrad.cli.forking import fork, rewind
from telegrad.cli.job_report import job_argument, job_shape, moment, numbers, say
from telegrad.cli.report import Reporting, json_option, print_table, write_json
from telegrad.cli.target import Target, asks_a_server_by_option
from telegrad.cli.things import things_of
from telegrad.jobs import Job
from telegrad.jobs.progress import duration, epochs, metrics
from telegrad.wire.jobs import JobInfo

STATES = ("QUEUED", "STARTING", "RUNNING", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED")


@click.group()
def jobs() -> None:
    """List jobs, follow them, and tell them what to do.

    JOB is a job's name, which means the newest one of that name, or its id.
    """


@jobs.command("list", cls=Reporting)
@click.option("--state", "states", multiple=True, type=click.Choice(STATES, case_sensitive=False))
@asks_a_server_by_option
@json_option
def list_(target: Target, states: tuple[str, ...], as_json: bool) -> None:
    """List the jobs, in the order they were submitted; with --state only those in one of these states."""
    with things_of(target) as there:
        found = [job for job in there.jobs.list() if not states or job.state in states]
    if as_json:
        write_json({"address": target.address, "jobs": [job_shape(job) for job in found]})
        return
    from rich.table import Column, Table

    columns = ("state", "step", "epoch", "newest metrics", "steps/s", "submitted")
    table = Table(Column("name", no_wrap=True), *columns, box=None, pad_edge=False)
    for job in found:
        table.add_row(
            job.name,
            job.state if job.state in ("RUNNING", "SUCCEEDED") else f"{job.state} {job.reason}",
            f"{job.live_step}/{job.last_step}",
            epochs(job),
            metrics(job),
            f"{job.steps_per_second:.3g}" if job.steps_per_second else "",
            moment(job.submitted_at),
        )
    print_table(table)


@jobs.command("show", cls=Reporting)
@job_argument
@asks_a_server_by_option
@json_option
def show(target: Target, job: str, as_json: bool) -> None:
    """Say how JOB stands: state and reason, how far it is, its newest metrics, its checkpoints."""
    with things_of(target) as there:
        found = Job(there.jobs, there.jobs.get(job))
        newest, info, steps = found.metrics, found.info, found.checkpoints
    if as_json:
        write_json({**job_shape(info), "metrics": numbers(newest), "checkpoints": steps})
        return
    rows = [
        ("name", info.name),
        ("id", info.id),
        ("state", f"{info.state} ({info.reason}){f': {info.message}' if info.message else ''}"),
        ("line", info.line),
        ("place", f"number {info.position} in the line" if info.position else ""),
        ("step", f"{info.live_step} of {info.last_step}; the last checkpoint is of step {info.step}"),
        ("epoch", epochs(info)),
        ("speed", f"{info.steps_per_second:.3g} steps/s{_left(info)}" if info.steps_per_second else ""),
        ("metrics", "  ".join([f"{name} {value:.4g}" for name, value in newest.items()])),
        ("worker", info.worker),
        ("computes", info.fingerprint),
        ("restarts", str(info.restarts) if info.restarts else ""),
        ("submitted", moment(info.submitted_at)),
        ("changed", moment(info.changed_at)),
        ("kept", f"checkpoints of the steps {', '.join(map(str, steps))}" if steps else "no checkpoint"),
    ]
    for name, text in rows:
        if text:
            click.echo(f"{name:11}{text}")


def _told(name: str, done: str, sentence: str) -> None:
    """Add the command that tells a job something by the call of this name."""

    @jobs.command(name, cls=Reporting, help=sentence)
    @job_argument
    @asks_a_server_by_option
    @json_option
    def command(target: Target, job: str, as_json: bool) -> None:
        with things_of(target) as there:
            calls = {"pause": there.jobs.pause, "resume": there.jobs.resume, "cancel": there.jobs.cancel}
            say(calls[name](job), done, as_json)


_told("pause", "stops at its next checkpoint and waits", "Let JOB stop at a checkpoint and wait for resume.")
_told("resume", "goes on", "Let JOB, which is paused, go on.")
_told("cancel", "ends; its checkpoints stay", "End JOB. Its checkpoints stay.")


@jobs.command("extend", cls=Reporting)
@job_argument
@click.option("--epochs", "in_epochs", type=click.IntRange(min=1), help="End after so many epochs in all.")
@click.option("--steps", "in_steps", type=click.IntRange(min=1), help="End after so many steps in all.")
@asks_a_server_by_option
@json_option
def extend(target: Target, job: str, in_epochs: int | None, in_steps: int | None, as_json: bool) -> None:
    """Let JOB train for longer, also one that has succeeded: until --epochs or --steps in all."""
    if (in_epochs is None) == (in_steps is None):
        raise click.UsageError("give either --epochs or --steps, in all")
    with things_of(target) as there:
        found = Job(there.jobs, there.jobs.get(job)).extend(epochs=in_epochs, steps=in_steps)
        info = found.refresh()
    say(info, f"trains until step {info.last_step}", as_json)


for more in (watch, wait, logs, plot, fork, rewind):
    jobs.add_command(more)


def _left(job: JobInfo) -> str:
    """How long it will take, of a job that is running."""
    return f", {duration((job.last_step - job.live_step) / job.steps_per_second)} left" if not job.has_ended else ""
