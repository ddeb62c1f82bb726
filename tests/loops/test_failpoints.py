"""A server that dies at each named place: the job ends with the same bits, is there once, and so is each metric."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import telegrad as tg
from telegrad.errors import TelegradError
from telegrad_server.checkpoints import CheckpointStore, Folders
from telegrad_server.failpoints import ALL_NAMES
from telegrad_server.main import main

from tests.loops.lives import Life
from tests.loops.undisturbed import SEED, Outcome, standing, submitted

STEPS = 14
PLACES = {
    "job.accept": (1, 2, 4),  # of the submission, of the assignment, of the first checkpoint
    "journal.before_commit": (1, 2, 4),
    "journal.after_commit": (1, 2, 4),
    "job.applied": (1, 2, 4),
    "job.assign": (1,),
    "checkpoint.begin": (1, 2),  # of checkpoint 0, which is before the submission, and of the first one of the loop
    "checkpoint.shard": (1, 40),
    "checkpoint.shard_sync": (1, 2),
    "checkpoint.manifest": (1, 2),
    "checkpoint.manifest_sync": (1, 2),
    "checkpoint.folder_sync": (1, 2),
    "checkpoint.rename": (1, 2),
    "checkpoint.latest": (1, 2),
    "checkpoint.gc": (1,),
    "checkpoint.gc_remove": (1, 2),
    "checkpoint.restore": (1,),
    "job.step": (1, 8),
    "job.covered": (1, 3),
}


@pytest.fixture(scope="module")
def undisturbed(alone: Callable[[Callable[[tg.Session], Outcome]], Outcome]) -> Outcome:
    return alone(lambda session: Outcome.of(submitted(session, steps=STEPS)))


def test_every_place_is_tried() -> None:
    assert set(PLACES) == set(ALL_NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "count"), [(place, count) for place, counts in PLACES.items() for count in counts])
def test_a_job_ends_as_if_its_server_had_not_died_there(
    tmp_path: Path, undisturbed: Outcome, place: str, count: int
) -> None:
    folder = tmp_path / "served"
    first = Life(folder, failpoints=f"{place}=kill:{count}")
    with ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(submit, first.address)

        assert first.ended() == -signal.SIGKILL
        standing(folder, undisturbed)
        second = Life(folder, "--stray-seconds", "0", port=first.port)
        job = submitting.result(timeout=120)  # the client has asked again, if it was not answered

    with tg.connect(second.address, new=True) as session:
        (found,) = session.jobs.list()
        undisturbed.assert_equal(Outcome.of(found))
        assert found.id == job
    assert second.stop() == 0
    ended = standing(folder, undisturbed)
    assert ended is not None
    assert ended.state.value == "SUCCEEDED"
    store = CheckpointStore(Folders(folder / "checkpoints"))
    assert store.homes() == [store.home_of(job)]  # nothing of a submission that was cut off
    assert [name for name in os.listdir(folder / "checkpoints" / store.home_of(job)) if "-" in name] == []


def submit(address: str) -> str:
    """The job's id, from a client that sends its request again until it is answered."""
    id = ""
    with suppress(TelegradError), tg.connect(address, seed=SEED, new=True) as session:  # the session itself is lost
        id = submitted(session, steps=STEPS).id
    return id


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--failpoints", "job.step=kill"], "--testing on"),
        (["--testing", "on", "--failpoints", "job.sleep=kill"], "'job.sleep=kill' is not NAME=kill"),
    ],
)
def test_failpoints_are_refused_where_nobody_tests(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main([*arguments, "--port", "0"]) == 2
    assert says in capsys.readouterr().err
