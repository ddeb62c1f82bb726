"""Checkpoints written and read, wherever they lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from telegrad.errors import GraphError, NotFound
from telegrad.wire.arrays import array_bytes, array_from, type_of
from telegrad_server.checkpoints import CheckpointStore, Draft, Folders
from telegrad_server.checkpoints.depot import Depot

from tests.checkpoints.drafts import arrays_of, draft, named, tensors

Arrays = Mapping[str, npt.NDArray[Any]]


def test_a_checkpoint_comes_back_with_the_same_bits(depot: Depot) -> None:
    arrays = {
        "w": np.arange(12, dtype=np.float32).reshape(3, 4),
        "b": np.array([math.nan, -0.0, math.inf]),
        "n": np.array(7, np.int64),
        "none": np.empty((0, 3), np.float16),
        "mask": np.array([True, False, True]),
    }
    store = CheckpointStore(depot)
    written = store.write(draft(arrays, step=3), named(arrays))

    manifest, found = CheckpointStore(depot).read("job-1", 3)

    back = {name: array_from(type, data) for name, type, data in found}
    assert manifest == written
    assert {n: (type_of(a), array_bytes(a).tobytes()) for n, a in back.items()} == {
        n: (type_of(a), array_bytes(a).tobytes()) for n, a in arrays.items()
    }


def test_tensors_are_spread_over_files_of_bounded_size(depot: Depot) -> None:
    arrays = {f"layer.{i}": np.full(100, i, np.float32) for i in range(10)}
    store = CheckpointStore(depot, shard_bytes=1000)

    manifest = store.write(draft(arrays), named(arrays))

    assert len(manifest.shards) == 5
    assert arrays_of(store.read("job-1", 1)[1]) == {n: a.tobytes() for n, a in arrays.items()}


@pytest.mark.parametrize("change", ["missing", "extra", "twice", "wrong type", "wrong length"])
def test_tensors_that_are_not_those_of_the_draft_are_refused_and_leave_nothing(
    depot: Depot, tmp_path: Path, change: str
) -> None:
    arrays = tensors(1)
    given = named(arrays)
    name, type, data = given[0]
    given = {
        "missing": given[1:],
        "extra": [*given, ("more", type, data)],
        "twice": [given[0], *given],
        "wrong type": [(name, given[1][1], data), *given[1:]],
        "wrong length": [(name, type, data[1:]), *given[1:]],
    }[change]
    store = CheckpointStore(depot)

    with pytest.raises(GraphError):
        store.write(draft(arrays), given)

    assert store.steps("job-1") == []
    assert isinstance(depot, Folders) or depot.homes() == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_step_written_again_is_read_as_it_was_last_written(depot: Depot) -> None:
    store = CheckpointStore(depot)
    for value in (1, 2):
        store.write(draft(tensors(value)), named(tensors(value)))

    assert store.steps("job-1") == [1]
    assert arrays_of(store.latest("job-1").tensors) == arrays_of(named(tensors(2)))


def test_what_is_not_there_is_not_found(depot: Depot) -> None:
    store = CheckpointStore(depot)
    store.write(draft(tensors(1)), named(tensors(1)))

    assert store.steps("another") == []
    with pytest.raises(NotFound):
        store.latest("another")
    with pytest.raises(NotFound, match=r"those of \[1\]"):
        store.read("job-1", 2)


@pytest.mark.parametrize(
    "job", ["../../etc", "a/../b", "/abs", "a\0b", "x" * 300, "CON", ".", "%2e%2e", "\uff4aob", ""]
)
def test_no_id_of_a_job_is_a_path(tmp_path: Path, job: str) -> None:
    store = CheckpointStore(Folders(tmp_path / "checkpoints"))
    store.write(draft(tensors(1), job=job), named(tensors(1)))

    assert [p.name for p in tmp_path.iterdir()] == ["checkpoints"]
    (home,) = (tmp_path / "checkpoints").iterdir()
    assert set(home.name) <= set("0123456789abcdef")
    assert store.latest(job).manifest.job == job


def test_metrics_keep_every_bit_and_what_is_not_finite(depot: Depot) -> None:
    metrics = {"loss": 0.1, "worst": math.nan, "up": math.inf, "down": -math.inf, "tiny": 5e-324}
    store = CheckpointStore(depot)
    store.write(draft(tensors(1), metrics=metrics), named(tensors(1)))

    found: Draft = store.latest("job-1").manifest

    assert {n: float(v).hex() for n, v in found.metrics.items()} == {n: float(v).hex() for n, v in metrics.items()}
