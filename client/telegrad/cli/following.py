"""``telegrad jobs watch``, ``wait`` and ``logs``: following a job, and ending as it did."""

from __future__ import annotations

import time

import click

from telegrad.cli.job_report import event_shape, job_argument, job_shape, moment, row_shape
from telegrad.cli.report import JOB_EXITS, NOT_ENDED, Reporting, json_option, write_json
from telegrad.cli.target import Target, asks_a_server_by_option
from telegrad.cli.things import things_of
from telegrad.errors import JobFailed
from telegrad.jobs import Job
from telegrad.wire.jobs import JobEvent, JobInfo

PATIENCE_SECONDS = 600.0
"""Who follows a job waits for so long for a server that is away, as one that is started anew."""

LOOK_SECONDS = 0.5


@click.command("watch", cls=Reporting)
@job_argument
@asks_a_server_by_option
@json_option
def watch(target: Target, job: str, as_json: bool) -> None:
    """Show JOB's progress until it has ended, and end as it did. Ctrl-C leaves the job alone.

    With --json a line for each change.
    """
    with things_of(target, patience_seconds=PATIENCE_SECONDS) as there:
        found = Job(there.jobs, there.jobs.get(job))
        if not as_json:
            found.watch()
            if not found.info.has_ended:  # Ctrl-C, which watch takes for a farewell
                click.get_current_context().exit(130)
            _end(found)
        for news in there.jobs.watch(found.id):
            write_json(job_shape(news.job))
        _end(Job(there.jobs, there.jobs.get(found.id)))


@click.command("wait", cls=Reporting)
@job_argument
@click.option("--for-seconds", type=click.FloatRange(min=0), help="Wait no longer than so; exit status 19.")
@click.option("--until-paused", is_flag=True, help="Also end when the job is paused; exit status 18.")
@asks_a_server_by_option
@json_option
def wait(target: Target, job: str, for_seconds: float | None, until_paused: bool, as_json: bool) -> None:
    """Wait until JOB has ended, and end as it did: 0 if it succeeded, 16 if it failed, 17 if it was cancelled."""
    with things_of(target, patience_seconds=PATIENCE_SECONDS) as there:
        found = Job(there.jobs, there.jobs.get(job))
        ends_at = None if for_seconds is None else time.monotonic() + for_seconds
        while not (_is_over(found.refresh(), until_paused)):
            if ends_at is not None and time.monotonic() >= ends_at:
                break
            time.sleep(LOOK_SECONDS if ends_at is None else min(LOOK_SECONDS, max(0.0, ends_at - time.monotonic())))
        if as_json:
            write_json(job_shape(found.info))
        _end(found)


def _is_over(info: JobInfo, until_paused: bool) -> bool:
    return info.has_ended or (until_paused and info.state == "PAUSED")


def _end(job: Job) -> None:
    """End the program as the job has ended, with a sentence if that was not well."""
    info = job.info
    try:
        job.check()
    except JobFailed as error:
        click.echo(f"telegrad: {error}", err=True)
    else:
        if not info.has_ended:
            click.echo(f"telegrad: the job {info.name} is {info.state}; telegrad jobs watch {info.name}", err=True)
    click.get_current_context().exit(JOB_EXITS.get(info.state, NOT_ENDED))


@click.command("logs", cls=Reporting)
@job_argument
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only events after the one of this number.")
@click.option("--metrics", "with_metrics", is_flag=True, help="Also every metric that a checkpoint covers.")
@asks_a_server_by_option
@json_option
def logs(target: Target, job: str, follow: bool, after: int, with_metrics: bool, as_json: bool) -> None:
    """Print what has happened to JOB and why, in order. With --json an object on a line for each event and metric."""
    with things_of(target, patience_seconds=PATIENCE_SECONDS if follow else None) as there:
        found = Job(there.jobs, there.jobs.get(job))
        for item in found.events(after=after) if follow else found.events_so_far(after=after):
            if isinstance(item, JobEvent):
                if as_json:
                    write_json(event_shape(item))
                else:
                    click.echo(f"{moment(item.at)}  {item.number:>5}  {item.words}")
            elif with_metrics:
                if as_json:
                    write_json(row_shape(item))
                else:
                    click.echo(f"{moment(item.at)}         step {item.step}  {item.name} {item.value:.6g}")
