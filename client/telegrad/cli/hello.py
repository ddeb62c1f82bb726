"""``telegrad hello``: opens a session and says where it lives."""

from __future__ import annotations

import click

from telegrad import __version__
from telegrad.cli.report import Reporting, json_option, megabytes, write_json
from telegrad.cli.status import worker_shape
from telegrad.cli.target import Target, asks_a_server


@click.command(cls=Reporting)
@asks_a_server
@json_option
def hello(target: Target, as_json: bool) -> None:
    """Open a session at SERVER and say where it lives."""
    from telegrad.opening import connect

    with connect(
        target.address,
        token=target.find_token(),
        ca_cert=target.ca_cert,
        timeout_seconds=target.timeout_seconds,
        new=True,
    ) as session:
        greeting, warnings = session.commands.connection.greeting, session.warnings
    if as_json:
        write_json(
            {
                "address": target.address,
                "client_version": __version__,
                "server_version": greeting.server_version,
                "backend": greeting.backend,
                "fingerprint": greeting.fingerprint,
                "home": greeting.worker or None,
                "is_direct": greeting.is_direct,
                "waiting_sessions": greeting.waiting_sessions,
                "workers": [worker_shape(w) for w in greeting.workers],
                "warnings": list(warnings),
            }
        )
        return
    click.echo(f"telegrad {__version__} reaches a server at {target.address}")
    click.echo(f"backend      {greeting.backend}")
    click.echo(f"fingerprint  {greeting.fingerprint}")
    if greeting.worker:
        click.echo(f"home         {greeting.worker}, {'directly' if greeting.is_direct else 'through the gateway'}")
        click.echo(f"waiting      {greeting.waiting_sessions} sessions")
    for w in greeting.workers:
        click.echo(
            f"worker       {w.name:12} {w.state:9} {w.backend:6} machine {w.machine}  {w.sessions} sessions,"
            f" {megabytes(w.held_bytes)}, busy for {w.busy_seconds:.1f} s"
        )
    for warning in warnings:
        click.echo(f"warning      {warning}")
