"""From hosts to devices, and from devices to the workers that should run: arithmetic, no I/O and no clock.

A host is cut into devices of one size, and every device gets one worker. A GPU is a device, or several by fractions; a
host without GPUs is one device, or one for every ``cpus`` of its CPUs. Hosts that are being drained have no devices.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from telegrad.errors import ResourceError

from telegrad_server.cluster.launcher import Device, WorkerSpec

Strategy = Literal["pack", "spread", "strict_pack", "strict_spread"]
"""Pack fills one host after the other, spread takes hosts in turn; strict uses one host only, or each only once."""


@dataclass(frozen=True, slots=True)
class Node:
    """A live host: what it has in all, free or taken."""

    id: str
    host: str
    cpus: float
    gpus: float = 0.0
    memory_bytes: int = 0
    resources: Mapping[str, float] = field(default_factory=dict[str, float])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    is_draining: bool = False


@dataclass(frozen=True, slots=True)
class WorkerSize:
    """What one worker gets. 0 CPUs or bytes: its share of the host. With 0 GPUs none is used; a part is shared."""

    cpus: float = 0.0
    gpus: float = 1.0
    memory_bytes: int = 0
    resources: Mapping[str, float] = field(default_factory=dict[str, float])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if not 0 <= self.gpus <= 1:
            raise ResourceError(f"a worker runs on one GPU or a part of one, so {self.gpus:g} GPUs cannot be")
        if self.cpus < 0 or self.memory_bytes < 0 or any(n < 0 for n in self.resources.values()):
            raise ResourceError("the CPUs, bytes and resources of a worker cannot be negative")


def devices_of(node: Node, size: WorkerSize) -> tuple[Device, ...]:
    """The devices of a host, each of which has room for one worker. None if it lacks something, or is being drained."""
    if node.is_draining or any(node.labels.get(key) != value for key, value in size.labels.items()):
        return ()
    if is_gpu := size.gpus > 0 and node.gpus > 0:
        count = math.floor(node.gpus) * math.floor(1 / size.gpus + 1e-9)
    else:
        count = math.floor(node.cpus / size.cpus + 1e-9) if size.cpus else int(node.cpus > 0)
    for wanted, there in _demands(size, node):
        if wanted > 0:
            count = min(count, math.floor(there / wanted + 1e-9))
    if count == 0:
        return ()
    # whole CPUs where there are enough, so that threads have a core each
    share = node.cpus / count
    cpus = size.cpus or (math.floor(share) if share >= 1 else math.floor(share * 1e4) / 1e4)
    return tuple(
        Device(
            f"{node.id[:12]}/{'gpu' if is_gpu else 'cpu'}{i}",
            node.id,
            "gpu" if is_gpu else "cpu",
            cpus=cpus,
            gpus=size.gpus if is_gpu else 0.0,
            memory_bytes=size.memory_bytes or node.memory_bytes // count,
            resources=dict(size.resources),
            labels={**node.labels, "host": node.host},
        )
        for i in range(count)
    )


def _demands(size: WorkerSize, node: Node) -> Iterable[tuple[float, float]]:
    yield size.cpus, node.cpus
    yield size.memory_bytes, node.memory_bytes
    for name, wanted in size.resources.items():
        yield wanted, node.resources.get(name, 0.0)


def shortage(nodes: Sequence[Node], size: WorkerSize) -> str | None:
    """Why no host has a device of this size, in a sentence that says what there is; None if one has."""
    if any(devices_of(node, size) for node in nodes):
        return None
    nodes = [node for node in nodes if node.cpus or node.gpus]  # the head has none
    if not nodes:
        return "no host of workers is there"
    there = "; ".join(f"{node.host} has {_words(node)}{' and is being drained' * node.is_draining}" for node in nodes)
    return f"no host has room for a worker of {_words(size)}: {there}"


def unmet(spec: WorkerSpec, nodes: Sequence[Node]) -> str | None:
    """Why a worker can never run where it must, in a sentence; None if it can, now or when others have ended."""
    node = next((node for node in nodes if node.id == spec.device.node), None)
    if node is None:
        return f"the host of {spec.device.name} is gone"
    wanted = {"CPUs": spec.cpus, "GPUs": spec.gpus, "bytes of memory": spec.memory_bytes, **spec.resources}
    there = {"CPUs": node.cpus, "GPUs": node.gpus, "bytes of memory": node.memory_bytes, **node.resources}
    missing = [name for name, number in wanted.items() if number > there.get(name, 0) + 1e-9]
    if not missing:
        return None
    wants = " and ".join(f"{wanted[name]:g} {name}" for name in missing)
    return f"{spec.name} wants {wants}, and {node.host} has {_words(node)}"


def _words(of: Node | WorkerSize) -> str:
    words = [f"{of.cpus:g} CPUs"] if of.cpus or isinstance(of, Node) else ["some CPUs"]
    words += [f"{of.gpus:g} GPUs"] if isinstance(of, Node) else []
    words += [f"{of.memory_bytes:,} bytes of memory"] if of.memory_bytes else []
    words += [f"{number:g} {name}" for name, number in of.resources.items()]
    words += [f"{key}={value}" for key, value in of.labels.items()] if isinstance(of, WorkerSize) else []
    return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be done: a worker on each device of ``start``, and an end, drained first, for those in ``stop``."""

    start: tuple[Device, ...] = ()
    stop: tuple[str, ...] = ()


