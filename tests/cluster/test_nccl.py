"""What members of a group over NCCL send and add, on a stand-in for CuPy: `executors.nccl` has never run on a device.

`tests/gpu/test_crews.py` is for devices.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import WorkerLost
from telegrad_server.executors.direct import agreed, device_of
from telegrad_server.executors.staged import Staged

from tests.cluster.exchanges import DIVISION, SIZE, leaves_of, messages, parts_of, sum_of, sums
from tests.cluster.inside import Inside, inside, without_kernels
from tests.cluster.test_collectives import Workers, workers  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.cluster.test_crew import digest, train
from tests.cluster.test_shards import Training, embedding
from tests.executors.away import AwayExecutor, Ferry, away
from tests.executors.cupy_alike import modules


@pytest.fixture
def nccl(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module under test, over the stand-in."""
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "telegrad_server.executors.nccl", raising=False)
    yield importlib.import_module("telegrad_server.executors.nccl")
    sys.modules.pop("telegrad_server.executors.nccl", None)


@pytest.fixture
def team(nccl: Any, workers: Callable[..., Workers]) -> Iterator[tuple[Workers, list[Any]]]:  # noqa: F811
    """Three members that have agreed to use it."""
    made = workers(SIZE)
    hosts = made.join()
    devices = [device_of(22809, f"gpu-{rank}") for rank in range(SIZE)]
    groups = made.each(lambda r: agreed(hosts[r], devices, nccl.NcclDoor(timeout_seconds=5), Ferry()))
    assert [type(group) for group in groups] == [nccl.Nccl] * SIZE
    yield made, groups
    for group in groups:
        group.close()


@pytest.mark.parametrize("count", [0, 1, 5, 6, 30_003, 30_002])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64])
def test_sums_have_the_bits_of_the_host(team: tuple[Workers, list[Any]], count: int, dtype: Any) -> None:
    made, groups = team

    assert made.each(lambda rank: sums(groups, rank, count, dtype)) == [[True] * 3] * SIZE


def test_a_result_may_be_a_part(team: tuple[Workers, list[Any]]) -> None:
    made, groups = team
    leaves = leaves_of(1000)

    def work(rank: int) -> bool:
        parts = parts_of(rank, leaves)
        groups[rank].all_reduce(parts, parts[0], division=DIVISION, tag=1)
        return parts[0].tobytes() == sum_of(leaves).tobytes()

    assert all(made.each(work))


def test_broadcasts_and_messages(team: tuple[Workers, list[Any]]) -> None:
    made, groups = team

    assert all(made.each(lambda rank: messages(groups, rank)))


def test_whoever_leaves_ends_the_wait_of_the_others(team: tuple[Workers, list[Any]]) -> None:
    made, groups = team
    leaves = leaves_of(1000)

    def work(rank: int) -> str:
        if rank == 1:
            groups[rank].abort("an op failed")
            return ""
        parts, out = parts_of(rank, leaves), away(np.zeros(1000, np.float32))
        with pytest.raises(WorkerLost) as caught:
            for tag in range(100):
                groups[rank].all_reduce(parts, out, division=DIVISION, tag=tag)
        return caught.value.message

    assert ["an op failed" in said for said in made.each(work)] == [True, False, True]


def test_if_one_cannot_meet_the_others_all_go_by_way_of_the_host(
    nccl: Any,
    workers: Callable[..., Workers],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = workers(SIZE)
    hosts = made.join()
    devices = [device_of(22809, f"gpu-{rank}") for rank in range(SIZE)]
    monkeypatch.setattr(nccl, "OPENING_SECONDS", 0.5)
    meet = nccl.nccl.NcclCommunicator

    def fails_at_one(size: int, key: bytes, rank: int) -> Any:
        if rank == 1:
            raise nccl.nccl.NcclError("NCCL_ERROR_SYSTEM_ERROR: no route to host")
        return meet(size, key, rank)

    monkeypatch.setattr(nccl.nccl, "NcclCommunicator", fails_at_one)

    groups = made.each(lambda r: agreed(hosts[r], devices, nccl.NcclDoor(timeout_seconds=5), Ferry()))

    assert [type(group) for group in groups] == [Staged] * SIZE
    assert made.each(lambda rank: sums(groups, rank, 9, np.float32)) == [[True] * 3] * SIZE


# crews


@pytest.fixture
def cluster(nccl: Any, tmp_path: Path) -> Iterator[Inside]:
    """Three workers, each with a device."""
    number = itertools.count()

    def executor() -> AwayExecutor:
        device = device_of(22809, f"gpu-{next(number)}")
        return AwayExecutor(device=device, door=lambda seconds: nccl.NcclDoor(timeout_seconds=seconds))

    with inside(3, tmp_path / "key", executor) as found:
        yield found


@pytest.mark.slow
def test_a_crew_trains_with_the_bits_of_the_host(cluster: Inside, tmp_path: Path) -> None:
    def work() -> list[bytes]:
        sharded = Training(replicas=4, width=4500)
        return [*train(replicas=3), *train(replicas=2), *train(replicas=4, rows=9), *sharded.steps(2), *sharded.state()]

    with tg.connect(cluster.address, new=True):
        found = work()
    with without_kernels(tmp_path / "key of the host"):
        assert digest(found) == digest(work())
    for worker in cluster.workers.values():
        assert not worker._executor.ferry.brought  # type: ignore[attr-defined]  # pyright: ignore


@pytest.mark.parametrize("place", [0, 5])
def test_an_error_in_a_members_rows_ends_the_waits_and_on_it_goes(cluster: Inside, place: int) -> None:
    bad = np.arange(6)
    bad[place] = 7777

    with tg.connect(cluster.address, new=True):
        step, _, _ = embedding()
        step(np.arange(6)).item()
        with pytest.raises(IndexError, match="7777"):
            step(bad).item()
        assert step(np.arange(6)).item() < 1
