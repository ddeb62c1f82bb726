"""Jobs in a cluster: the gateway keeps them, workers run them, and whoever is killed, they end with the same bits."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import QuotaExceeded
from telegrad.jobs import Job
from telegrad.wire.jobs import JobEvent

from tests.cluster.conftest import Running, gateway, start_worker, wait_for
from tests.faults.conftest import wait_until
from tests.loops.training import BATCH, PER_EPOCH, assert_equal_state, by_hand, made, points

pytestmark = pytest.mark.slow  # members in processes of their own

SEED, EPOCHS, LONG = 11, 200, 1500
LEASE = ("--worker-lease-seconds", "3")


@pytest.fixture
def unhurt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tg.Session]:
    """An embedded session, for the loop by hand."""
    monkeypatch.setenv("TELEGRAD_DATA_DIR", str(tmp_path / "embedded"))
    with tg.connect(backend="numpy", seed=SEED, new=True) as session:
        yield session


class Cluster:
    """A gateway and workers that join it by themselves, each of which may be killed and started anew."""

    def __init__(self, folder: Path, stack: ExitStack, *options: str) -> None:
        self._folder, self._options = folder, options
        self._stack = stack
        self._key = folder / "key"
        self._key.write_text("5a" * 32)
        self.workers: dict[str, subprocess.Popen[str]] = {}
        self.gateway = self._start_gateway("0", "0")

    def _start_gateway(self, port: str, inner: str) -> Running:
        options = ("--cluster-key-file", str(self._key), "--data-dir", str(self._folder / "data"), *LEASE)
        options += self._options
        return self._stack.enter_context(gateway(*options, port=port, inner=inner))

    def restart_gateway(self, *, away_seconds: float = 0.0) -> None:
        """Kill it and start it anew, at the same addresses."""
        self.gateway.process.kill()
        self.gateway.process.wait()
        time.sleep(away_seconds)
        ports = [text.rpartition(":")[2] for text in (self.gateway.address, self.gateway.inner)]
        self.gateway = self._start_gateway(*ports)

    def start(self, name: str, *options: str) -> subprocess.Popen[str]:
        """A worker."""
        process = start_worker(self.gateway.inner, str(self._key), name, *options)
        self._stack.callback(_end, process)
        self.workers[name] = process
        wait_until(lambda: self._has(name), seconds=60)
        return process

    def _has(self, name: str) -> bool:
        """Whether a worker has joined."""
        try:
            tg.connect(self.gateway.address, worker=name, queue_seconds=60, new=True).close()
        except QuotaExceeded:
            return False
        return True

    def session(self, worker: str = "") -> tg.Session:
        """A session, anywhere or on a worker."""
        return tg.connect(self.gateway.address, seed=SEED, worker=worker, queue_seconds=60, new=True)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=30)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One with no worker yet."""
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


def submitted(session: tg.Session, name: str, *, epochs: int = EPOCHS, every: int = 7, worker: str = "") -> Job:
    how: dict[str, Any] = {"epochs": epochs, "batch_size": BATCH, "checkpoint_every": every, "worker": worker}
    return session.submit(made().step, data=points(), name=name, **how)


def reach(job: Job, step: int) -> None:
    """Wait until a checkpoint covers a step."""
    for row in job.events():
        if getattr(row, "step", 0) >= step:
            return
    raise AssertionError(f"the job ended before step {step}: {job.refresh()}")


def kinds(job: Job) -> list[str]:
    """What has happened to it, without metrics and checkpoints."""
    found = [getattr(event, "kind", "") for event in job.events()]
    return [kind for kind in found if kind not in ("", "Progressed")]


def details(job: Job, kind: str, name: str) -> list[str]:
    """What its events of a kind say."""
    return [e.details[name] for e in job.events() if isinstance(e, JobEvent) and e.kind == kind]


def assert_ends_as_by_hand(job: Job, unhurt: tg.Session, *, epochs: int = EPOCHS) -> None:
    job.wait(timeout_seconds=120)
    state, history = job.state_dict(), job.history
    with unhurt.active():
        model, _, step, _ = made()
        losses = by_hand(step, points(), steps=epochs * PER_EPOCH, seed=SEED)
        assert_equal_state(model, state)
    assert history["loss"]["value"].tolist() == losses
    assert history["loss"]["step"].tolist() == list(range(1, epochs * PER_EPOCH + 1))


def test_a_job_behind_a_gateway_has_the_bits_of_the_loop_by_hand(tmp_path: Path, unhurt: tg.Session) -> None:
    with gateway("--workers", "1", "--data-dir", str(tmp_path / "data")) as running:
        wait_for(running, 1)
        with tg.connect(running.address, seed=SEED, new=True) as session:
            large = session.submit(made(width=512).step, data=points(), epochs=2, batch_size=BATCH, name="large")
            assert large.wait(timeout_seconds=60).checkpoints[-1] == 2 * PER_EPOCH  # a checkpoint 0 behind tickets
        with tg.connect(running.address, seed=SEED, new=True) as session:
            job = submitted(session, "first", epochs=5)
            assert_ends_as_by_hand(job, unhurt, epochs=5)
            assert kinds(job) == ["Submitted", "Assigned", "Started", "Succeeded"]
            assert job.checkpoints[-1] == 5 * PER_EPOCH


