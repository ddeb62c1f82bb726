"""A process that is killed at each failpoint of a checkpoint, on the machine's disk."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from telegrad.errors import StorageFull
from telegrad_server.checkpoints import CheckpointStore, Folders
from telegrad_server.checkpoints.failing import FailingFiles
from telegrad_server.checkpoints.files import RealFiles
from telegrad_server.failpoints import CHECKPOINT_NAMES, Failpoints

from tests.checkpoints.drafts import arrays_of, draft, named, tensors

pytestmark = pytest.mark.slow  # processes that kill themselves

ROOT = Path(__file__).resolve().parent.parent.parent


def run(folder: Path, failpoints: str, *, count: int) -> tuple[int, list[int]]:
    """How a job ended, and the steps that it said would last."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.checkpoints.writing", str(folder), str(count), failpoints],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    return done.returncode, [int(line) for line in done.stdout.split()]


@pytest.mark.parametrize("place", CHECKPOINT_NAMES)
def test_a_job_killed_anywhere_has_what_it_was_promised_and_goes_on(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "store"
    if place == "checkpoint.restore":
        run(folder, "", count=2)

    code, told = run(folder, f"{place}=kill:2", count=4)

    assert code == -signal.SIGKILL
    store = CheckpointStore(Folders(folder))
    assert store.verify("job-1").damaged == ()
    if told:
        latest = store.latest("job-1")
        assert latest.manifest.step in (told[-1], told[-1] + 1)
        assert arrays_of(latest.tensors) == arrays_of(named(tensors(latest.manifest.step)))
    assert run(folder, "", count=3)[0] == 0
    assert len(store.steps("job-1")) == 2
    assert not [p for p in folder.rglob("*-*") if p.is_dir()]


def test_every_failpoint_is_reached(tmp_path: Path) -> None:
    reached: list[str] = []
    store = CheckpointStore(Folders(tmp_path, files=FailingFiles(RealFiles(), reached.append)))
    for step in (1, 2):
        store.write(draft(tensors(step), step=step), named(tensors(step)))
    store.keep("job-1", last=1)
    store.latest("job-1")

    assert tuple(dict.fromkeys(reached)) == CHECKPOINT_NAMES


def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    store = CheckpointStore(Folders(tmp_path, files=FailingFiles(RealFiles(), Failpoints("checkpoint.shard=full:2"))))
    given = named(tensors(1))

    for _ in range(2):
        with pytest.raises(StorageFull) as caught:
            store.write(draft(tensors(1)), given)
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ENOSPC
    store.write(draft(tensors(1)), given)

    assert store.verify("job-1").whole == (1,)
