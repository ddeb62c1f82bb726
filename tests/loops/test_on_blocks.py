"""Jobs on more data than their server may hold: to the bits of the loop by hand, however often the server dies."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import telegrad as tg
from telegrad.errors import JobFailed, TelegradError

from tests.checkpoints import s3
from tests.datasets.parquets import WIDTH, held_bytes, write
from tests.faults.conftest import wait_until
from tests.faults.proxy import Proxy
from tests.loops.lives import Life
from tests.loops.on_blocks import BATCH, by_hand, made, submitted, written
from tests.loops.test_chaos import MOST
from tests.loops.training import assert_equal_state
from tests.loops.undisturbed import SEED, Outcome, standing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LIVES = 8
ENOUGH_LOSSES = 3


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_job_on_blocks_ends_as_if_its_server_had_never_died(
    tmp_path: Path, alone: Callable[[Callable[[tg.Session], Any]], Any], replicas: int
) -> None:
    files = written(tmp_path)
    steps = files.steps_per_epoch + 30  # into a second epoch
    life = Life(tmp_path / "quiet", *files.options)
    with tg.connect(life.address, seed=SEED, new=True) as session:
        undisturbed = Outcome.of(submitted(session, steps=steps, replicas=replicas))
    life.kill()

    def look(session: tg.Session) -> None:
        with session.active():
            model, losses = by_hand(files, steps=steps, seed=SEED, replicas=replicas)
            assert undisturbed.history["loss"]["value"].tolist() == losses
            assert_equal_state(model, dict(undisturbed.state))

    alone(look)
    rng, folder = random.Random(SEED), tmp_path / "served"
    life = Life(folder, *files.options, failpoints="job.covered=kill:2")
    with suppress(TelegradError), tg.connect(life.address, seed=SEED, new=True, lease_seconds=2) as session:
        submitted(session, steps=steps, replicas=replicas)
    assert life.ended() == -signal.SIGKILL
    deaths, losses = 1, 0
    while deaths < LIVES:
        place = "job.covered" if losses >= ENOUGH_LOSSES else rng.choice(list(MOST))
        life = Life(folder, *files.options, failpoints=f"{place}=kill:{min(4, MOST[place])}")
        deaths += 1
        assert life.ended() == -signal.SIGKILL, (place, deaths)
        stands = standing(folder, undisturbed)
        assert stands is not None
        losses = stands.losses + stands.is_placed

    life = Life(folder, *files.options)
    with tg.connect(life.address, new=True) as session:
        (job,) = session.jobs.list()
        assert job.refresh().restarts > 1
        undisturbed.assert_equal(Outcome.of(job))
    life.kill()
    assert 0 < held_bytes(folder / "datasets" / "registered" / "blocks") <= files.layout.shuffling_bytes


def test_a_validation_and_no_shuffling(tmp_path: Path) -> None:
    files = written(tmp_path)
    write(tmp_path / "held", files=[(50, 9), (33, 9)])
    roots = f"{files.roots},held={tmp_path}/held/*.parquet"
    life = Life(tmp_path / "served", "--dataset-roots", roots, "--cache-bytes", str(files.layout.shuffling_bytes))
    with tg.connect(life.address, seed=SEED, new=True) as session:
        _, step = made(replicas=1)

        @tg.function
        def evaluate(x: tg.Tensor, y: tg.Tensor) -> dict[str, tg.Tensor]:
            return {"rows": tg.astype(y, tg.float64).mean()}

        job = session.submit(
            step, data=session.datasets["clicks"], epochs=1, batch_size=BATCH, shuffle=False,
            validate=evaluate, validation_data=session.datasets["held"],
        ).wait(timeout_seconds=60)  # fmt: skip

        assert job.history["val/rows"]["value"].tolist() == [41.0]
        assert len(job.history["loss"]["value"]) == files.steps_per_epoch
    life.kill()


def test_a_server_without_room_for_shuffling_fails_the_job_with_a_sentence(tmp_path: Path) -> None:
    files = written(tmp_path)
    life = Life(tmp_path / "served", "--dataset-roots", files.roots, "--cache-bytes", "9000")
    with tg.connect(life.address, seed=SEED, new=True) as session, pytest.raises(JobFailed, match="--cache-bytes"):
        submitted(session, steps=4).wait(timeout_seconds=60)
    life.kill()


def test_a_store_that_is_away_while_its_rows_are_wanted_is_waited_for(tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    write(tmp_path / "clicks", files=[(60, 9), (70, 9)])
    row_bytes = WIDTH * 4 + 8
    kind = f"kind=parquet&shuffle_bytes={10 * row_bytes}"
    roots = f"clicks={tmp_path}/clicks?{kind},far=s3://{s3.BUCKET}/clicks?{kind}"
    options = ("--dataset-roots", roots, "--cache-bytes", str(46 * row_bytes))
    with s3.serving() as endpoint:
        bucket = s3.emptied(endpoint)
        for path in (tmp_path / "clicks").iterdir():
            bucket.upload_file(str(path), f"clicks/{path.name}")
        between = Proxy(int(endpoint.rpartition(":")[2]))
        through = {**s3.environ(f"http://127.0.0.1:{between.port}"), "AWS_MAX_ATTEMPTS": "1"}
        life = Life(tmp_path / "served", *options, environ=through)
        with tg.connect(life.address, seed=SEED, new=True) as session:
            undisturbed = Outcome.of(submitted(session, steps=12))
        with tg.connect(life.address, seed=SEED, new=True) as session:
            job = submitted(session, steps=12, data="far")
            with between.down():
                wait_until(lambda: job.refresh().has_ended or job.state == "PAUSED", seconds=60)
                paused = job.refresh()

            undisturbed.assert_equal(Outcome.of(job))
        life.kill()
        between.close()
    assert (paused.state, paused.reason) == ("PAUSED", "STORAGE_AWAY")
    assert "s3 does not give it" in paused.message
