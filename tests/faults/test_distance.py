"""A server 50 ms away: what goes on without waiting for it. Times are bounds with much room, in round trips."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import telegrad as tg

from tests.faults.conftest import Server
from tests.faults.proxy import Proxy

ROUND_TRIP_SECONDS = 0.05
STEPS = 40


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
