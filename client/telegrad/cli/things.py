"""A server's jobs and datasets for commands, without a session; and their names for a shell that completes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from telegrad.cli.target import Target, find_target
from telegrad.errors import TelegradError

if TYPE_CHECKING:
    from telegrad.transport.beside import Beside

COMPLETION_SECONDS = 1.0
"""A shell does not wait for names for longer."""


@contextmanager
def things_of(target: Target, *, patience_seconds: float | None = None) -> Generator[Beside]:
    """What is at a server besides sessions. Who answers is asked first, so that what is wrong has its own sentence.

    ``patience_seconds``: for so long a server that goes away is waited for; as long as for an answer if it is None.
    """
    from telegrad.transport.beside import open_beside  # loads gRPC
    from telegrad.transport.hello import ask

    token, ca_cert, seconds = target.find_token(), target.ca_cert, target.timeout_seconds
    ask(target.address, token=token, ca_cert=ca_cert, timeout_seconds=seconds)
    patience = seconds if patience_seconds is None else patience_seconds
    there = open_beside(
        target.address, token=token, ca_cert=ca_cert, timeout_seconds=seconds, patience_seconds=patience
    )
    try:
        yield there
    finally:
        there.close()


def complete_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of jobs that begin so."""
    return _complete(ctx, incomplete, lambda there: [job.name for job in there.jobs.list()])


def complete_dataset(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of datasets that begin so."""
    return _complete(ctx, incomplete, lambda there: [dataset.name for dataset in there.datasets.list()])


def _complete(ctx: click.Context, incomplete: str, names: Callable[[Beside], Iterable[str]]) -> list[str]:
    """Names that begin so; nothing if they cannot be had, since a shell is asking."""
    given = (ctx.params.get(name) for name in ("server", "profile", "ca_cert"))
    try:
        target = find_target(*given, timeout_seconds=COMPLETION_SECONDS)
        if target is None:
            return []
        with things_of(target) as there:
            return sorted({name for name in names(there) if name.startswith(incomplete)})
    except (TelegradError, click.UsageError):
        return []
