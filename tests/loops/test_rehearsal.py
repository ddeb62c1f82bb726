"""What a checkpoint needs of memory is there before the first one: it holds up no step."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import pytest
import telegrad as tg
from telegrad_server.executors import recycle
from telegrad_server.executors.recycle import aligned_bytes

from tests.loops.training import BATCH, made, points

WIDTH = 4096
WEIGHT = 8 * WIDTH * 4
"""Bytes of the first layer's weight and of each of its two moments: three results of a step that are recycled."""


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of blocks made from here on."""
    sizes: list[int] = []

    def noted(nbytes: int) -> npt.NDArray[Any]:
        sizes.append(nbytes)
        return aligned_bytes(nbytes)

    monkeypatch.setattr(recycle, "aligned_bytes", noted)
    return sizes


@pytest.fixture
def session(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TELEGRAD_DATA_DIR", str(tmp_path_factory.mktemp("embedded")))
    with tg.connect(backend="numpy", new=True) as session:
        yield session


def test_the_third_version_is_made_before_a_checkpoint_wants_it(session: tg.Session, blocks: list[int]) -> None:
    step = made(WIDTH).step
    session.synchronize()
    blocks.clear()

    job = session.submit(step, data=points(), steps=30, batch_size=BATCH, drop_last=True, checkpoint_every=1000)
    job.wait(timeout_seconds=60)

    assert job.checkpoints == [0, 30]
    loaded = 3  # from checkpoint 0
    assert blocks.count(WEIGHT) == 3 * 3 + loaded


def test_a_job_shorter_than_the_rehearsal_ends_as_it_should(session: tg.Session) -> None:
    for steps in (1, 2, 3, 6):
        job = session.submit(made().step, data=points(), steps=steps, batch_size=BATCH, checkpoint_every=3)

        assert job.wait(timeout_seconds=60).checkpoints[-1] == steps
