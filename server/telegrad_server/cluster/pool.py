"""Which workers run and which are to be started or drained: `nodes.changes` over time, with names and pauses. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from telegrad_server.cluster.launcher import Device, WorkerSpec
from telegrad_server.cluster.nodes import Strategy, changes, rest_seconds, spec_for

PAUSE_SECONDS = 0.5
"""A device rests at least so long after its worker has ended."""

STEADY_SECONDS = 60.0
"""A worker that ran for so long has started well."""


@dataclass(slots=True)
class _Start:
    device: str
    at: float


@dataclass(slots=True)
class _Rest:
    ends_in_a_row: int = 0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Due:
    """Workers to be started now, and those that shall take no more sessions and end."""

    start: tuple[WorkerSpec, ...] = ()
    drain: tuple[str, ...] = ()


class Pool:
    """The workers of a launcher. ``most`` is how many there may be, None for one on each device."""

    def __init__(self, *, most: int | None, strategy: Strategy = "pack") -> None:
        self._most = most
        self._strategy: Strategy = strategy
        self._running: dict[str, _Start] = {}
        self._rests: dict[str, _Rest] = {}
        self._number = 0

    def workers(self) -> list[str]:
        """The names of those that run or are being started."""
        return list(self._running)

    def due(self, devices: Sequence[Device], now: float, *, taken: Collection[str] = ()) -> Due:
        """What is to be done now. Who is to be started counts as running until `ended`.

        ``taken`` are names of others: a gateway that was started anew finds workers of its predecessor.
        """
        running = {worker: start.device for worker, start in self._running.items()}
        resting = {device for device, rest in self._rests.items() if now < rest.until}
        todo = changes(devices, running, most=self._most, strategy=self._strategy, resting=resting)
        specs: list[WorkerSpec] = []
        for device in todo.start:
            name = self._new_name(taken)
            self._running[name] = _Start(device.name, now)
            specs.append(spec_for(name, device))
        return Due(tuple(specs), todo.stop)

    def _new_name(self, taken: Collection[str]) -> str:
        while True:
            self._number += 1
            name = f"worker-{self._number}"
            if name not in taken:
                return name

    def ended(self, worker: str, now: float) -> None:
        """A worker's process has ended, or could not be started."""
        start = self._running.pop(worker, None)
        if start is None:
            return
        rest = self._rests.setdefault(start.device, _Rest())
        rest.ends_in_a_row = 1 if now - start.at > STEADY_SECONDS else rest.ends_in_a_row + 1
        rest.until = now + max(PAUSE_SECONDS, rest_seconds(rest.ends_in_a_row))
