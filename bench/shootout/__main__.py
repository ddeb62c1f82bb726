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
from bench.shootout.lines import LINES, MEMORY_LINES
from bench.shootout.peers import NEEDS, PEERS
from bench.shootout.turns import Effort, measured

FULL, QUICK = Effort(rounds=7, seconds=1.0), Effort(rounds=3, seconds=0.2)
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
            section = _memory(peers, ["short"] if chosen.quick else list(MEMORY_LINES))
        else:
            effort = QUICK if chosen.quick else FULL
            section = report.speed(measured(LINES[name], peers, effort), effort)
        results.write_section(section, file)
        print(f"{section.text()}\n({time.perf_counter() - began:.0f} s; written to {file})\n", flush=True)


def _memory(peers: Sequence[str], lines: Sequence[str]) -> results.Section:
    growth: dict[str, dict[str, int]] = {line: {} for line in lines}
    for line in lines:
        for peer in peers:
            if peer != "job":  # it computes as a remote session does
                with Child(peer) as child:
                    growth[line][peer] = child.growth_bytes(line)
            print(f"{line}: {growth[line]}", file=sys.stderr, flush=True)
    return report.memory(growth)


if __name__ == "__main__":
    main()
