"""Jobs in a cluster on more data than a worker may hold: its blocks come from the gateway as they are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import telegrad as tg
from telegrad.jobs import Job

from tests.cluster import test_jobs as jobs
from tests.cluster.test_jobs import SEED, Cluster, kinds
from tests.datasets.parquets import held_bytes
from tests.loops.on_blocks import Files, by_hand, submitted, written
from tests.loops.training import assert_equal_state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
unhurt = jobs.unhurt


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return written(tmp_path)


@pytest.fixture
def cluster(tmp_path: Path, files: Files) -> Iterator[Cluster]:
    """One whose gateway has the files, and may hold as little of them as a worker."""
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack, *files.options)


def started(cluster: Cluster, files: Files, name: str, folder: Path) -> Path:
    """A worker that may hold little, and its cache."""
    cache = folder / f"cache-{name}"
    cluster.start(name, "--cache-dir", str(cache), "--cache-bytes", str(files.layout.shuffling_bytes))
    return cache


def assert_ends_as_by_hand(job: Job, unhurt: tg.Session, files: Files, *, steps: int, replicas: int = 1) -> None:
    job.wait(timeout_seconds=120)
    history, state = job.history, job.state_dict()
    with unhurt.active():
        model, losses = by_hand(files, steps=steps, seed=SEED, replicas=replicas)
        assert history["loss"]["value"].tolist() == losses
        assert_equal_state(model, state)


def test_a_job_whose_worker_is_killed_reads_on_at_another_one(
    cluster: Cluster, files: Files, unhurt: tg.Session, tmp_path: Path
) -> None:
    steps = files.steps_per_epoch + 60
    caches = [started(cluster, files, "one", tmp_path)]
    with cluster.session() as session:
        job = submitted(session, steps=steps, every=20)
    caches.append(started(cluster, files, "two", tmp_path))
    with cluster.session("two") as session:
        job, peak = session.jobs["hurt"], 0
        for event in job.events():
            peak = max(peak, *map(held_bytes, caches))
            if getattr(event, "step", 0) >= 60:
                break
        assert job.refresh().worker == "one"
        cluster.workers["one"].kill()
        for _ in job.events():
            peak = max(peak, *map(held_bytes, caches))

        assert_ends_as_by_hand(job, unhurt, files, steps=steps)
        assert kinds(job) == ["Submitted", "Assigned", "Started", "Lost", "Assigned", "Started", "Succeeded"]
    gateways = held_bytes(tmp_path / "data" / "datasets" / "registered" / "blocks")
    assert 0 < max(peak, gateways) <= files.layout.shuffling_bytes


@pytest.mark.parametrize("workers", [1, 2])
def test_replicas_get_their_rows(
    cluster: Cluster, files: Files, unhurt: tg.Session, tmp_path: Path, workers: int
) -> None:
    steps = files.steps_per_epoch + 5
    for name in ("one", "two")[:workers]:
        started(cluster, files, name, tmp_path)
    with cluster.session() as session:
        job = submitted(session, steps=steps, replicas=2, every=1000)

        assert_ends_as_by_hand(job, unhurt, files, steps=steps, replicas=2)


def test_a_gateway_that_is_started_anew_goes_on_giving_blocks(
    cluster: Cluster, files: Files, unhurt: tg.Session, tmp_path: Path
) -> None:
    steps = files.steps_per_epoch + 60
    started(cluster, files, "one", tmp_path)
    with cluster.session() as session:
        jobs.reach(submitted(session, steps=steps, every=20), 40)

    cluster.restart_gateway()

    with cluster.session() as session:
        job = session.jobs["hurt"]
        assert_ends_as_by_hand(job, unhurt, files, steps=steps)
        assert kinds(job) == ["Submitted", "Assigned", "Started", "Succeeded"]
