"""A gateway that is killed again and again, wherever a seed says, while its worker goes on: nothing is lost or doubled.

The worker outlives its gateway: it says what it has to say to the next one, which may have heard it.
"""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import telegrad as tg
from telegrad.errors import TelegradError

from tests.cluster.conftest import start_worker
from tests.loops.lives import Life
from tests.loops.undisturbed import SEED, Outcome, standing, submitted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS, LIVES = 240, 25
MOST = {
    "job.accept": 4, "journal.before_commit": 4, "journal.after_commit": 4, "job.applied": 4, "checkpoint.begin": 3,
    "checkpoint.shard": 40, "checkpoint.shard_sync": 3, "checkpoint.manifest": 3, "checkpoint.manifest_sync": 3,
    "checkpoint.folder_sync": 3, "checkpoint.rename": 3, "checkpoint.latest": 3, "checkpoint.gc": 2,
    "checkpoint.gc_remove": 4,
}  # fmt: skip
"""How often at most a gateway comes to each place before it ends there: those that it passes while a job runs."""


@pytest.fixture(scope="module")
def undisturbed(alone: Callable[[Callable[[tg.Session], Outcome]], Outcome]) -> Outcome:
    return alone(lambda session: Outcome.of(submitted(session, steps=STEPS)))


@pytest.fixture
def begin() -> Iterator[Callable[[str, str, str], None]]:
    """Start a worker, which is ended with the test."""
    with ExitStack() as stack:

        def begin(inner: str, key: str, name: str) -> None:
            worker = start_worker(inner, key, name)
            stack.callback(worker.communicate)
            stack.callback(worker.kill)

        yield begin


@pytest.mark.parametrize("seed", [1, 2])
def test_a_job_ends_as_if_its_gateway_had_never_died(
    tmp_path: Path, undisturbed: Outcome, begin: Callable[[str, str, str], None], seed: int
) -> None:
    rng = random.Random(seed)
    folder, key = tmp_path / "served", tmp_path / "key"
    key.write_text("5a" * 32)
    inner = _free_port()
    options = ("--role", "gateway", "--cluster-port", str(inner), "--cluster-key-file", str(key))
    gateway = Life(folder, *options, failpoints="job.accept=kill:5")
    begin(f"127.0.0.1:{inner}", str(key), "one")
    with suppress(TelegradError), tg.connect(gateway.address, seed=SEED, new=True, queue_seconds=60) as session:
        submitted(session, steps=STEPS)
    assert gateway.ended() == -signal.SIGKILL
    deaths = ["job.accept=kill:5"]

    while len(deaths) < LIVES:
        place = rng.choice(list(MOST))
        deaths.append(f"{place}=kill:{rng.randint(1, MOST[place])}")
        gateway = Life(folder, *options, failpoints=deaths[-1], port=gateway.port)
        assert gateway.ended() == -signal.SIGKILL, (seed, deaths)
        assert standing(folder, undisturbed) is not None, (seed, deaths)

    gateway = Life(folder, *options, port=gateway.port)
    with tg.connect(gateway.address, new=True, queue_seconds=60) as session:
        (job,) = session.jobs.list()
        begun = job.refresh().step
        undisturbed.assert_equal(Outcome.of(job))
        assert job.refresh().restarts == 0  # the worker had it all the time
    print(f"seed {seed}: {len(deaths)} deaths of the gateway, the last at step {begun}")
    assert gateway.stop() == 0
    standing(folder, undisturbed)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
