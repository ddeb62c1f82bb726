"""python -m bench.shootout: measure work lines, and memory, and write their sections of RESULTS.md."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bench import results
from bench.shootout import report
from bench.shootout.child import Child
from bench.shootout.lines import LINES
from bench.shootout.peers import NEEDS, PEERS
from bench.shootout.turns import Effort, measured

FULL, QUICK = Effort(rounds=7, seconds=1.0), Effort(rounds=3, seconds=0.2)
MEMORY_LINE, MEMORY_BATCH, QUICK_MEMORY_BATCH = "gpt", 512, 32
QUICK_FILE = Path(__file__).parent.parent / "local" / "RESULTS.md"


def main() -> None:
    """Read the options and measure."""
    options = argparse.ArgumentParser(prog="bench.shootout", description=__doc__)
    options.add_argument("--line", action="append", choices=[*LINES, "memory"], help="only this one; may be repeated")
    options.add_argument("--peer", action="append", choices=list(PEERS), help="only this one; may be repeated")
    options.add_argument("--quick", action="store_true", help="a glance: few short turns, written to bench/local")
    options.add_argument("--to", type=Path, help="write to this file instead of bench/RESULTS.md")
    chosen = options.parse_args()
    file = chosen.to or (QUICK_FILE if chosen.quick else results.FILE)
    peers = [peer for peer in chosen.peer or PEERS if peer not in NEEDS or find_spec(NEEDS[peer])]
    if missing := [peer for peer in chosen.peer or PEERS if peer not in peers]:
        print(f"left out, since they are not installed: {', '.join(missing)}", file=sys.stderr)
    for name in chosen.line or [*LINES, "memory"]:
        began = time.perf_counter()
        if name == "memory":
            section = _memory(peers, QUICK_MEMORY_BATCH if chosen.quick else MEMORY_BATCH)
        else:
            effort = QUICK if chosen.quick else FULL
            section = report.speed(measured(LINES[name], peers, effort), effort)
        results.write_section(section, file)
        print(f"{section.text()}\n({time.perf_counter() - began:.0f} s; written to {file})\n", flush=True)


def _memory(peers: Sequence[str], batch: int) -> results.Section:
    growth: dict[str, int] = {}
    for peer in peers:
        if peer != "job":  # it computes as a remote session does
            with Child(peer) as child:
                growth[peer] = child.growth_bytes(MEMORY_LINE, batch)
    return report.memory(LINES[MEMORY_LINE], batch, growth)


if __name__ == "__main__":
    main()
