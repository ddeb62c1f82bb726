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

from tests.cluster.exchanges import DIVISION, SIZE, leaves_of, messages, parts_of, sum_of, sums
from tests.cluster.inside import inside, without_kernels
from tests.cluster.test_collectives import Workers, workers  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.cluster.test_crew import digest, train
from tests.cluster.test_shards import Training
from tests.executors.away import AwayExecutor, Ferry, away


@pytest.fixture
def team(workers: Callable[..., Workers]) -> Iterator[tuple[Workers, list[Staged]]]:  # noqa: F811
    """Three members, each with the staged end of one group."""
    made = workers(SIZE)
    groups = [Staged(host, Ferry()) for host in made.join()]
    yield made, groups
    for group in groups:
        group.close()


@pytest.mark.parametrize("count", [0, 1, 5, 200_003])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64])
def test_sums_have_the_bits_of_the_host(team: tuple[Workers, list[Staged]], count: int, dtype: Any) -> None:
    made, groups = team

    assert made.each(lambda rank: sums(groups, rank, count, dtype)) == [[True] * 3] * SIZE


def test_a_result_may_be_a_part_and_is_there_only_when_it_is_waited_for(team: tuple[Workers, list[Staged]]) -> None:
    made, groups = team
    leaves = leaves_of(1000)

    def work(rank: int) -> bool:
        parts = parts_of(rank, leaves)
        before = parts[0].tobytes()
        pending = groups[rank].start_all_reduce(parts, parts[0], division=DIVISION, tag=1)
        untouched = parts[0].tobytes() == before
        pending.wait(timeout_seconds=None)
        pending.wait(timeout_seconds=None)  # as often as one likes
        return untouched and parts[0].tobytes() == sum_of(leaves).tobytes()

    assert all(made.each(work))


def test_broadcasts_and_messages(team: tuple[Workers, list[Staged]]) -> None:
    made, groups = team

    assert all(made.each(lambda rank: messages(groups, rank)))


def test_a_broken_group_says_so(team: tuple[Workers, list[Staged]]) -> None:
    _, groups = team
    groups[0].abort("it was asked for")

    with pytest.raises(WorkerLost, match="asked for"):
        groups[0].all_reduce(parts_of(0, leaves_of(9)), away(np.zeros(9, np.float32)), division=DIVISION, tag=1)


@pytest.mark.slow
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

    with without_kernels(tmp_path / "key of the host"):
        assert digest(found) == digest(work())
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
