"""deploy/without-ray.yml: workers that join by themselves, and outlive their gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import telegrad as tg

from tests.cluster.compose.deployment import Deployment, until
from tests.cluster.test_crew import embedded, train

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("static"), "deploy/without-ray.yml")
    try:
        deployment.up("--scale", "worker=2")
        yield deployment
        print(deployment.compose("logs", "--no-color", "--tail", "40"))  # shown if a test has failed
    finally:
        deployment.down()


def test_workers_train_together(static: Deployment) -> None:
    print(f"up --wait took {static.up_seconds:.1f} s")
    until(lambda: 'telegrad_workers{state="live"} 2.0' in static.metrics("gateway"), seconds=30)

    with static.connect():
        assert train(replicas=2) == embedded(replicas=2)


def test_a_gateway_that_crashes_is_started_again_and_sessions_go_on(static: Deployment) -> None:
    (gateway,) = static.containers("gateway")
    restarts = static.restarts(gateway)
    with static.connect():
        x = tg.asarray([1.0])
        assert x.item() == 1.0

        static.crash(gateway)

        assert (x + 1).item() == 2.0
    assert static.restarts(gateway) == restarts + 1
