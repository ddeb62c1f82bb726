"""A server 50 ms away: what goes on without waiting for it. Times are bounds with much room, in round trips."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
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
