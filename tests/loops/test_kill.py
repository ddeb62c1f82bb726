"""A server that is killed while it trains goes on from the last checkpoint, to the bits of one that was left alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import telegrad as tg
from telegrad_server.checkpoints import CheckpointStore, Draft, Folders

from tests.faults import conftest as faults
from tests.faults.conftest import Server
from tests.loops.training import BATCH, PER_EPOCH, ROWS, assert_equal_state, by_hand, made, points

pytestmark = pytest.mark.slow
start = faults.start

EPOCHS, SEED = 200, 11


@pytest.fixture
def unhurt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tg.Session]:
    monkeypatch.setenv("TELEGRAD_DATA_DIR", str(tmp_path / "embedded"))
    with tg.connect(backend="numpy", seed=SEED, new=True) as session:
        yield session


def test_a_killed_server_goes_on_with_the_same_bits_while_the_client_is_gone(
    start: Callable[..., Server], tmp_path: Path, unhurt: tg.Session
) -> None:
    options = ("--data-dir", str(tmp_path / "served"))
    server = start(*options)
    with tg.connect(server.address, seed=SEED, new=True) as session:
        job = session.submit(
            made().step, data=points(), epochs=EPOCHS, batch_size=BATCH, checkpoint_every=7, name="hurt"
        )
        assert job.checkpoints
    rng, kills = random.Random(SEED), 0

    for _ in range(4):
        with tg.connect(server.address, new=True) as session:
            job = session.jobs["hurt"]
            begun = job.refresh().step
            for row in job.events():
                if getattr(row, "step", 0) > begun + rng.randrange(7, 120):
                    break
            has_ended = job.refresh().has_ended
        if has_ended:
            break
        server.kill()
        kills += 1
        server = start(*options, port=server.port)

    with tg.connect(server.address, new=True) as session:
        job = session.jobs["hurt"].wait(timeout_seconds=60)
        state, history, restarts = job.state_dict(), job.history, job.refresh().restarts
    with unhurt.active():
        model, _, step, _ = made()
        losses = by_hand(step, points(), steps=EPOCHS * PER_EPOCH, seed=SEED)
        assert kills >= 2 and restarts == kills
        assert_equal_state(model, state)
        assert history["loss"]["value"].tolist() == losses
        assert history["loss"]["step"].tolist() == list(range(1, EPOCHS * PER_EPOCH + 1))
        assert history["epoch/loss"]["value"].tolist() == [mean_of(losses, epoch) for epoch in range(EPOCHS)]


def mean_of(losses: list[float], epoch: int) -> float:
    """The mean of an epoch's losses, each for as many rows as its batch had, added in order."""
    total = 0.0
    for number, loss in enumerate(losses[epoch * PER_EPOCH : (epoch + 1) * PER_EPOCH]):
        total += loss * min(BATCH, ROWS - number * BATCH)
    return total / ROWS


def test_a_checkpoint_that_the_journal_does_not_know_is_not_gone_on_from(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    """As after a kill between a checkpoint and its event: the metrics of its steps were never written."""
    options = ("--data-dir", str(tmp_path / "served"))
    server = start(*options)
    with tg.connect(server.address, seed=SEED, new=True) as session:
        job = session.submit(made().step, data=points(), steps=800, batch_size=BATCH, checkpoint_every=40, name="gap")
        job.pause()
        for event in job.events():
            if getattr(event, "kind", "") in ("Paused", "Succeeded"):
                break
        stands = job.refresh()
        assert not stands.has_ended
    server.kill()
    store = CheckpointStore(Folders(tmp_path / "served" / "checkpoints"))
    manifest, tensors = store.latest(stands.id).manifest, store.latest(stands.id).tensors
    ahead = {f.name: getattr(manifest, f.name) for f in fields(Draft)} | {"step": manifest.step + 1}
    store.write(Draft(**ahead), tensors)

    server = start(*options)

    with tg.connect(server.address, new=True) as session:
        job = session.jobs["gap"].resume().wait(timeout_seconds=60)
        assert job.history["loss"]["step"].tolist() == list(range(1, 801))
