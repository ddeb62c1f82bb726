"""A worker that is killed again and again, wherever a seed says, while its gateway goes on: the job ends with its bits.

Each worker is a process of its own, with nothing on its disk that must last but a cache, and is started anew at once.
"""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import telegrad as tg
from telegrad.errors import TelegradError
from telegrad.jobs import Job
from telegrad.transport.beside import open_beside
from telegrad_server.checkpoints import Latest
from telegrad_server.service import vault

from tests.loops.lives import Life
from tests.loops.test_planted import CursorOneStepLate, RandomNumbersFromTheProcess, Right, SumsForgotten
from tests.loops.undisturbed import NAME, SEED, Outcome, standing, submitted, submitted_in_replicas

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS, LIVES = 180, 26
MOST = {"job.step": 15, "job.covered": 5, "away.tell": 5, "away.store": 80, "away.restore": 12}
"""How often at most a worker comes to each place before it ends there."""
ENOUGH_LOSSES = 3
"""After so many deaths without a new checkpoint a worker gets further: five would end the job, as they should."""

Submit = Callable[..., Job]
Plant = Callable[[], None]


class Cluster:
    """A gateway, and the workers that it has one after the other."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder / "served"
        self._key = folder / "key"
        self._key.write_text("5a" * 32)
        self._worker_folder = folder / "worker"
        self._inner = _free_port()
        self._stack = stack
        self.gateway = self._begun(
            Life(self.folder, "--role", "gateway", "--cluster-port", str(self._inner), *self._keys())
        )

    def worker(self, failpoints: str = "", *, plant: Plant | None = None) -> Life:
        """The next one."""
        options = ("--role", "worker", "--name", "one", "--gateway", f"127.0.0.1:{self._inner}", *self._keys())
        cache = ("--cache-dir", str(self._worker_folder))
        return self._begun(Life(self._worker_folder, *options, *cache, failpoints=failpoints, plant=plant))

    def _keys(self) -> tuple[str, str]:
        return "--cluster-key-file", str(self._key)

    def _begun(self, life: Life) -> Life:
        self._stack.callback(life.kill)
        return life

    def step(self) -> int:
        """How far the journal knows the job, which nobody needs a worker for."""
        beside = open_beside(self.gateway.address, token=None, ca_cert=None, timeout_seconds=10, patience_seconds=10)
        with closing(beside):
            return beside.jobs.get(NAME).step


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One with no worker yet."""
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


@pytest.fixture(scope="module", params=[submitted, submitted_in_replicas], ids=["alone", "replicas"])
def job(
    request: pytest.FixtureRequest, alone: Callable[[Callable[[tg.Session], Outcome]], Outcome]
) -> tuple[Submit, Outcome]:
    return request.param, alone(lambda session: Outcome.of(request.param(session, steps=STEPS)))


def hurt(cluster: Cluster, submit: Submit, seed: int, *, lives: int, plant: Plant | None = None) -> Outcome:
    """What the job comes to when so many workers die, and the last one does not."""
    rng = random.Random(seed)
    deaths, losses, known = ["job.covered=kill:2"], 0, 0
    worker = cluster.worker(deaths[0], plant=plant)
    with (
        suppress(TelegradError),
        tg.connect(cluster.gateway.address, seed=SEED, new=True, queue_seconds=60) as session,
    ):
        submit(session, steps=STEPS)
    assert worker.ended() == -signal.SIGKILL

    while len(deaths) < lives:
        place = "job.covered" if losses >= ENOUGH_LOSSES else rng.choice(list(MOST))
        count = 2 if losses >= ENOUGH_LOSSES else rng.randint(1, MOST[place])
        deaths.append(f"{place}=kill:{count}")
        assert cluster.worker(deaths[-1], plant=plant).ended() == -signal.SIGKILL, (seed, deaths)
        step = cluster.step()
        losses, known = (0, step) if step > known else (losses + 1, known)

    cluster.worker(plant=plant)
    with tg.connect(cluster.gateway.address, new=True, queue_seconds=60) as session:
        (found,) = session.jobs.list()
        begun = found.refresh().step
        outcome = Outcome.of(found)
        restarts = found.refresh().restarts
    print(f"seed {seed}: {len(deaths)} workers killed, {restarts} restarts, the last at step {begun}: {deaths}")
    assert restarts == lives, (seed, deaths)
    return outcome


@pytest.mark.parametrize("seed", [1, 2])
def test_a_job_ends_as_if_its_workers_had_never_died(cluster: Cluster, job: tuple[Submit, Outcome], seed: int) -> None:
    submit, undisturbed = job

    undisturbed.assert_equal(hurt(cluster, submit, seed, lives=LIVES))

    assert cluster.gateway.stop() == 0
    standing(cluster.folder, undisturbed)


def planted(bug: type[Right]) -> None:
    """Let this process, a worker, go on from what the bug makes of a checkpoint."""
    restore = vault._Checkpoints.restore

    def wrong(self: vault._Checkpoints, job: str, step: int) -> Latest:
        found = restore(self, job, step)
        return replace(found, manifest=bug.read_as(found.manifest)) if found.manifest.step else found

    vault._Checkpoints.restore = wrong


@pytest.mark.parametrize(
    ("bug", "wrong"),
    [(RandomNumbersFromTheProcess, "model"), (CursorOneStepLate, "optimizer.0.step"), (SumsForgotten, "epoch/loss")],
)
def test_a_planted_bug_is_found_by_such_deaths(
    cluster: Cluster, alone: Callable[[Callable[[tg.Session], Outcome]], Outcome], bug: type[Right], wrong: str
) -> None:
    undisturbed = alone(lambda session: Outcome.of(submitted(session, steps=STEPS)))

    outcome = hurt(cluster, submitted, 1, lives=5, plant=partial(planted, bug))

    with pytest.raises(AssertionError) as caught:
        undisturbed.assert_equal(outcome)
    print(f"{bug.__name__}: {caught.value}")
    assert wrong in str(caught.value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
