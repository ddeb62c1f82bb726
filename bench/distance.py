"""A server 50 ms away: training steps of about 10 ms beside the same ones in process, and one number read.

`python -m bench.distance` writes its section of RESULTS.md. A proxy on loopback delays what passes, both ways.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import telegrad as tg

from bench.results import Section, Table, write_section
from bench.serving import server
from bench.steps import training
from tests.faults.proxy import Proxy

ROUND_TRIP_SECONDS = 0.05
ROUNDS, STEPS = 7, 100


def main() -> None:
    """Measure in turns and write the table."""
    with server() as found:
        proxy = Proxy(found.port, delay_seconds=ROUND_TRIP_SECONDS / 2)
        with tg.connect(new=True) as here, tg.connect(proxy.address, new=True) as there:
            rows = _training(here, there) + _number(there)
        proxy.close()
    about = f"A round trip takes {1e3 * ROUND_TRIP_SECONDS:.0f} ms. A turn is {STEPS} steps and the last one's loss."
    table = Table(("what", "goal", "measured"), rows)
    write_section(Section("A server 50 ms away", about, (table,)))
    print(table.text())


def _training(here: tg.Session, there: tg.Session) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for feed in ("resident", "fresh"):
        near, far = (training(session, width=512, batch=256, feed=feed) for session in (here, there))
        pairs = [(near(STEPS), far(STEPS)) for _ in range(ROUNDS)]
        ratios = sorted(a / b for a, b in pairs)
        ms = 1e3 * statistics.median(a for a, _ in pairs)
        what = f"training beside the same in process ({ms:.1f} ms a step), {feed} batch"
        rows.append((what, "90 %", f"{statistics.median(ratios):.0%} ({ratios[0]:.0%}..{ratios[-1]:.0%})"))
    return rows


def _number(there: tg.Session) -> list[tuple[str, str, str]]:
    with there.active():
        x = tg.asarray(np.ones(1, np.float32))
        add = tg.function(lambda x: x + 1)
        add(x).item()
        took: list[float] = []
        for _ in range(20):
            began = time.perf_counter()
            add(x).item()
            took.append(time.perf_counter() - began)
    return [("tiny function and fetch of a scalar", "one round trip", f"p50 {1e3 * statistics.median(took):.1f} ms")]


if __name__ == "__main__":
    main()
