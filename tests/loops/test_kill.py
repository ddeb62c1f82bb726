"""A server that is killed while it trains goes on from the last checkpoint, to the bits of one that was left alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import telegrad as tg
from tests.faults import conftest as faults
from tests.faults.conftest import Server
from tests.loops.training import BATCH, PER_EPOCH, assert_equal_state, by_hand, made, points

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
        assert np.isfinite(history["epoch/loss"]["value"]).all() and len(history["epoch/loss"]["step"]) == EPOCHS
