"""Which checkpoints stay, and that removing others can stop anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from telegrad.errors import GraphError
from telegrad_server.checkpoints import CheckpointStore, Folders
from telegrad_server.checkpoints.depot import Depot
from telegrad_server.checkpoints.places import Place, places_in, spent

from tests.checkpoints.drafts import draft, named, tensors


def filled(depot: Depot, *steps: int) -> CheckpointStore:
    store = CheckpointStore(depot)
    for step in steps:
        store.write(draft(tensors(step), step=step), named(tensors(step)))
    return CheckpointStore(depot)


def damage(folder: Path, step: int) -> None:
    (shard,) = folder.rglob(f"{step:012d}.*/*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])


def test_the_last_ones_and_the_best_stay(depot: Depot) -> None:
    store = filled(depot, 10, 20, 30, 40, 50)

    removed = store.keep("job-1", last=2, best=[20])

    assert removed == [10, 30]
    assert store.steps("job-1") == [20, 40, 50]
    assert store.verify("job-1").damaged == ()


def test_a_damaged_one_does_not_count_and_makes_none_go(tmp_path: Path) -> None:
    store = filled(Folders(tmp_path), 10, 20, 30)
    damage(tmp_path, 20)
    damage(tmp_path, 30)

    assert store.keep("job-1", last=1) == []
    assert store.latest("job-1").manifest.step == 10
    store.write(draft(tensors(4), step=40), named(tensors(4)))
    assert store.keep("job-1", last=1) == [10, 20, 30]


def test_an_earlier_try_of_a_step_goes_when_a_later_one_is_whole(tmp_path: Path) -> None:
    filled(Folders(tmp_path), 10, 10, 20)
    store = CheckpointStore(Folders(tmp_path))

    assert store.keep("job-1", last=5) == []
    assert places_in(p.name for p in next(tmp_path.iterdir()).iterdir()) == [Place(10, 2), Place(20, 1)]


def test_a_best_step_whose_last_try_is_damaged_keeps_the_one_before() -> None:
    places = [Place(1, 1), Place(1, 2), Place(2, 1), Place(3, 1)]

    assert spent(places, lambda p: p != Place(1, 2), last=1, best=[1]) == [Place(2, 1)]


def test_none_at_all_cannot_be_asked_for(depot: Depot) -> None:
    with pytest.raises(GraphError):
        filled(depot, 1).keep("job-1", last=0)


def test_rewinding_removes_what_came_after(depot: Depot) -> None:
    store = filled(depot, 1, 2, 3)

    store.rewind("job-1", 1)

    assert store.steps("job-1") == [1]


def test_removing_a_job_leaves_nothing_of_it_and_all_of_others(tmp_path: Path) -> None:
    store = filled(Folders(tmp_path), 1, 2)
    store.write(draft(tensors(1), job="another"), named(tensors(1)))

    store.remove("job-1")
    store.remove("job-1")

    assert store.steps("job-1") == []
    assert len(list(tmp_path.iterdir())) == 1
    assert store.verify("another").whole == (1,)


def test_what_a_crash_has_left_is_swept_away(tmp_path: Path) -> None:
    store = filled(Folders(tmp_path), 1)
    home = next(tmp_path.iterdir())
    for name in ("writing-1", "gone-1"):
        (home / name).mkdir()
        (home / name / "shard-00001-of-00001.safetensors").write_bytes(b"half")

    store.keep("job-1", last=1)  # which may run beside a write
    assert {p.name for p in home.iterdir()} == {"writing-1", "000000000001.0001"}
    store.sweep("job-1")
    assert {p.name for p in home.iterdir()} == {"000000000001.0001"}


def test_keeping_sweeping_and_verifying_a_job_without_checkpoints_do_nothing(depot: Depot) -> None:
    store = CheckpointStore(depot)

    assert store.keep("job-1", last=1) == []
    store.sweep("job-1")
    store.rewind("job-1", 3)
    store.remove("job-1")
    assert store.verify("job-1").whole == ()
