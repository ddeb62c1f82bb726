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
from telegrad import nn, optim
from telegrad.errors import WorkerLost
from telegrad_server.executors.direct import agreed, device_of
from telegrad_server.executors.staged import Staged
from telegrad_server.tree import Division, spans

from tests.cluster.inside import Inside, inside
from tests.cluster.member import leaf, summed
from tests.cluster.test_collectives import Workers, workers  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.cluster.test_crew import digest, train
from tests.cluster.test_shards import Training
from tests.executors.away import AwayExecutor, Ferry, away
from tests.executors.cupy_alike import modules

DIVISION = Division(7, ((0, 2), (2, 3), (3, 7)))
SIZE = 3


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
    leaves = {r: (leaf(r, count) / 64).astype(dtype) for r in range(DIVISION.replicas)}
    expected = summed((0, DIVISION.replicas), leaves).astype(dtype)

    def work(rank: int) -> list[bool]:
        parts = [away(summed(node, leaves)) for node in DIVISION.nodes(rank)]
        whole = away(np.zeros(count, dtype))
        groups[rank].all_reduce(parts, whole, division=DIVISION, tag=1)
        first, last = spans(count, SIZE)[rank]
        own = away(np.zeros(last - first, dtype))
        groups[rank].reduce_scatter(parts, own, division=DIVISION, tag=2)
        gathered = away(np.zeros(count, dtype))
        groups[rank].all_gather(own, gathered, tag=3)
        wanted = [expected, expected[first:last], expected]
        return [a.tobytes() == b.tobytes() for a, b in zip([whole, own, gathered], wanted, strict=True)]

    assert made.each(work) == [[True] * 3] * SIZE


def test_a_result_may_be_a_part(team: tuple[Workers, list[Any]]) -> None:
    made, groups = team
    leaves = {r: leaf(r, 1000) for r in range(DIVISION.replicas)}

    def work(rank: int) -> bool:
        parts = [away(summed(node, leaves)) for node in DIVISION.nodes(rank)]
        groups[rank].all_reduce(parts, parts[0], division=DIVISION, tag=1)
        return parts[0].tobytes() == summed((0, DIVISION.replicas), leaves).tobytes()

    assert all(made.each(work))


def test_broadcasts_and_messages(team: tuple[Workers, list[Any]]) -> None:
    made, groups = team
    value = leaf(3, 777)

    def work(rank: int) -> bool:
        x = away(value if rank == 1 else np.zeros_like(value))
        groups[rank].broadcast(x, root=1, tag=1)
        y = away(x if rank == 0 else np.zeros_like(value))
        if rank == 0:
            groups[rank].send(y, peer=2, tag=2)
        elif rank == 2:
            groups[rank].recv(y, peer=0, tag=2)
        return x.tobytes() == value.tobytes() and (rank == 1 or y.tobytes() == value.tobytes())

    assert all(made.each(work))


def test_whoever_leaves_ends_the_wait_of_the_others(team: tuple[Workers, list[Any]]) -> None:
    made, groups = team
    x = leaf(0, 1000)

    def work(rank: int) -> str:
        if rank == 1:
            groups[rank].abort("an op failed")
            return ""
        parts = [away(x) for _ in DIVISION.nodes(rank)]
        with pytest.raises(WorkerLost) as caught:
            for tag in range(100):
                groups[rank].all_reduce(parts, away(x), division=DIVISION, tag=tag)
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
    outs = [away(np.zeros(9, np.float32)) for _ in groups]
    leaves = {r: leaf(r, 9) for r in range(DIVISION.replicas)}

    def work(rank: int) -> None:
        parts = [away(summed(node, leaves)) for node in DIVISION.nodes(rank)]
        groups[rank].all_reduce(parts, outs[rank], division=DIVISION, tag=1)

    made.each(work)
    assert all(out.tobytes() == summed((0, DIVISION.replicas), leaves).tobytes() for out in outs)


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


def test_a_crew_trains_with_the_bits_of_the_host(cluster: Inside) -> None:
    def work() -> list[bytes]:
        sharded = Training(replicas=4, width=4500)
        return [*train(replicas=3), *train(replicas=2), *train(replicas=4, rows=9), *sharded.steps(2), *sharded.state()]

    with tg.connect(cluster.address, new=True):
        found = work()
    with tg.connect(backend="numpy", new=True):
        assert digest(found) == digest(work())
    for worker in cluster.workers.values():
        assert not worker._executor.ferry.brought  # type: ignore[attr-defined]  # pyright: ignore


@pytest.mark.parametrize("place", [0, 5])
def test_an_error_in_a_members_rows_ends_the_waits_and_on_it_goes(cluster: Inside, place: int) -> None:
    bad = np.arange(6)
    bad[place] = 7777

    with tg.connect(cluster.address, new=True):
        table = nn.Parameter(np.ones((3000, 8), np.float32))
        optimizer = optim.Adam([table], lr=0.1)

        @tg.function(replicas=3, shard_optimizer=True)
        def step(rows: tg.Tensor) -> tg.Tensor:
            loss = (tg.take(table, rows, axis=0) ** 2).mean()
            optimizer.minimize(loss)
            return loss

        step(np.arange(6)).item()
        with pytest.raises(IndexError, match="7777"):
            step(bad).item()
        assert step(np.arange(6)).item() < 1
