"""What commands print: for people, or with --json one object of a stable shape; and how they end.

An error of ours is one sentence on standard error, with --json also an object ``{"error": …}`` on standard output, and
an exit status by its kind. docs/cli.md lists both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from telegrad.errors import (
    AccessError,
    ConnectionFailed,
    DataCorrupt,
    NotFound,
    ResourceError,
    ServerBug,
    TelegradError,
    TimedOut,
    VersionMismatch,
)

if TYPE_CHECKING:
    from rich.table import Table

EXITS: tuple[tuple[type[TelegradError], int], ...] = (
    (TimedOut, 3),
    (ConnectionFailed, 3),
    (AccessError, 4),
    (VersionMismatch, 5),
    (NotFound, 6),
    (ResourceError, 7),
    (ServerBug, 8),
    (DataCorrupt, 9),
    (TelegradError, 1),
)
"""Exit statuses by kind of error; the first that fits. 0 is done, 2 a wrong command line, 130 an interrupt."""

JOB_EXITS = {"SUCCEEDED": 0, "FAILED": 16, "CANCELLED": 17, "PAUSED": 18}
"""Exit statuses by the state that a job was left in, of commands that wait for one."""

LINE = 10_000
"""Where there is no terminal a line of a table has at most so many characters."""

NOT_ENDED = 19
"""The exit status when a job is still under way."""

Shape = Mapping[str, object]
_F = TypeVar("_F", bound=Callable[..., Any])


def exit_of(error: TelegradError) -> int:
    """The exit status for an error."""
    return next(status for kind, status in EXITS if isinstance(error, kind))


class Reporting(click.Command):
    """A command whose errors, if they are ours, are told as the module says."""

    def invoke(self, ctx: click.Context) -> Any:
        """Carry out the command."""
        try:
            return super().invoke(ctx)
        except TelegradError as error:
            status = exit_of(error)
            click.echo(f"telegrad: {error}", err=True)
            if ctx.params.get("as_json"):
                write_json({"error": {"reason": error.reason, "message": error.message, "exit": status}})
            ctx.exit(status)
        except KeyboardInterrupt:
            ctx.exit(130)


def json_option(command: _F) -> _F:
    """The option --json, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON of a stable shape.")(command)


def write_json(shape: Shape) -> None:
    """Print an object on one line."""
    click.echo(json.dumps(shape, ensure_ascii=False, allow_nan=False))


def number(value: float) -> float | None:
    """A number as JSON knows it: None for NaN and infinities."""
    return value if math.isfinite(value) else None


def print_table(table: Table) -> None:
    """Print a table: in a terminal as wide as that, elsewhere as wide as it is, for who looks for a line or a name."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = LINE
    console.print(table)


def megabytes(nbytes: float) -> str:
    """Bytes for people."""
    return f"{nbytes / 1e6:.1f} MB" if nbytes < 1e9 else f"{nbytes / 1e9:.2f} GB"