def test_a_job_behind_a_gateway_is_forked_rewound_and_looked_into(tmp_path: Path, unhurt: tg.Session) -> None:
    with gateway("--workers", "1", "--data-dir", str(tmp_path / "data")) as running:
        wait_for(running, 1)
        with tg.connect(running.address, seed=SEED, new=True) as session:
            job = submitted(session, "first", epochs=5)
            assert_ends_as_by_hand(job, unhurt, epochs=5)
            losses, weight = job.history["loss"]["value"].tolist(), job.state_dict()["model.0.weight"]
            fork = job.fork(at_step=14, name="second").wait(timeout_seconds=60)
            assert fork.history["loss"]["value"].tolist() == losses[14:]
            job.rewind(14)
            assert job.wait(timeout_seconds=60).history["loss"]["value"].tolist() == losses
            assert (job.state_dict()["model.0.weight"] == weight).all()
            assert (fork.state_dict()["model.0.weight"] == weight).all()
            w = tg.Variable(3.0, name="w")

            def step(x: tg.Tensor) -> tg.Tensor:
                w.assign(w - 1.0)
                return tg.log(w * (x * x).sum()).mean()

            with pytest.raises(tg.errors.JobFailed, match=r"from log\(float32\[\]\) at .*test_jobs\.py"):
                session.submit(step, data=points(), steps=6, batch_size=BATCH).wait(timeout_seconds=60)


def test_a_killed_workers_job_goes_on_at_another_one(cluster: Cluster, unhurt: tg.Session) -> None:
    cluster.start("one")
    with cluster.session() as session:
        job = submitted(session, "hurt")
    cluster.start("two")
    with cluster.session("two") as session:
        job = session.jobs["hurt"]
        reach(job, 20)
        assert job.refresh().worker == "one"
        cluster.workers["one"].kill()

        assert_ends_as_by_hand(job, unhurt)
        assert job.refresh().restarts == 1
        assert kinds(job) == ["Submitted", "Assigned", "Started", "Lost", "Assigned", "Started", "Succeeded"]


@pytest.mark.parametrize("away_seconds", [0.0, 5.0], ids=["within the lease", "for longer"])
def test_loops_go_on_when_the_gateway_is_started_anew(
    cluster: Cluster, unhurt: tg.Session, away_seconds: float
) -> None:
    cluster.start("one")
    with cluster.session() as session:
        reach(submitted(session, "hurt"), 20)

    cluster.restart_gateway(away_seconds=away_seconds)

    with cluster.session() as session:
        job = session.jobs["hurt"]
        assert_ends_as_by_hand(job, unhurt)
        assert kinds(job) == ["Submitted", "Assigned", "Started", "Succeeded"]


def test_workers_that_the_gateway_makes_are_replaced_and_end_with_it(tmp_path: Path, unhurt: tg.Session) -> None:
    options = ("--workers", "1", "--data-dir", str(tmp_path / "data"))
    with gateway(*options) as running:
        wait_for(running, 1)
        with tg.connect(running.address, seed=SEED, new=True) as session:
            job = submitted(session, "hurt", epochs=LONG, every=20)
            reach(job, 20)
            running.worker("worker-1").kill()
            for event in job.events():
                if isinstance(event, JobEvent) and event.kind == "Started" and event.details.get("assignment") == "2":
                    break
    with (
        gateway(*options) as running,
        tg.connect(running.address, seed=SEED, queue_seconds=60, new=True) as session,
    ):
        job = session.jobs["hurt"]
        assert_ends_as_by_hand(job, unhurt, epochs=LONG)
        assert details(job, "Lost", "why") == ["WORKER_LOST", "DRAINED"]


def test_a_new_worker_of_the_same_name_has_not_the_jobs_of_the_one_before(tmp_path: Path, unhurt: tg.Session) -> None:
    options = ("--workers", "1", "--data-dir", str(tmp_path / "data"))
    with gateway(*options) as running:
        wait_for(running, 1)
        with tg.connect(running.address, seed=SEED, new=True) as session:
            reach(submitted(session, "hurt"), 20)
        running.process.kill()  # its workers end with it
    with (
        gateway(*options) as running,
        tg.connect(running.address, seed=SEED, queue_seconds=60, new=True) as session,
    ):
        job = session.jobs["hurt"]
        assert_ends_as_by_hand(job, unhurt)
        assert details(job, "Assigned", "worker") == ["worker-1", "worker-1"]
        assert details(job, "Lost", "why") == ["WORKER_LOST"]


def test_gateway_and_workers_are_killed_and_the_job_ends_all_the_same(cluster: Cluster, unhurt: tg.Session) -> None:
    cluster.start("one")
    with cluster.session() as session:
        reach(submitted(session, "hurt"), 20)
    cluster.workers["one"].kill()
    cluster.restart_gateway()
    cluster.start("two")

    with cluster.session() as session:
        job = session.jobs["hurt"]
        assert_ends_as_by_hand(job, unhurt)
        assert kinds(job) == ["Submitted", "Assigned", "Started", "Lost", "Assigned", "Started", "Succeeded"]


