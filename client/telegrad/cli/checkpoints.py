"""``telegrad checkpoints``: what jobs have made: which there are, as files, and whether the disk has kept them."""

from __future__ import annotations

import os

import click

from telegrad.cli.job_report import job_argument
from telegrad.cli.report import Reporting, exit_of, json_option, megabytes, write_json
from telegrad.cli.target import Target, asks_a_server_by_option
from telegrad.cli.things import things_of
from telegrad.errors import DataCorrupt, NotFound
from telegrad.jobs import Job


@click.group()
def checkpoints() -> None:
    """List a job's checkpoints, get one as a file that PyTorch loads, and let the server verify them.

    JOB is a job's name, which means the newest one of that name, or its id.
    """


@checkpoints.command("list", cls=Reporting)
@job_argument
@asks_a_server_by_option
@json_option
def list_(target: Target, job: str, as_json: bool) -> None:
    """List the checkpoints of JOB by step. The server keeps the last ones, and the best one if it was told to."""
    with things_of(target) as there:
        found = Job(there.jobs, there.jobs.get(job))
        info, steps = found.info, found.checkpoints
        try:
            best = found.best.step if info.best_metric else None
        except NotFound:
            best = None  # nothing has been measured yet
    shapes = [
        {"step": step, "epoch": step / info.steps_per_epoch if info.steps_per_epoch else None, "is_best": step == best}
        for step in steps
    ]
    if as_json:
        write_json({"job": info.id, "name": info.name, "checkpoints": shapes})
        return
    for shape in shapes:
        epoch = "" if shape["epoch"] is None else f"after {shape['epoch']:.4g} epochs"
        click.echo(
            f"{shape['step']:>10}  {epoch}{f'  the best {info.best_metric}' if shape['is_best'] else ''}".rstrip()
        )


@checkpoints.command("get", cls=Reporting)
@job_argument
@click.argument("file", type=click.Path(dir_okay=False, writable=True), required=False)
@click.option("--step", type=click.IntRange(min=0), help="The checkpoint of this step; else the newest one.")
@click.option("--best", is_flag=True, help="The best one, of a job that keeps it.")
@click.option("--module", metavar="NAME", help="Only the tensors of one module, named as its own state_dict does.")
@asks_a_server_by_option
@json_option
def get(
    target: Target, job: str, file: str | None, step: int | None, best: bool, module: str | None, as_json: bool
) -> None:
    """Write a checkpoint of JOB to FILE, in the safetensors format; without FILE to JOB-STEP.safetensors.

    With --module model the keys are those of model.state_dict(), and in PyTorch
    model.load_state_dict(safetensors.torch.load_file(FILE)) takes it. The file is complete or not there.
    """
    if best and step is not None:
        raise click.UsageError("--best and --step both choose a checkpoint; give one of them")
    with things_of(target) as there:
        found = Job(there.jobs, there.jobs.get(job))
        checkpoint = found.best if best else found.checkpoint(step)
        path = file or f"{found.name}-{checkpoint.step}.safetensors"
        try:
            checkpoint.save(path, module)
        except OSError as error:
            raise click.ClickException(f"{path} cannot be written: {error.strerror or error}") from None
    nbytes = os.path.getsize(path)
    if as_json:
        write_json({"job": found.id, "step": checkpoint.step, "path": os.path.abspath(path), "bytes": nbytes})
    else:
        click.echo(f"{path} has the checkpoint of step {checkpoint.step}, {megabytes(nbytes)}")


@checkpoints.command("verify", cls=Reporting)
@job_argument
@asks_a_server_by_option
@json_option
def verify(target: Target, job: str, as_json: bool) -> None:
    """Let the server read every byte of JOB's checkpoints and compare the digests; exit status 9 if one is damaged."""
    with things_of(target) as there:
        report = there.jobs.verify(job)
    if as_json:
        damaged = [
            {"step": d.step, "file": d.file, "expected": d.expected, "found": d.found, "message": d.message}
            for d in report.damaged
        ]
        write_json({"whole": list(report.whole), "damaged": damaged})
    else:
        for step in report.whole:
            click.echo(f"{step:>10}  whole")
        for damage in report.damaged:
            click.echo(f"{damage.step:>10}  damaged: {damage.message}")
    if report.damaged:
        click.get_current_context().exit(exit_of(DataCorrupt()))
