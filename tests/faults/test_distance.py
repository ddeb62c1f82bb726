"""A server 50 ms away: what goes on without waiting for it. Times are bounds with much room, in round trips."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.transport import remote

from tests.faults.conftest import Server
from tests.faults.proxy import Proxy

ROUND_TRIP_SECONDS = 0.05
STEPS = 40


@pytest.fixture(autouse=True)
def no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is on this machine, and a server that is far away shares no memory."""
    monkeypatch.setattr(remote, "can_share", lambda: False)


@pytest.fixture
def far(server: Server) -> Iterator[tg.Session]:
    proxy = Proxy(server.port, delay_seconds=ROUND_TRIP_SECONDS / 2)
    with tg.connect(proxy.address, new=True) as session:
        yield session
    proxy.close()


def test_a_loop_that_prints_each_loss_does_not_wait_for_it(far: tg.Session) -> None:
    v = tg.Variable(np.zeros(8, np.float32))

    @tg.function
    def step() -> tg.Tensor:
        v.assign(v + 1)
        return v.sum()

    step().item()
    began = time.perf_counter()
    waiting: deque[Any] = deque()
    printed: list[float] = []
    for _ in range(STEPS):
        waiting.append(step().item_async())
        while waiting and waiting[0].done():
            printed.append(waiting.popleft().result())
    printed += [later.result() for later in waiting]
    took = time.perf_counter() - began

    assert printed == [8.0 * (i + 2) for i in range(STEPS)]
    assert took < STEPS * ROUND_TRIP_SECONDS / 4


def test_a_loop_that_reads_each_loss_finds_its_batch_already_there(far: tg.Session) -> None:
    step = tg.function(lambda x: x.sum())  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType, reportUnknownVariableType, reportUnknownMemberType]
    batches = [np.full(250_000, k, np.float32) for k in range(12)]
    step(batches[0]).item()

    def seconds(source: Iterable[Any]) -> float:
        began = time.perf_counter()
        assert [step(x).item() for x in source] == [k * 250_000.0 for k in range(12)]
        return time.perf_counter() - began

    took = min(seconds(tg.data.prefetch(batches)) for _ in range(2))
    without = min(seconds(batches) for _ in range(2))

    assert took < 0.85 * without


def test_the_clocks_are_aligned_across_the_distance(far: tg.Session, tmp_path: Path) -> None:
    """Client and server are on one machine, so the offset ought to be nothing; a way takes half a round trip."""
    path = tmp_path / "trace.json"
    step = tg.function(lambda x: x.sum())  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType, reportUnknownVariableType, reportUnknownMemberType]
    x = tg.asarray(np.ones(2000, np.float32))
    step(x).item()
    with tg.profile(path) as found:
        step(x).item()

    assert ROUND_TRIP_SECONDS <= found.round_trip_ns / 1e9 < 3 * ROUND_TRIP_SECONDS
    assert abs(found.offset_ns) < 0.2 * found.round_trip_ns
    ways = {(e["name"], e["ph"]): e["ts"] for e in json.loads(path.read_text())["traceEvents"] if e["ph"] in "be"}
    for name in ("Run up", "answer down"):
        took = (ways[name, "e"] - ways[name, "b"]) / 1e6
        assert 0.3 * ROUND_TRIP_SECONDS < took < 3 * ROUND_TRIP_SECONDS
