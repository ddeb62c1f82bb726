"""Each planted bug in what a job goes on from is found by its name: other bits, or other metrics, than left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import telegrad as tg
from telegrad.jobs import Job
from telegrad_server.checkpoints import CheckpointStore, Folders, Latest, Manifest
from telegrad_server.embedded import data_dir, open_foreman

from tests.faults.conftest import wait_until
from tests.loops.training import BATCH, made, points
from tests.loops.undisturbed import SEED, Outcome

pytestmark = pytest.mark.slow

STEPS = 400


class Right(CheckpointStore):
    """A loop goes on from what was saved."""

    def latest(self, job: str) -> Latest:
        found = super().latest(job)
        return replace(found, manifest=self.read_as(found.manifest)) if found.manifest.step else found

    def read_as(self, manifest: Manifest) -> Manifest:
        return manifest


class RandomNumbersFromTheProcess(Right):
    """The count of random calls begins anew with the process that goes on."""

    def read_as(self, manifest: Manifest) -> Manifest:
        return replace(manifest, calls=0)


class CursorOneStepLate(Right):
    """A step that the checkpoint covers is done once more."""

    def read_as(self, manifest: Manifest) -> Manifest:
        return replace(manifest, step=manifest.step - 1)


class SumsForgotten(Right):
    """What an epoch's metrics have come to is not kept."""

    def read_as(self, manifest: Manifest) -> Manifest:
        return replace(manifest, metrics={})


def submit(session: tg.Session) -> Job:
    with session.active():
        return session.submit(
            made().step, data=points(), steps=STEPS, batch_size=BATCH, checkpoint_every=6, name="planted"
        )


@pytest.fixture(scope="module")
def undisturbed(alone: Callable[[Callable[[tg.Session], Outcome]], Outcome]) -> Outcome:
    return alone(lambda session: Outcome.of(submit(session)))


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tg.Session]:
    monkeypatch.setenv("TELEGRAD_DATA_DIR", str(tmp_path / "embedded"))
    with tg.connect(backend="numpy", seed=SEED, new=True) as session:
        yield session


def interrupted(session: tg.Session, store: type[Right]) -> Outcome:
    """What the job comes to if it is paused within an epoch, at a checkpoint that this store gives back."""
    foreman, folder = open_foreman("numpy"), data_dir() / "checkpoints"
    foreman.store = store(Folders(folder))
    job = submit(session)
    wait_until(lambda: job.refresh().live_step > 3, seconds=60)
    while True:
        job.pause()
        wait_until(lambda: job.refresh().state == "PAUSED", seconds=60)
        step = job.refresh().step
        assert step < STEPS, "it was not paused in time"
        job.resume()
        if step % 4:  # not at the end of an epoch, where there are no sums
            job.wait(timeout_seconds=60)
            foreman.store = CheckpointStore(Folders(folder))  # what is read now is what there is
            return Outcome.of(job)
        wait_until(lambda before=step: job.refresh().live_step > before, seconds=60)  # type: ignore[misc]


def test_what_goes_on_from_what_was_saved_has_the_same_bits(session: tg.Session, undisturbed: Outcome) -> None:
    undisturbed.assert_equal(interrupted(session, Right))


@pytest.mark.parametrize(
    ("bug", "wrong"),
    [(RandomNumbersFromTheProcess, "model"), (CursorOneStepLate, "optimizer.0.step"), (SumsForgotten, "epoch/loss")],
)
def test_a_planted_bug_is_found(session: tg.Session, undisturbed: Outcome, bug: type[Right], wrong: str) -> None:
    outcome = interrupted(session, bug)

    with pytest.raises(AssertionError) as caught:
        undisturbed.assert_equal(outcome)
    print(f"{bug.__name__}: {caught.value}")
    assert wrong in str(caught.value)
