"""A loop's commands wait while its worker may not accept any, and end when it never will again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

import numpy as np
import pytest
from telegrad_server.cluster.lease import Lease
from telegrad_server.config import Config
from telegrad_server.executors import pick_executor
from telegrad_server.loops.hands import Ended, Hands
from telegrad_server.worker import Worker


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lease() -> Lease:
    return Lease(clock=Clock())


@pytest.fixture
def hands(lease: Lease) -> Iterator[Hands]:
    lease.renew(asked_at=0.0, seconds=10.0)
    worker = Worker(Config(), pick_executor("numpy"), lease=lease)
    worker.start()
    hands = Hands(worker, "tenant", {})
    hands.open()
    yield hands
    lease.end()
    worker.stop()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def sent_after_the_lease(hands: Hands, lease: Lease, thread: ThreadPoolExecutor) -> Future[float]:
    lease._clock.now = 20.0  # pyright: ignore
    future = thread.submit(lambda: float(hands.fetch(hands.put(np.array(3.0))).array()))
    with pytest.raises(FutureTimeout):
        future.result(0.3)
    return future


def test_commands_wait_until_the_worker_reaches_its_gateway_again(
    hands: Hands, lease: Lease, thread: ThreadPoolExecutor
) -> None:
    future = sent_after_the_lease(hands, lease, thread)

    lease.renew(asked_at=20.0, seconds=10.0)

    assert future.result(20) == 3.0


def test_commands_end_when_the_gateway_has_given_the_worker_up(
    hands: Hands, lease: Lease, thread: ThreadPoolExecutor
) -> None:
    future = sent_after_the_lease(hands, lease, thread)

    lease.end()

    with pytest.raises(Ended, match="given the worker up"):
        future.result(20)
