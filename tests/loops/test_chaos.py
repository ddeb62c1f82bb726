"""A server that is killed again and again, wherever a seed says: after each death what was promised is there.

The places come from the seed and not from a clock, so a death that breaks a promise comes again in the next run.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import telegrad as tg
from telegrad.errors import TelegradError
from telegrad.jobs import Job

from tests.loops.lives import Life
from tests.loops.undisturbed import SEED, Outcome, standing, submitted, submitted_in_replicas

pytestmark = pytest.mark.slow

STEPS, LIVES = 260, 26
MOST = {
    "job.accept": 9, "journal.before_commit": 9, "journal.after_commit": 9, "job.applied": 9, "job.assign": 1,
    "checkpoint.begin": 5, "checkpoint.shard": 80, "checkpoint.shard_sync": 5, "checkpoint.manifest": 5,
    "checkpoint.manifest_sync": 5, "checkpoint.folder_sync": 5, "checkpoint.rename": 5, "checkpoint.latest": 5,
    "checkpoint.gc": 4, "checkpoint.gc_remove": 8, "checkpoint.restore": 1, "job.step": 15, "job.covered": 5,
}  # fmt: skip
"""How often at most a life comes to each place before it ends there."""
ENOUGH_LOSSES = 3
"""After so many deaths without a new checkpoint a life gets further: five would end the job, as they should."""

Submit = Callable[..., Job]


@pytest.fixture(scope="module", params=[submitted, submitted_in_replicas], ids=["alone", "replicas"])
def job(
    request: pytest.FixtureRequest, alone: Callable[[Callable[[tg.Session], Outcome]], Outcome]
) -> tuple[Submit, Outcome]:
    return request.param, alone(lambda session: Outcome.of(request.param(session, steps=STEPS)))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_job_ends_as_if_its_server_had_never_died(tmp_path: Path, job: tuple[Submit, Outcome], seed: int) -> None:
    submit, undisturbed = job
    rng = random.Random(seed)
    folder = tmp_path / "served"
    life = Life(folder, failpoints="job.covered=kill:2")
    with suppress(TelegradError), tg.connect(life.address, seed=SEED, new=True, lease_seconds=2) as session:
        submit(session, steps=STEPS)
    assert life.ended() == -signal.SIGKILL

    deaths, losses = ["job.covered=kill:2"], 0
    while len(deaths) < LIVES:
        place = "job.covered" if losses >= ENOUGH_LOSSES else rng.choice(list(MOST))
        count = 2 if losses >= ENOUGH_LOSSES else rng.randint(1, MOST[place])
        life = Life(folder, failpoints=f"{place}=kill:{count}")
        deaths.append(f"{place}=kill:{count}")
        assert life.ended() == -signal.SIGKILL, (seed, deaths)
        stands = standing(folder, undisturbed)
        assert stands is not None, (seed, deaths)
        losses = stands.losses + stands.is_placed

    life = Life(folder)
    with tg.connect(life.address, new=True) as session:
        (found,) = session.jobs.list()
        begun = found.refresh().step
        undisturbed.assert_equal(Outcome.of(found))
        restarts = found.refresh().restarts
    print(f"seed {seed}: {len(deaths)} deaths, {restarts} of them while a worker had the job, the last at step {begun}")
    assert life.stop() == 0
    standing(folder, undisturbed)
