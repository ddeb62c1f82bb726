"""What a job makes of the ways in which its server may end and begin: stopped, poisoned, another, without room."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import JobFailed
from telegrad.jobs import Job
from telegrad.wire.jobs import JobEvent
from telegrad_server.executors.compiling import found_compiler

from tests.faults.conftest import wait_until
from tests.loops.lives import Life
from tests.loops.training import BATCH, made, points
from tests.loops.undisturbed import SEED, Outcome, standing, submitted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def happened(job: Job, kind: str) -> list[JobEvent]:
    """The job's events of a kind so far."""
    calls = job._calls.watch(job.id)
    news = next(iter(calls))
    return [event for event in news.events if event.kind == kind]


def until(job: Job, *kinds: str) -> None:
    """Wait for an event of these kinds."""
    for event in job.events():
        if getattr(event, "kind", "") in kinds:
            return


def test_a_server_that_is_stopped_lets_its_jobs_come_to_a_checkpoint(
    tmp_path: Path, alone: Callable[[Callable[[tg.Session], Outcome]], Outcome]
) -> None:
    steps = 1000

    def submit(session: tg.Session) -> Job:
        with session.active():
            return session.submit(
                made().step, data=points(), steps=steps, batch_size=BATCH, checkpoint_every=steps, name="long"
            )

    undisturbed = alone(lambda session: Outcome.of(submit(session)))
    folder = tmp_path / "served"
    life = Life(folder, "--job-grace-seconds", "60")
    with tg.connect(life.address, seed=SEED, new=True) as session:
        job = submit(session)
        wait_until(lambda: job.refresh().live_step >= 20, seconds=60)
    assert life.stop() == 0
    stands = standing(folder, undisturbed)
    assert stands is not None
    assert 20 <= stands.step < steps  # no checkpoint was due

    life = Life(folder)

    with tg.connect(life.address, new=True) as session:
        job = session.jobs["long"]
        undisturbed.assert_equal(Outcome.of(job))
        started = [int(event.details["step"]) for event in happened(job, "Started") if event.details.get("step")]
        assert started[-1] == stands.step
        assert job.refresh().restarts == 0  # nobody was lost
    life.kill()


def test_a_step_that_takes_the_server_down_ends_its_job_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    life = Life(folder, failpoints="job.step=kill:7")
    with tg.connect(life.address, seed=SEED, new=True, lease_seconds=2) as session:
        submitted(session, steps=14)
        assert life.ended() == -signal.SIGKILL
        session.close(check=False)
    for _ in range(4):
        assert Life(folder, failpoints="job.step=kill:1").ended() == -signal.SIGKILL

    life = Life(folder)

    with tg.connect(life.address, seed=SEED, new=True) as session:
        job = session.jobs["hurt"]
        with pytest.raises(JobFailed, match="CRASH_LOOP") as caught:
            job.wait(timeout_seconds=60)
        assert "workers were lost in a row" in str(caught.value)
        kept = job.refresh().step
        assert kept > 0 and kept in job.checkpoints
        assert job.state_dict(kept)
        other = session.submit(made().step, data=points(), steps=4, batch_size=BATCH, name="other")
        other.wait(timeout_seconds=60)
    life.kill()


def test_a_server_that_is_full_of_sessions_lets_a_job_wait_until_there_is_a_place(tmp_path: Path) -> None:
    life = Life(tmp_path / "served", "--max-sessions", "2")
    with tg.connect(life.address, seed=SEED, new=True) as session:
        other = tg.connect(life.address, new=True)
        job = submitted(session, steps=4)
        wait_until(lambda: len(happened(job, "Lost")) >= 2, seconds=60)
        waiting = job.refresh()
        assert (waiting.state, waiting.reason) == ("QUEUED", "WORKER_FULL")
        assert "2 sessions are open, which is the limit" in waiting.message
        other.close()

        assert job.wait(timeout_seconds=60).refresh().restarts == 0
    assert life.stop() == 0


