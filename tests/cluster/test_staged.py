"""Groups whose arrays are not in host memory: the bits of those that are, by way of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import ExecutionError, WorkerLost
from telegrad_server.executors.direct import device_of, may_meet
from telegrad_server.executors.staged import Staged
from telegrad_server.tree import Division, spans

from tests.cluster.inside import inside
from tests.cluster.member import leaf, summed
from tests.cluster.test_collectives import Workers, workers  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.cluster.test_crew import digest, train
from tests.cluster.test_shards import Training
from tests.executors.away import AwayExecutor, Ferry, away

SIZE = 3
DIVISION = Division(7, ((0, 2), (2, 3), (3, 7)))


@pytest.fixture
def team(workers: Callable[..., Workers]) -> Iterator[tuple[Workers, list[Staged]]]:  # noqa: F811
    """Three members, each with the staged end of one group."""
    made = workers(SIZE)
    groups = [Staged(host, Ferry()) for host in made.join()]
    yield made, groups
    for group in groups:
        group.close()


def parts_of(rank: int, leaves: dict[int, Any]) -> list[Any]:
    return [away(summed(node, leaves)) for node in DIVISION.nodes(rank)]


@pytest.mark.parametrize("count", [0, 1, 5, 200_003])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64])
def test_sums_have_the_bits_of_the_host(team: tuple[Workers, list[Staged]], count: int, dtype: Any) -> None:
    made, groups = team
    leaves = {r: (leaf(r, count) / 64).astype(dtype) for r in range(DIVISION.replicas)}
    expected = summed((0, DIVISION.replicas), leaves).astype(dtype)

    def work(rank: int) -> list[bool]:
        parts = parts_of(rank, leaves)
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


def test_a_result_may_be_a_part_and_is_there_only_when_it_is_waited_for(team: tuple[Workers, list[Staged]]) -> None:
    made, groups = team
    leaves = {r: leaf(r, 1000) for r in range(DIVISION.replicas)}

    def work(rank: int) -> bool:
        parts = parts_of(rank, leaves)
        before = parts[0].tobytes()
        pending = groups[rank].start_all_reduce(parts, parts[0], division=DIVISION, tag=1)
        untouched = parts[0].tobytes() == before
        pending.wait(timeout_seconds=None)
        pending.wait(timeout_seconds=None)  # as often as one likes
        return untouched and parts[0].tobytes() == summed((0, DIVISION.replicas), leaves).tobytes()

    assert all(made.each(work))


def test_broadcasts_and_messages(team: tuple[Workers, list[Staged]]) -> None:
    made, groups = team
    value = leaf(3, 777)

    def work(rank: int) -> bool:
        x = away(value if rank == 1 else np.zeros_like(value))
        groups[rank].broadcast(x, root=1, tag=1)
        groups[rank].barrier()
        y = away(x if rank == 0 else np.zeros_like(value))
        if rank == 0:
            groups[rank].send(y, peer=2, tag=2)
        elif rank == 2:
            groups[rank].recv(y, peer=0, tag=2)
        return x.tobytes() == value.tobytes() and (rank == 1 or y.tobytes() == value.tobytes())

    assert all(made.each(work))


def test_a_broken_group_says_so(team: tuple[Workers, list[Staged]]) -> None:
    _, groups = team
    groups[0].abort("it was asked for")

    with pytest.raises(WorkerLost, match="asked for"):
        groups[0].all_reduce(
            parts_of(0, {r: leaf(r, 9) for r in range(7)}), away(np.zeros(9, np.float32)), division=DIVISION, tag=1
        )


def alone(work: Callable[[], Any]) -> Any:
    with tg.connect(backend="numpy", new=True):
        return work()


def test_a_crew_on_devices_trains_with_the_bits_of_the_host(tmp_path: Path) -> None:
    """Sums of small gradients, packed, and of large ones where they lie; divided state; batch norm in step."""
    made: list[AwayExecutor] = []

    def executor() -> AwayExecutor:
        made.append(AwayExecutor(device=device_of(22809, f"gpu-{len(made)}")))
        return made[-1]

    def work() -> list[bytes]:
        sharded = Training(replicas=4, width=4500)
        return [*train(replicas=3), *train(replicas=4, rows=9), *sharded.steps(2), *sharded.state()]

    with inside(3, tmp_path / "key", executor) as cluster, tg.connect(cluster.address, new=True):
        found = work()

    assert digest(found) == digest(alone(work))
    assert all(each.ferry.brought and each.ferry.taken for each in made)
    told = [devices for each in made for devices in each.told]
    assert {device for devices in told for device in devices} == {each.device for each in made}
    assert all(may_meet(devices) for devices in told)


def test_without_staging_the_exchange_could_not_be(tmp_path: Path) -> None:
    """That the stand-in for a device refuses what a device would."""
    with (
        inside(2, tmp_path / "key", lambda: AwayExecutor(is_staged=False)) as cluster,
        tg.connect(cluster.address, new=True),
        pytest.raises(ExecutionError, match="touched by the host's exchange"),
    ):
        train(replicas=2, steps=1)
