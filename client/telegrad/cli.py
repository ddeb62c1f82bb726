"""``telegrad``: the command line."""

from __future__ import annotations

import sys

import click

from telegrad import __version__
from telegrad.errors import TelegradError


@click.group()
@click.version_option(__version__, prog_name="telegrad")
def cli() -> None:
    """A distributed autograd service."""


@cli.command()
@click.argument("address")
@click.option("--ca-cert", metavar="FILE", help="PEM file of the server's authority, for grpcs://")
def hello(address: str, ca_cert: str | None) -> None:
    """Say what runs at ADDRESS (grpc://host:port). The token is read from TELEGRAD_TOKEN or TELEGRAD_TOKEN_FILE."""
    from telegrad.opening import connect

    with connect(address, ca_cert=ca_cert, new=True) as session:
        click.echo(f"telegrad {__version__} reaches a server at {address}")
        click.echo(f"backend      {session.backend}")
        click.echo(f"fingerprint  {session.fingerprint}")
        greeting = session.commands.connection.greeting
        if greeting.worker:
            click.echo(f"home         {greeting.worker}, {'directly' if greeting.is_direct else 'through the gateway'}")
            click.echo(f"waiting      {greeting.waiting_sessions} sessions")
        for w in greeting.workers:
            click.echo(
                f"worker       {w.name:12} {w.state:9} {w.backend:6} machine {w.machine}  {w.sessions} sessions,"
                f" {w.held_bytes / 1e6:.1f} MB, busy for {w.busy_seconds:.1f} s"
            )
        for warning in session.warnings:
            click.echo(f"warning      {warning}")


def main() -> int:
    """Run the command line; errors of ours are one sentence and exit status 1."""
    try:
        cli()
    except TelegradError as error:
        print(f"telegrad: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
