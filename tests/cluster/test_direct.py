"""How a group comes to exchange from GPU to GPU: between real processes, which are told what devices they have."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from telegrad_server.executors.direct import device_of, may_meet

from tests.cluster.member import digest, leaf, summed
from tests.cluster.test_collectives import Processes, processes  # noqa: F401  # pyright: ignore[reportUnusedImport]

pytestmark = pytest.mark.slow  # members in processes of their own

GPUS = [device_of(22809, f"gpu-{i}") for i in range(3)]


@pytest.mark.parametrize(
    ("devices", "they_may"),
    [
        (GPUS, True),
        (GPUS[:1], False),
        (["", *GPUS[1:]], False),
        (["", "", ""], False),
        ([GPUS[0], GPUS[0], GPUS[1]], False),  # Ray gives parts of a GPU to several; NCCL refuses
        ([GPUS[0], device_of(21805, "gpu-1")], False),
    ],
    ids=["each its own", "alone", "one without", "none", "two on one", "two versions"],
)
def test_who_may_meet(devices: list[str], they_may: bool) -> None:
    assert may_meet(devices) is they_may


@pytest.fixture
def three(processes: Callable[..., Processes]) -> Processes:  # noqa: F811
    """Three processes in a group."""
    team = processes(3, is_near=True)
    team.join([0, 1, 2])
    return team


def tell(team: Processes, devices: list[str], doors: list[str], folder: Path) -> None:
    for rank, door in enumerate(doors):
        team.order(rank, devices=devices, door=door, folder=str(folder))


OPENS = ["opens"] * 3


@pytest.mark.parametrize(
    ("devices", "doors", "how"),
    [
        (GPUS, OPENS, "Straight"),
        (["", "", ""], OPENS, "Staged"),
        ([*GPUS[:2], ""], OPENS, "Staged"),
        ([GPUS[0], *GPUS[:2]], OPENS, "Staged"),
        (GPUS, ["no library", "opens", "opens"], "Staged"),
        (GPUS, ["opens", "opens", "no library"], "Staged"),
        (GPUS, ["opens", "does not open", "opens"], "Staged"),
        (GPUS, ["does not open"] * 3, "Staged"),
    ],
)
def test_all_exchange_alike_and_sum_to_the_same_bits(
    three: Processes, devices: list[str], doors: list[str], how: str, tmp_path: Path
) -> None:
    tell(three, devices, doors, tmp_path)
    assert [three.answer(r) for r in range(3)] == [{"exchanges": how}] * 3

    three.all_reduce([0, 1, 2], count=100_003, replicas=5)
    expected = digest(summed((0, 5), {r: leaf(r, 100_003) for r in range(5)}))
    assert [three.answer(r) for r in range(3)] == [{"digest": expected}] * 3


def test_who_dies_while_they_meet_is_named_and_nobody_hangs(three: Processes, tmp_path: Path) -> None:
    start = time.monotonic()
    tell(three, GPUS, ["opens", "dies", "opens"], tmp_path)
    errors = [three.answer(r) for r in (0, 2)]

    assert time.monotonic() - start < 2
    assert [(e["error"], e["worker"]) for e in errors] == [("WorkerLost", "w1")] * 2
