"""What a training step needs at most, over the state after loading: memory as design 3 defines it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bench.shootout.lines import Line
from bench.shootout.peers import Peer

STEPS = 3


def growth_bytes(make: Callable[[Line], Peer], line: Line) -> int:
    """By how much the computing process grows at most in a few steps.

    Beforehand a step with two rows has been made, in a peer of its own: libraries are loaded. Weights and data lie
    there already; PyTorch's optimizer state, which it makes in its first step, counts as growth, and is small here.
    """
    small = make(line.of_batch(2))
    small.losses(1)
    large = make(line)
    is_same = small.pid == large.pid
    if not is_same:
        small.close()
    before = _kilobytes(large.pid, "VmRSS")
    Path(f"/proc/{large.pid}/clear_refs").write_text("5")  # the peak begins anew
    large.turn("resident", STEPS)
    found = _kilobytes(large.pid, "VmHWM") - before
    large.close()
    return found << 10


def _kilobytes(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), flags=re.M)
    assert found
    return int(found[1])
