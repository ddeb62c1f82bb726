"""``telegrad devices``: what computes, one row for each device. A worker has one device."""

from __future__ import annotations

import click

from telegrad.cli.report import Reporting, Shape, json_option, megabytes, print_table, write_json
from telegrad.cli.status import greeting_of, worker_shape
from telegrad.cli.target import Target, asks_a_server
from telegrad.transport import Greeting

COLUMNS = ("name", "machine", "backend", "state", "sessions", "held", "busy")


@click.command(cls=Reporting)
@asks_a_server
@json_option
def devices(target: Target, as_json: bool) -> None:
    """List what computes at SERVER, and who uses it how much."""
    found = device_shapes(greeting_of(target))
    if as_json:
        write_json({"address": target.address, "devices": found})
        return
    from rich.table import Table

    table = Table(*COLUMNS, box=None, pad_edge=False)
    for device in found:
        held, busy = device["held_bytes"], device["busy_seconds"]
        table.add_row(
            *(_cell(device[column]) for column in COLUMNS[:5]),
            megabytes(held) if isinstance(held, int) else "",
            f"{busy:.1f} s" if isinstance(busy, float) else "",
        )
    print_table(table)


def device_shapes(greeting: Greeting) -> list[Shape]:
    """The devices in JSON's shape. A single server is one device; None for what it does not tell."""
    if greeting.workers:
        return [worker_shape(worker) for worker in greeting.workers]
    unknown = dict.fromkeys(("machine", "sessions", "busy_seconds"))
    single: dict[str, object] = {
        "name": "server",
        "backend": greeting.backend,
        "state": "live",
        "held_bytes": greeting.held_bytes,
    }
    return [single | unknown]


def _cell(value: object) -> str:
    return "" if value is None else str(value)
