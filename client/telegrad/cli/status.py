"""``telegrad status``: what a server says of itself; nothing is opened there."""

from __future__ import annotations

import click

from telegrad import __version__
from telegrad.cli.report import Reporting, Shape, json_option, megabytes, write_json
from telegrad.cli.target import Target, asks_a_server
from telegrad.transport import Greeting, WorkerInfo


@click.command(cls=Reporting)
@asks_a_server
@json_option
def status(target: Target, as_json: bool) -> None:
    """Say what runs at SERVER: versions, what computes, sessions, what is held."""
    greeting = greeting_of(target)
    shape = status_shape(target, greeting)
    if as_json:
        write_json(shape)
        return
    rows = [
        ("server", f"telegrad {greeting.server_version} at {target.address}, asked by telegrad {__version__}"),
        ("backend", greeting.backend),
        ("held", f"{megabytes(greeting.held_bytes)} of your tensors" if not greeting.workers else ""),
        ("workers", f"{len(greeting.workers)}, with {shape['sessions']} sessions" if greeting.workers else ""),
        ("waiting", f"{greeting.waiting_sessions} sessions" if greeting.workers else ""),
        *(("warning", warning) for warning in greeting.warnings),
    ]
    for name, text in rows:
        if text:
            click.echo(f"{name:9}{text}")


def greeting_of(target: Target) -> Greeting:
    """What the server says of itself; nothing is opened there."""
    from telegrad.transport.hello import ask  # loads gRPC

    return ask(
        target.address, token=target.find_token(), ca_cert=target.ca_cert, timeout_seconds=target.timeout_seconds
    )


def status_shape(target: Target, greeting: Greeting) -> Shape:
    """The shape of ``status --json``. None for what the server does not tell."""
    workers = greeting.workers
    return {
        "address": target.address,
        "profile": target.profile,
        "client_version": __version__,
        "server_version": greeting.server_version,
        "incarnation": greeting.incarnation,
        "backend": greeting.backend,
        "fingerprint": greeting.fingerprint or None,
        "held_bytes": sum(w.held_bytes for w in workers) if workers else greeting.held_bytes,
        "workers": len(workers),
        "sessions": sum(w.sessions for w in workers) if workers else None,
        "waiting_sessions": greeting.waiting_sessions,
        "warnings": list(greeting.warnings),
    }


def worker_shape(worker: WorkerInfo) -> Shape:
    """The shape of a worker in JSON."""
    return {
        "name": worker.name,
        "machine": worker.machine,
        "backend": worker.backend,
        "state": worker.state,
        "sessions": worker.sessions,
        "held_bytes": worker.held_bytes,
        "busy_seconds": worker.busy_seconds,
    }