@pytest.fixture
def threads(start: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Start a server whose sums are made by so many threads: it has other bits, and says so."""

    def with_threads(number: int, *options: str) -> object:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            monkeypatch.setenv(name, str(number))
        return start(*options)

    return with_threads


@pytest.mark.skipif(found_compiler() is None, reason="there is no C compiler")
@pytest.mark.parametrize("strict", [False, True])
def test_a_job_knows_a_machine_without_a_compiler(
    start: Callable[..., object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strict: bool
) -> None:
    """NumPy has other bits than kernels: the job goes on and says so, or waits for a machine with the compiler."""
    options = ("--data-dir", str(tmp_path / "served"), "--native-kernels", "auto")
    first = start(*options, "--testing", "on", "--failpoints", "job.step=kill:9")
    with tg.connect(first.address, seed=SEED, new=True, lease_seconds=2) as session:  # type: ignore[attr-defined]
        with session.active():
            session.submit(
                made().step, data=points(), steps=12, batch_size=BATCH, checkpoint_every=2, name="bits", strict=strict
            )
        assert first._wait() == -signal.SIGKILL  # type: ignore[attr-defined]
        session.close(check=False)

    monkeypatch.setenv("PATH", "/nonexistent")
    second = start(*options)

    with tg.connect(second.address, new=True) as session:  # type: ignore[attr-defined]
        assert "kernels none" in session.fingerprint
        job = session.jobs["bits"]
        if strict:
            wait_until(lambda: "strict" in job.reason, seconds=30)
            assert job.state == "QUEUED"
        else:
            job.wait(timeout_seconds=60)
            (changed,) = happened(job, "NumericsChanged")
            assert "kernels none" in str(changed.details)


@pytest.mark.parametrize("strict", [False, True])
def test_a_server_of_another_fingerprint_is_an_event_or_is_refused(
    threads: Callable[..., object], tmp_path: Path, strict: bool
) -> None:
    options = ("--data-dir", str(tmp_path / "served"))
    first = threads(1, *options, "--testing", "on", "--failpoints", "job.step=kill:9")
    with tg.connect(first.address, seed=SEED, new=True, lease_seconds=2) as session:  # type: ignore[attr-defined]
        with session.active():
            session.submit(
                made().step, data=points(), steps=12, batch_size=BATCH, checkpoint_every=2, name="bits", strict=strict
            )
        assert first._wait() == -signal.SIGKILL  # type: ignore[attr-defined]
        session.close(check=False)

    second = threads(2, *options)
    with tg.connect(second.address, new=True) as session:  # type: ignore[attr-defined]
        job = session.jobs["bits"]
        if not strict:
            job.wait(timeout_seconds=60)
            (changed,) = happened(job, "NumericsChanged")
            assert "threads 1" in str(changed.details) and "threads 2" in str(changed.details)
            return
        wait_until(lambda: "strict" in job.reason, seconds=30)
        assert job.state == "QUEUED"
        assert happened(job, "NumericsChanged") == []
    second.kill()  # type: ignore[attr-defined]
    third = threads(1, *options)

    with tg.connect(third.address, new=True) as session:  # type: ignore[attr-defined]
        session.jobs["bits"].wait(timeout_seconds=60)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MiB; 64 of them are what datasets leave free."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_job_on_a_full_disk_pauses_and_goes_on_by_itself_with_the_same_bits(
    small_disk: Path, alone: Callable[[Callable[[tg.Session], Outcome]], Outcome]
) -> None:
    steps = 2000

    def submit(session: tg.Session) -> Job:
        with session.active():
            return session.submit(
                made(256).step, data=points(), steps=steps, batch_size=BATCH, checkpoint_every=50, name="full"
            )

    undisturbed = alone(lambda session: Outcome.of(submit(session)))
    life = Life(small_disk / "served")
    with tg.connect(life.address, seed=SEED, new=True) as session:
        job = submit(session)
        wait_until(lambda: job.refresh().step > 0, seconds=60)
        with (small_disk / "filler").open("wb", buffering=0) as filler:
            fill(filler.fileno())
            wait_until(lambda: job.refresh().reason == "STORAGE_FULL", seconds=60)
        assert job.state == "PAUSED"

        (small_disk / "filler").unlink()

        undisturbed.assert_equal(Outcome.of(job))
        assert happened(job, "StorageBack")
    life.kill()


def fill(descriptor: int) -> None:
    """Write until nothing more can be written."""
    for size in (1 << 16, 1):
        try:
            while os.write(descriptor, bytes(size)):
                pass
        except OSError:
            continue


def test_a_model_larger_than_any_message_is_submitted(tmp_path: Path) -> None:
    """200 MB of state against 64 MiB a message: checkpoint 0 is what the session holds on the server already."""
    life = Life(tmp_path / "served")
    with tg.connect(life.address, new=True) as session:
        w = tg.Variable(np.ones((50_000_000,), np.float32), name="w")

        def step(x: tg.Tensor) -> tg.Tensor:
            w.assign(w + x.mean())
            return x.mean()

        job = session.submit(step, data={"x": np.ones((2, 1), np.float32)}, steps=1, batch_size=2)
        job.wait(timeout_seconds=120)
        assert job.state_dict()["w"][-1] == 2.0
    life.kill()
