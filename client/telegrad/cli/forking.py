"""``telegrad jobs fork`` and ``rewind``: going on from a checkpoint in another way."""

from __future__ import annotations

import click

from telegrad.cli.job_report import job_argument, say
from telegrad.cli.report import Reporting, json_option
from telegrad.cli.target import Target, asks_a_server_by_option
from telegrad.cli.things import things_of
from telegrad.jobs import Job


@click.command("fork", cls=Reporting)
@job_argument
@click.option("--at-step", type=click.IntRange(min=0), help="The checkpoint to go on from. By default the newest.")
@click.option("--name", help="The new job's name.")
@click.option("--epochs", "in_epochs", type=click.IntRange(min=1), help="End after so many epochs in all.")
@click.option("--steps", "in_steps", type=click.IntRange(min=1), help="End after so many steps in all.")
@click.option("--set", "changes", multiple=True, metavar="NAME=NUMBER", help="Another number: lr=0.0001.")
@asks_a_server_by_option
@json_option
def fork(
    target: Target,
    job: str,
    at_step: int | None,
    name: str | None,
    in_epochs: int | None,
    in_steps: int | None,
    changes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a new job that goes on from a checkpoint of JOB, with --set at another learning rate."""
    if in_epochs is not None and in_steps is not None:
        raise click.UsageError("give --epochs or --steps, in all, and not both")
    numbers = dict([_number(change) for change in changes])
    with things_of(target) as there:
        found = Job(there.jobs, there.jobs.get(job))
        made = found.fork(at_step, name=name, epochs=in_epochs, steps=in_steps, **numbers)
        info = made.refresh()
    say(info, f"goes on from {found.name}, until step {info.last_step}", as_json)


@click.command("rewind", cls=Reporting)
@job_argument
@click.argument("step", type=click.IntRange(min=0))
@asks_a_server_by_option
@json_option
def rewind(target: Target, job: str, step: int, as_json: bool) -> None:
    """Let JOB go back to its checkpoint of STEP, and go on from there; what came after it is gone."""
    with things_of(target) as there:
        info = Job(there.jobs, there.jobs.get(job)).rewind(step).refresh()
    say(info, f"goes on from step {step}", as_json)


def _number(change: str) -> tuple[str, float]:
    name, _, value = change.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise click.UsageError(f"--set wants NAME=NUMBER, such as lr=0.0001, not {change}") from None


__all__ = ["fork", "rewind"]
