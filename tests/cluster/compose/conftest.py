"""One deployment for all tests of this folder: to bring it up takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.compose.deployment import Deployment


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """docker-compose.yml, up with one worker. What its containers say is shown if a test fails."""
    deployment = Deployment(tmp_path_factory.mktemp("client"))
    try:
        deployment.up()
        yield deployment
        print(deployment.compose("logs", "--no-color", "--tail", "60"))
    finally:
        deployment.down()


@pytest.fixture
def whole(cluster: Deployment) -> Deployment:
    """The cluster with everything healthy and one worker, whatever the test before has done."""
    cluster.compose("up", "--detach", "--no-build", "--wait")
    return cluster
