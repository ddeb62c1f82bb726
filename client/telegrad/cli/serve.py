"""``telegrad serve``: becomes telegrad-server."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import click

from telegrad.cli.report import Reporting

NEEDED = ("telegrad_server", "grpc_health", "prometheus_client", "scipy")
"""What a served machine needs and the thin client does without."""


@click.command(
    cls=Reporting,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Start a server: telegrad-server with these OPTIONS (telegrad serve --help lists them)."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        click.echo(
            f"telegrad: a server needs {', '.join(missing)}, not installed here; run pip install 'telegrad[server]'",
            err=True,
        )
        sys.exit(2)
    sys.stdout.flush()
    # the same process from here on, so that signals and supervisors find the server itself
    os.execv(sys.executable, [sys.executable, "-m", "telegrad_server", *options])
