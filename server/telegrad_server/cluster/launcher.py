"""The seam to what makes worker processes: children of the gateway, or Ray's actors. It makes, watches and kills them.

A worker that was started joins the gateway by itself, over gRPC; nothing else passes through a launcher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Ended = Callable[[str, str], None]
"""Told the name of a worker and why, once its process has ended or could not be started. On any thread."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where a worker can run: one GPU, or CPU cores of a node. ``name`` is unique among all devices."""

    name: str
    node: str
    kind: Literal["cpu", "gpu"]
    cpus: float
    gpus: float = 0.0
    memory_bytes: int = 0
    resources: Mapping[str, float] = field(default_factory=dict[str, float])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker to be started. ``name`` was never used before in this cluster; ``node`` is where it must run."""

    name: str
    device: Device
    cpus: float
    gpus: float = 0.0
    memory_bytes: int = 0
    resources: Mapping[str, float] = field(default_factory=dict[str, float])


class Launcher(Protocol):
    """Makes, watches and kills worker processes. Every method may be called on any thread."""

    def open(self, ended: Ended, changed: Callable[[], None]) -> None:
        """Begin: ``ended`` hears of workers, ``changed`` is called when `devices` may have changed."""
        ...

    def devices(self) -> Sequence[Device]:
        """The devices of all live nodes, free or taken."""
        ...

    def start(self, spec: WorkerSpec) -> None:
        """Start a worker; returns at once. ``ended`` tells if that fails."""
        ...

    def stop(self, name: str) -> None:
        """Kill a worker, now; ``ended`` tells when it is over. One that is not there is ignored."""
        ...

    def close(self) -> None:
        """Kill all workers and let go of what makes them."""
        ...
