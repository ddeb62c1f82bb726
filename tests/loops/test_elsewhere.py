"""Checkpoints in S3 or on a shared path: a server dies anywhere, and one elsewhere ends its job, bit for bit."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import telegrad as tg
from telegrad_server.checkpoints import CheckpointStore, Folders, Objects
from telegrad_server.checkpoints.s3 import S3Bucket
from telegrad_server.failpoints import CHECKPOINT_NAMES
from telegrad_server.main import main

from tests.checkpoints import s3
from tests.faults.conftest import wait_until
from tests.faults.proxy import Proxy
from tests.loops.lives import Life
from tests.loops.test_failpoints import PLACES, STEPS, submit
from tests.loops.undisturbed import SEED, Outcome, standing, submitted

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")
pytestmark = pytest.mark.slow
EVERY_PLACE = [(place, PLACES[place][-1]) for place in (*CHECKPOINT_NAMES, "job.covered")]


@pytest.fixture(scope="module")
def undisturbed(alone: Callable[[Callable[[tg.Session], Outcome]], Outcome]) -> Outcome:
    return alone(lambda session: Outcome.of(submitted(session, steps=STEPS)))


@pytest.fixture(scope="module")
def environ() -> Iterator[Mapping[str, str]]:
    """What leads a process to an S3 with a bucket."""
    with s3.serving() as endpoint:
        s3.emptied(endpoint)
        yield s3.environ(endpoint)


def dies_and_goes_on_elsewhere(
    tmp_path: Path,
    undisturbed: Outcome,
    where: str,
    failpoints: str,
    store: CheckpointStore,
    environ: Mapping[str, str],
) -> str:
    """The job's id. The second server has the first one's journal and data, and what it kept elsewhere."""
    first = Life(tmp_path / "one", "--checkpoint-store", where, failpoints=failpoints, environ=environ)
    with ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(submit, first.address)
        assert first.ended() == -signal.SIGKILL
        standing(tmp_path / "one", undisturbed, store)
        shutil.copytree(tmp_path / "one", tmp_path / "another")
        shutil.rmtree(tmp_path / "one")
        options = ("--checkpoint-store", where, "--stray-seconds", "0")
        second = Life(tmp_path / "another", *options, port=first.port, environ=environ)
        job = submitting.result(timeout=120)
    with tg.connect(second.address, new=True) as session:
        (found,) = session.jobs.list()
        undisturbed.assert_equal(Outcome.of(found))
        assert found.id == job
    assert second.stop() == 0
    ended = standing(tmp_path / "another", undisturbed, store)
    assert ended is not None and ended.state.value == "SUCCEEDED"
    assert not (tmp_path / "another" / "checkpoints").exists()
    assert store.homes() == [store.home_of(job)]
    return job


@pytest.mark.parametrize(("place", "count"), EVERY_PLACE)
def test_a_server_that_dies_while_its_checkpoints_go_to_s3(
    tmp_path: Path, undisturbed: Outcome, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, place: str,
    count: int,
) -> None:  # fmt: skip
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    where = f"s3://{s3.BUCKET}/{place}-{count}"
    bucket = S3Bucket(where)
    store = CheckpointStore(Objects(bucket))

    job = dies_and_goes_on_elsewhere(
        tmp_path, undisturbed, where, f"{place}=kill:{count}", store=store, environ=environ
    )

    home = store.home_of(job)
    there = {key.split("/")[1] for key in bucket.sizes(home)}
    assert {place.name for place in Objects(bucket).places(home)} == there, "shards that nobody needs"


@pytest.mark.parametrize(("place", "count"), [("checkpoint.manifest_sync", 2), ("checkpoint.gc_remove", 2)])
def test_a_server_that_dies_while_its_checkpoints_go_to_a_shared_path(
    tmp_path: Path, undisturbed: Outcome, place: str, count: int
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    store = CheckpointStore(Folders(shared / "checkpoints"))

    dies_and_goes_on_elsewhere(tmp_path, undisturbed, str(shared), f"{place}=kill:{count}", store=store, environ={})

    assert sorted(path.name for path in shared.iterdir()) == ["checkpoints", "owner"]
    assert [path for path in (shared / "checkpoints").rglob("*-*") if path.is_dir()] == []


def test_a_store_that_does_not_answer_for_a_while_is_waited_for(
    tmp_path: Path, undisturbed: Outcome, environ: Mapping[str, str]
) -> None:
    between = Proxy(int(environ["AWS_ENDPOINT_URL"].rpartition(":")[2]), delay_seconds=0.05)
    through = {**environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{between.port}", "AWS_MAX_ATTEMPTS": "1"}
    server = Life(tmp_path / "served", "--checkpoint-store", f"s3://{s3.BUCKET}/away", environ=through)
    with tg.connect(server.address, seed=SEED, new=True) as session:
        job = submitted(session, steps=STEPS)
        with between.down():
            wait_until(lambda: job.refresh().state == "PAUSED", seconds=60)
            paused = job.refresh()

        undisturbed.assert_equal(Outcome.of(job))

    assert server.stop() == 0
    between.close()
    assert paused.reason == "STORAGE_AWAY"
    assert "nobody answers" in paused.message


def test_a_server_with_another_journal_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    first = Life(tmp_path / "one", "--checkpoint-store", str(shared))
    assert first.port
    assert first.stop() == 0

    again = Life(tmp_path / "one", "--checkpoint-store", str(shared))
    assert again.port
    assert again.stop() == 0

    assert main(["--port", "0", "--data-dir", str(tmp_path / "two"), "--checkpoint-store", str(shared)]) == 2
    assert "keeps the checkpoints of another journal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--checkpoint-store", "/nowhere/at/all"), "is it mounted?"),
        (("--checkpoint-store", "relative"), "is it mounted?"),
        (("--checkpoint-store", "gs://bucket/x"), "is not s3://BUCKET"),
    ],
)
def test_a_place_that_is_none_is_said_so_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], says: str
) -> None:
    assert main(["--port", "0", "--data-dir", str(tmp_path / "served"), *options]) == 2
    assert says in capsys.readouterr().err
    assert main(["--port", "0", *options]) == 2
    assert "needs --data-dir" in capsys.readouterr().err
