"""Jobs on docker-compose.yml: they outlive the containers of the worker and of the gateway, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import telegrad as tg
from telegrad.errors import TelegradError

from tests.cluster.compose.deployment import Deployment, until
from tests.cluster.test_jobs import SEED, assert_ends_as_by_hand, details, reach, submitted
from tests.loops.training import PER_EPOCH

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

EPOCHS = 1500


@pytest.fixture
def unhurt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tg.Session]:
    """An embedded session, for the loop by hand."""
    monkeypatch.setenv("TELEGRAD_DATA_DIR", str(tmp_path / "embedded"))
    with tg.connect(backend="numpy", seed=SEED, new=True) as session:
        yield session


def test_a_job_outlives_the_containers_of_its_worker_and_of_the_gateway(whole: Deployment, unhurt: tg.Session) -> None:
    with whole.connect(seed=SEED) as session:
        reach(submitted(session, "hurt", epochs=EPOCHS, every=100), 200)
    (worker,), (gateway,) = whole.containers("worker"), whole.containers("gateway")

    whole.crash(worker)

    until(whole.is_served, seconds=60)
    with whole.connect(queue_seconds=60) as session:
        job = session.jobs["hurt"]
        until(lambda: job.refresh().restarts == 1 and job.refresh().state == "RUNNING", seconds=60)
        reach(job, job.refresh().step + 100)
        assert job.refresh().live_step < EPOCHS * PER_EPOCH

        whole.crash(gateway)

        assert_ends_as_by_hand(job, unhurt, epochs=EPOCHS)
        assert details(job, "Lost", "why")[0] == "WORKER_LOST"


def test_what_a_job_has_made_is_in_the_gateways_volume(whole: Deployment) -> None:
    with whole.connect(seed=SEED) as session:
        submitted(session, "kept", epochs=2).wait(timeout_seconds=60)

    whole.compose("restart", "gateway")

    def is_there() -> bool:
        try:
            with whole.connect(queue_seconds=60) as session:
                return session.jobs["kept"].checkpoints[-1] == 2 * PER_EPOCH
        except TelegradError:
            return False

    until(is_there, seconds=60)
