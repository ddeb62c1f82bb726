"""Training on several workers of docker-compose.yml while its containers crash, stand still, come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import telegrad as tg
from telegrad.errors import StateLost

from tests.cluster.compose.deployment import Deployment, until
from tests.cluster.test_crew import embedded, train

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]


@pytest.fixture
def three(cluster: Deployment) -> Deployment:
    """The cluster with three workers, all of them members."""
    cluster.compose("up", "--detach", "--no-build", "--wait", "--scale", "worker=3")
    until(lambda: 'telegrad_workers{state="live"} 3.0' in cluster.metrics("gateway"), seconds=60)
    return cluster


def peer_of(deployment: Deployment, home: str) -> dict[str, Any]:
    """The container of a worker that is not the home."""
    return next(container for name, container in deployment.workers().items() if name != home)


def at(step: int, act: Callable[[], object]) -> Callable[[int], None]:
    """What to do before a step of the training."""
    return lambda i: act() if i == step else None  # type: ignore[func-returns-value]


def test_replicas_on_three_containers_have_the_bits_of_one_process(three: Deployment) -> None:
    with three.connect():
        assert train(replicas=3, rows=48) == embedded(replicas=3, rows=48)


def test_a_peers_container_crashes_in_mid_training_and_no_bit_changes(three: Deployment) -> None:
    with three.connect() as session:
        peer = peer_of(three, session.home)
        restarts = three.restarts(peer)

        assert train(replicas=4, before=at(3, lambda: three.crash(peer))) == embedded(replicas=4)

    until(lambda: three.restarts(peer) > restarts, seconds=30)


def test_a_peers_container_stands_still_in_mid_training_and_no_bit_changes(three: Deployment) -> None:
    with three.connect() as session:
        peer = peer_of(three, session.home)
        began = time.monotonic()
        try:
            assert train(replicas=4, before=at(3, lambda: three.freeze(peer))) == embedded(replicas=4)
            print(f"training with a frozen peer took {time.monotonic() - began:.1f} s")
            until(lambda: 'telegrad_workers{state="live"} 2.0' in three.metrics("gateway"), seconds=30)
        finally:
            three.thaw(peer)

    until(lambda: 'telegrad_workers{state="live"} 3.0' in three.metrics("gateway"), seconds=90)  # it comes back anew
    until(lambda: three.health(peer) == "healthy", seconds=60)  # the engine calls it unhealthy since the pause


def test_a_home_that_stands_still_for_less_than_its_lease_goes_on(three: Deployment) -> None:
    with three.connect() as session:
        home = three.workers()[session.home]
        x = tg.asarray([1.0, 2.0])
        assert x.sum().item() == 3.0

        three.freeze(home)
        try:
            y = x * 3
            time.sleep(6)  # Ray alone would give its host up, and the lease lasts 10 s
        finally:
            three.thaw(home)

        assert y.sum().item() == 9.0
    until(lambda: three.health(home) == "healthy", seconds=30)  # after a pause the engine waits for the next check


def test_the_homes_container_crashes_and_the_client_is_told(three: Deployment) -> None:
    with three.connect() as session, pytest.raises(StateLost):
        home = three.workers()[session.home]
        train(replicas=3, before=at(2, lambda: three.crash(home)))


def test_workers_that_go_let_their_sessions_end_first(three: Deployment) -> None:
    sessions: list[tg.Session] = []
    values: list[tg.Tensor] = []
    for name in three.workers():
        sessions.append(three.connect(worker=name))
        values.append(tg.asarray([1.0, 2.0]))

    going = three.begin("up", "--detach", "--no-build", "--wait", "--scale", "worker=1")
    until(lambda: 'telegrad_workers{state="draining"} 2.0' in three.metrics("gateway"), seconds=30)
    for i in range(3):
        assert [(value + i).sum().item() for value in values] == [3.0 + 2 * i] * 3
    assert going.poll() is None
    began = time.monotonic()
    for session in sessions:
        session.close()

    assert going.wait(60) == 0
    print(f"gone {time.monotonic() - began:.1f} s after their sessions")
    assert len(three.containers("worker")) == 1
    until(three.is_served, seconds=60)


def test_the_gateway_crashes_with_the_head_and_all_comes_back_by_itself(three: Deployment) -> None:
    (gateway,) = three.containers("gateway")
    restarts = three.restarts(gateway)
    began = time.monotonic()
    with pytest.raises(StateLost), three.connect():
        x = tg.asarray([1.0])
        assert x.item() == 1.0

        three.crash(gateway)

        while time.monotonic() < began + 60:  # a host behind a dead head lives on for some seconds
            assert (x + 1).item() == 2.0
            time.sleep(0.2)
    print(f"told after {time.monotonic() - began:.1f} s")

    until(lambda: three.restarts(gateway) > restarts, seconds=30)
    until(three.is_served, seconds=90)
    print(f"served again after {time.monotonic() - began:.1f} s")
    until(lambda: 'telegrad_workers{state="live"} 3.0' in three.metrics("gateway"), seconds=90)
    with three.connect():
        assert train(replicas=3) == embedded(replicas=3)
