"""The program: its commands by name, each loaded when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import cast

import click

from telegrad import __version__

COMMANDS = (
    "completion", "devices", "doctor", "hello", "jobs", "login", "logout", "profiles", "serve", "status", "token",
    "top",
)  # fmt: skip
"""Every command: ``name`` is the object ``name`` of the module ``telegrad.cli.name``."""


class Program(click.Group):
    """A group whose commands are modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, None if there is none."""
        if cmd_name not in COMMANDS:  # a name from the command line is never looked up unless it stands there
            return None
        return cast("click.Command", getattr(import_module(f"telegrad.cli.{cmd_name}"), cmd_name))


@click.command(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="telegrad")
def cli() -> None:
    """Train on a telegrad server: log in, look at it, find out what is wrong.

    SERVER is an address (grpc://host:port, grpcs://host:port for TLS) or a profile's name; without it the profile of
    --profile or TELEGRAD_PROFILE is taken, else the default one.
    """


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        cli(prog_name="telegrad", standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
