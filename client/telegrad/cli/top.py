"""``telegrad top``: the devices, again and again, with how busy each has been since the last look."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import count, islice
from typing import TYPE_CHECKING

import click

from telegrad.cli.report import Reporting, Shape, json_option, megabytes, write_json
from telegrad.cli.status import greeting_of
from telegrad.cli.target import Target, asks_a_server
from telegrad.transport import Greeting, WorkerInfo

if TYPE_CHECKING:
    from rich.console import Group


@click.command(cls=Reporting)
@asks_a_server
@click.option("--interval", "interval_seconds", type=click.FloatRange(min=0.1), default=2.0, show_default=True)
@click.option("--count", "looks", type=click.IntRange(min=1), help="End after so many looks; else with Ctrl-C.")
@json_option
def top(target: Target, interval_seconds: float, looks: int | None, as_json: bool) -> None:
    """Watch what computes at SERVER. With --json an object on a line for each look."""
    shapes = islice(_looks(target, interval_seconds), looks)
    if as_json:
        for shape in shapes:
            write_json(shape)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if not console.is_terminal:
        for shape in shapes:
            console.print(_screen(shape), soft_wrap=True)
        return
    with Live(console=console, auto_refresh=False, screen=looks is None) as live:
        for shape in shapes:
            live.update(_screen(shape), refresh=True)


def _looks(target: Target, interval_seconds: float) -> Iterator[Shape]:
    before: Mapping[str, WorkerInfo] = {}
    last = 0.0
    for number in count():
        if number:
            time.sleep(interval_seconds)
        began = time.monotonic()
        greeting = greeting_of(target)
        now = time.monotonic()
        yield look(target.address, greeting, before, seconds=now - last, answered_in_seconds=now - began)
        before, last = {w.name: w for w in greeting.workers}, now


def look(
    address: str, greeting: Greeting, before: Mapping[str, WorkerInfo], *, seconds: float, answered_in_seconds: float
) -> Shape:
    """One look in JSON's shape. ``busy`` is the share of the time since the last look, ``seconds`` ago, at which the
    device computed; None at the first, and for a worker that was started anew in between."""
    return {
        "address": address,
        "answered_in_seconds": round(answered_in_seconds, 6),
        "waiting_sessions": greeting.waiting_sessions,
        "held_bytes": sum(w.held_bytes for w in greeting.workers) if greeting.workers else greeting.held_bytes,
        "devices": [
            {
                "name": w.name,
                "backend": w.backend,
                "state": w.state,
                "sessions": w.sessions,
                "held_bytes": w.held_bytes,
                "busy": _busy(before.get(w.name), w, seconds),
            }
            for w in greeting.workers
        ],
    }


def _busy(before: WorkerInfo | None, now: WorkerInfo, seconds: float) -> float | None:
    if before is None or now.busy_seconds < before.busy_seconds or seconds <= 0:
        return None
    return round(min(1.0, (now.busy_seconds - before.busy_seconds) / seconds), 4)


def _screen(shape: Shape) -> Group:
    from rich.console import Group
    from rich.table import Table

    held, answered = shape["held_bytes"], shape["answered_in_seconds"]
    assert isinstance(held, int) and isinstance(answered, float)
    title = f"{shape['address']}  {megabytes(held)} held  {shape['waiting_sessions']} waiting  {1e3 * answered:.0f} ms"
    table = Table("name", "state", "backend", "sessions", "held", "busy", box=None, pad_edge=False)
    devices = shape["devices"]
    assert isinstance(devices, list)
    for d in devices:
        busy = "" if d["busy"] is None else f"{100 * d['busy']:.0f} %"
        table.add_row(d["name"], d["state"], d["backend"], str(d["sessions"]), megabytes(d["held_bytes"]), busy)
    if not devices:
        table.add_row("server", "live", "", "", megabytes(held), "")
    return Group(title, table)
