"""How much memory a device has and how much of it is used, by whomever: what a page or an operator looks at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a device's memory; 0 where it is not known."""

    total_bytes: int
    used_bytes: int


def host_memory() -> Memory:
    """The memory of this machine, or of the container that has less."""
    try:
        found = {name: int(kib) << 10 for name, kib in re.findall(r"(\w+):\s+(\d+) kB", _MEMORY.read_text())}
        total = found["MemTotal"]
        machine = Memory(total, total - found["MemAvailable"])
    except (OSError, KeyError):
        return Memory(0, 0)
    try:
        limit, current = (path.read_text().strip() for path in _LIMITS)
        return Memory(int(limit), int(current)) if limit.isdigit() and int(limit) < total else machine
    except (OSError, ValueError):
        return machine
