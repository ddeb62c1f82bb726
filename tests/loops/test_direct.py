"""Workers that write and read checkpoints where the gateway keeps them: it commits them, and carries no bytes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import telegrad as tg
from telegrad_server.checkpoints import CheckpointStore, Folders, Objects
from telegrad_server.checkpoints.s3 import S3Bucket

from tests.checkpoints import s3
from tests.cluster.conftest import start_worker
from tests.loops.lives import Life
from tests.loops.undisturbed import SEED, Outcome, standing, submitted

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
STEPS = 14
Begin = Callable[..., subprocess.Popen[str]]

ONE_SHARD = "checkpoint.shard_sync=kill:2"
"""A gateway that writes another file of tensors than that of checkpoint 0 dies."""


@pytest.fixture(scope="module")
def undisturbed(alone: Callable[[Callable[[tg.Session], Outcome]], Outcome]) -> Outcome:
    return alone(lambda session: Outcome.of(submitted(session, steps=STEPS)))


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start a worker, which is ended with the test."""
    with ExitStack() as stack:

        def begin(inner: int, key: str, name: str, *options: str) -> subprocess.Popen[str]:
            worker = start_worker(f"127.0.0.1:{inner}", key, name, *options)
            stack.callback(worker.communicate)
            stack.callback(worker.kill)
            return worker

        yield begin


def sends_none() -> None:
    """In the gateway: it dies before it reads a checkpoint for a worker."""
    CheckpointStore.restore = lambda *_: os.abort()


def ends_as_undisturbed(
    tmp_path: Path, undisturbed: Outcome, begin: Begin, where: str, workers: list[tuple[str, ...]], *, failpoints: str,
    store: CheckpointStore, environ: Mapping[str, str], plant: Callable[[], None] | None = None,
    between: Callable[[], object] = lambda: None,
) -> None:  # fmt: skip
    """The workers come one after the other: the next when the one before has died."""
    key = tmp_path / "key"
    key.write_text("5a" * 32)
    inner = _free_port()
    options = ("--role", "gateway", "--cluster-port", str(inner), "--cluster-key-file", str(key))
    options = (*options, "--checkpoint-store", where)
    gateway = Life(tmp_path / "served", *options, failpoints=failpoints, environ=environ, plant=plant)
    assert gateway.port
    first = begin(inner, str(key), "w0", *workers[0])
    with tg.connect(gateway.address, seed=SEED, new=True, queue_seconds=60) as session:
        job = submitted(session, steps=STEPS).id
    for number, more in enumerate(workers[1:], 1):
        assert first.wait(120) == -signal.SIGKILL
        between()
        first = begin(inner, str(key), f"w{number}", *more)
    with tg.connect(gateway.address, new=True, queue_seconds=60) as session:
        undisturbed.assert_equal(Outcome.of(session.jobs[job]))
    assert gateway.stop() == 0
    ended = standing(tmp_path / "served", undisturbed, store)
    assert ended is not None and ended.state.value == "SUCCEEDED"


@pytest.mark.parametrize("failpoint", ["", "checkpoint.begin", "checkpoint.shard", "checkpoint.shard_sync"])
def test_a_worker_on_a_shared_path(tmp_path: Path, undisturbed: Outcome, begin: Begin, failpoint: str) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    there = ("--checkpoint-store", str(shared))
    workers = [(*there, "--testing", "on", "--failpoints", f"{failpoint}=kill:2"), there] if failpoint else [there]

    ends_as_undisturbed(
        tmp_path, undisturbed, begin, str(shared), workers, failpoints=ONE_SHARD,
        store=CheckpointStore(Folders(shared / "checkpoints")), environ={}, plant=sends_none,
    )  # fmt: skip

    assert [path for path in (shared / "checkpoints").rglob("*-*") if path.is_dir()] == []


def test_a_worker_that_finds_a_damaged_checkpoint_goes_on_from_what_the_gateway_sends(
    tmp_path: Path, undisturbed: Outcome, begin: Begin
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    there = ("--checkpoint-store", str(shared))

    def flip() -> None:
        *_, newest = sorted((shared / "checkpoints").rglob("*.safetensors"))
        data = bytearray(newest.read_bytes())
        data[-1] ^= 1
        newest.write_bytes(data)

    ends_as_undisturbed(
        tmp_path, undisturbed, begin, str(shared),
        [(*there, "--testing", "on", "--failpoints", "checkpoint.begin=kill:3"), there], failpoints="",
        store=CheckpointStore(Folders(shared / "checkpoints")), environ={}, between=flip,
    )  # fmt: skip


def test_a_worker_with_s3(tmp_path: Path, undisturbed: Outcome, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"s3://{s3.BUCKET}/direct"
    with s3.serving() as endpoint:
        s3.emptied(endpoint)
        for name, value in s3.environ(endpoint).items():
            monkeypatch.setenv(name, value)
        there = ("--checkpoint-store", where)
        workers = [(*there, "--testing", "on", "--failpoints", "checkpoint.shard_sync=kill:2"), there]
        bucket = S3Bucket(where)
        store = CheckpointStore(Objects(bucket))

        ends_as_undisturbed(
            tmp_path, undisturbed, begin, where, workers, failpoints=ONE_SHARD, store=store,
            environ=s3.environ(endpoint), plant=sends_none,
        )  # fmt: skip

        (home,) = store.homes()
        there_is = {key.split("/")[1] for key in bucket.sizes(home)}
        assert {place.name for place in Objects(bucket).places(home)} == there_is


@pytest.mark.parametrize("place", ["nowhere", "another"])
def test_a_worker_that_does_not_reach_the_place_streams(
    tmp_path: Path, undisturbed: Outcome, begin: Begin, place: str
) -> None:
    shared, other = tmp_path / "shared", tmp_path / "other"
    shared.mkdir()
    if place == "another":  # a folder of the same kind, but not the gateway's
        other.mkdir()
        (other / "owner").write_text("somebody\n")

    ends_as_undisturbed(
        tmp_path, undisturbed, begin, str(shared), [("--checkpoint-store", str(other))], failpoints="",
        store=CheckpointStore(Folders(shared / "checkpoints")), environ={},
    )  # fmt: skip

    assert place == "nowhere" or [path for path in other.rglob("*") if path.is_file()] == [other / "owner"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