def changes(
    devices: Sequence[Device],
    running: Mapping[str, str],
    *,
    most: int | None,
    strategy: Strategy,
    resting: Collection[str] = (),
) -> Changes:
    """From what runs (worker to device, those that only start included) to one worker on each device, ``most`` in all.

    A worker on a device that is no longer there is stopped, and so are those beyond ``most``. ``resting`` devices
    get no worker now: those on them have ended too often lately (`rest_seconds`).
    """
    order = _ordered(devices, strategy, set(running.values()))
    rank = {device.name: i for i, device in enumerate(order)}
    keep: dict[str, str] = {}
    for worker, device in sorted(running.items(), key=lambda pair: (rank.get(pair[1], len(rank)), pair[0])):
        if device in rank and device not in keep and (most is None or len(keep) < most):
            keep[device] = worker
    room = len(order) if most is None else most - len(keep)
    free = [device for device in order if device.name not in running.values() and device.name not in resting]
    kept = set(keep.values())
    return Changes(tuple(free[: max(0, room)]), tuple(worker for worker in running if worker not in kept))


def _ordered(devices: Sequence[Device], strategy: Strategy, taken: Collection[str]) -> list[Device]:
    """The devices in the order in which they are used: those that are taken stay first."""
    hosts: dict[str, list[Device]] = {}
    for device in sorted(devices, key=lambda device: device.name not in taken):
        hosts.setdefault(device.node, []).append(device)
    if strategy in ("pack", "strict_pack"):
        fullest = sorted(hosts.values(), key=lambda of: (-sum(d.name in taken for d in of), -len(of)))
        return [device for of in (fullest[:1] if strategy == "strict_pack" else fullest) for device in of]
    depth = 1 if strategy == "strict_spread" else max(map(len, hosts.values()), default=0)
    return [of[i] for i in range(depth) for of in hosts.values() if i < len(of)]


def rest_seconds(ends_in_a_row: int) -> float:
    """How long a device rests after workers on it ended so often without serving: not once, then 1, 2, 4 to 60."""
    return 0.0 if ends_in_a_row <= 1 else min(60.0, 2.0 ** (ends_in_a_row - 2))


def spec_for(name: str, device: Device) -> WorkerSpec:
    """The worker that takes all of a device."""
    return WorkerSpec(name, device, device.cpus, device.gpus, device.memory_bytes, device.resources)
