"""Which workers should run: one on each device, up to a limit, started anew when they end. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from telegrad_server.cluster.launcher import Device, WorkerSpec

PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A worker that ran for so long has started well: the next pause is short again."""


@dataclass(slots=True)
class _Seat:
    """A device: the worker on it, and how often in a row one ended soon after it began."""

    worker: str = ""
    started_at: float = 0.0
    failures: int = 0
    not_before: float = 0.0


class Pool:
    """The workers of a launcher, by device. ``limit`` is how many there may be, 0 for one on each device."""

    def __init__(self, *, limit: int = 0, cpus: float = 0.0, gpus: float = 0.0, memory_bytes: int = 0) -> None:
        self._limit = limit
        self._cpus, self._gpus, self._memory_bytes = cpus, gpus, memory_bytes
        self._seats: dict[str, _Seat] = {}
        self._number = 0
        self._draining: set[str] = set()

    def workers(self) -> list[str]:
        """The names of those that run or are being started."""
        return [seat.worker for seat in self._seats.values() if seat.worker]

    def due(self, devices: Sequence[Device], now: float) -> list[WorkerSpec]:
        """The workers to be started now. They count as running until `ended`."""
        found: list[WorkerSpec] = []
        for device in devices:
            if self._limit and len(self.workers()) >= self._limit:
                break
            seat = self._seats.setdefault(device.name, _Seat())
            if seat.worker or now < seat.not_before or device.name in self._draining:
                continue
            self._number += 1
            seat.worker, seat.started_at = f"worker-{self._number}", now
            found.append(
                WorkerSpec(
                    seat.worker,
                    device,
                    cpus=min(self._cpus or device.cpus, device.cpus),
                    gpus=min(self._gpus or device.gpus, device.gpus),
                    memory_bytes=self._memory_bytes,
                )
            )
        return found

    def ended(self, worker: str, now: float) -> None:
        """A worker's process has ended, or could not be started."""
        for seat in self._seats.values():
            if seat.worker == worker:
                seat.failures = 1 if now - seat.started_at > STEADY_SECONDS else seat.failures + 1
                seat.not_before = now + min(PAUSE_SECONDS * 2 ** (seat.failures - 1), LONGEST_PAUSE_SECONDS)
                seat.worker = ""

    def drain(self, worker: str) -> None:
        """No other worker is started where this one runs."""
        self._draining |= {device for device, seat in self._seats.items() if seat.worker == worker}