def test_a_worker_that_stood_still_changes_nothing_when_it_comes_back(cluster: Cluster, unhurt: tg.Session) -> None:
    cluster.start("one")
    with cluster.session() as session:
        job = submitted(session, "hurt")
    cluster.start("two")
    with cluster.session("two") as session:
        job = session.jobs["hurt"]
        reach(job, 20)
        zombie = cluster.workers["one"]
        zombie.send_signal(signal.SIGSTOP)
        for event in job.events():
            if getattr(event, "kind", "") == "Lost":
                break
        zombie.send_signal(signal.SIGCONT)

        assert_ends_as_by_hand(job, unhurt)
        assert zombie.wait(timeout=30) == 75  # given up
        assert kinds(job).count("Lost") == 1


def test_a_worker_that_is_drained_hands_its_job_over_at_a_checkpoint(cluster: Cluster, unhurt: tg.Session) -> None:
    cluster.start("one", "--drain-seconds", "60")
    with cluster.session() as session:
        job = submitted(session, "hurt", epochs=LONG, every=100_000)  # no checkpoint but those that are asked for
    cluster.start("two")
    with cluster.session("two") as session:
        job = session.jobs["hurt"]
        while job.refresh().live_step < 20:
            pass
        cluster.workers["one"].terminate()

        assert_ends_as_by_hand(job, unhurt, epochs=LONG)
        assert cluster.workers["one"].wait(timeout=30) == 0
        assert details(job, "Lost", "why") == ["DRAINED"]
        first, second = details(job, "Started", "step")
        assert first == "0" and int(second) >= 20


def test_two_workers_run_two_jobs_and_a_third_says_why_it_waits(cluster: Cluster) -> None:
    cluster.start("one")
    cluster.start("two")
    with cluster.session() as session:
        first, second, third = (submitted(session, f"job-{i}", epochs=100_000, every=200) for i in range(3))
        for job in (first, second):
            reach(job, 200)
        waiting = third.refresh()

        assert {first.refresh().worker, second.refresh().worker} == {"one", "two"}
        assert (waiting.state, waiting.position) == ("QUEUED", 1)
        assert waiting.message == "all 2 workers have other jobs"
        left = first.refresh().worker
        first.cancel()
        reach(third, 200)
        assert third.refresh().worker == left
        wishing = submitted(session, "wishing", worker="three")
        for job in (second, third):
            job.cancel()
        assert wishing.refresh().message == "none of the 2 workers that are there is named three"
    cluster.start("three")
    with cluster.session() as session:
        job = session.jobs["wishing"]
        job.wait(timeout_seconds=120)
        assert details(job, "Assigned", "worker") == ["three"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_with_replicas_has_the_same_bits_on_one_worker_and_on_several(
    cluster: Cluster, unhurt: tg.Session, workers: int
) -> None:
    with unhurt.active():
        model, step = replicated()
        expected = by_hand(step, points(), steps=5 * PER_EPOCH, seed=SEED)
    for name in ("one", "two")[:workers]:
        cluster.start(name)
    with cluster.session() as session:
        _, step = replicated()
        job = session.submit(step, data=points(), epochs=5, batch_size=BATCH, name="both")

        job.wait(timeout_seconds=60)
        assert job.history["loss"]["value"].tolist() == expected
        assert_equal_state(model, job.state_dict())


def replicated() -> tuple[nn.Module, Callable[..., Any]]:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    @tg.function(replicas=2)
    def step(x: tg.Tensor, y: tg.Tensor) -> Any:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    return model, step


@pytest.mark.ray
def test_workers_that_ray_makes_run_jobs(tmp_path: Path, unhurt: tg.Session) -> None:
    options = ("--ray", "local", "--data-dir", str(tmp_path / "data"), "--cache-dir", str(tmp_path / "cache"))
    with gateway(*options) as running, tg.connect(running.address, seed=SEED, queue_seconds=60, new=True) as session:
        job = submitted(session, "ray")

        assert_ends_as_by_hand(job, unhurt)
        assert any((tmp_path / "cache").iterdir())


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_worker_that_ray_starts_anew_five_times_costs_no_bit(tmp_path: Path, unhurt: tg.Session) -> None:
    options = ("--ray", "local", "--data-dir", str(tmp_path / "data"), *LEASE)
    with gateway(*options) as running, tg.connect(running.address, seed=SEED, queue_seconds=60, new=True) as session:
        job = submitted(session, "hurt", epochs=LONG, every=20)
        for deaths in range(5):
            while (info := job.refresh()).restarts < deaths or info.state != "RUNNING":
                assert not info.has_ended, info
            reach(job, info.step + 40)
            running.worker(job.refresh().worker).kill()

        assert_ends_as_by_hand(job, unhurt, epochs=LONG)
        assert details(job, "Lost", "why") == ["WORKER_LOST"] * 5
