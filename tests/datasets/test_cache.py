"""A worker's cache of datasets: fetched once, checked, mapped, and the longest unused go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from telegrad.errors import DataCorrupt, ResourceError
from telegrad.wire.arrays import array_bytes, type_of
from telegrad.wire.datasets import column_of, dataset_digest
from telegrad_server.datasets.cache import Cache
from telegrad_server.datasets.fetched import Chunk, Contents, Digests, Part

Arrays = dict[str, npt.NDArray[Any]]


def arrays(seed: int, rows: int = 100) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(rows, 4)).astype(np.float32), "is_new": rng.random(rows) > 0.5}


def digest(of: Arrays) -> str:
    return dataset_digest([column_of(name, array) for name, array in of.items()])


def parts(of: Arrays) -> Iterator[Part]:
    """As a gateway sends it: blocks of rows, column by column."""
    rows = len(next(iter(of.values())))
    yield Contents(rows, tuple([(name, type_of(array[0])) for name, array in of.items()]))
    for first in range(0, rows, 30):
        for number, array in enumerate(of.values()):
            yield Chunk(number, bytes(array_bytes(array[first : first + 30])))
    yield Digests(tuple([column_of(name, array).digest for name, array in of.items()]))


def nobody() -> Iterator[Part]:
    raise AssertionError("it is there already")


def test_a_dataset_is_fetched_once_and_read_from_the_disk(tmp_path: Path) -> None:
    data = arrays(0)
    Cache(tmp_path, most_bytes=1 << 20).open(digest(data), lambda: parts(data))

    again = Cache(tmp_path, most_bytes=1 << 20).open(digest(data), nobody)  # of a process that comes later

    batch = again.batch(np.array([3, 99, 3]))
    assert again.digest == digest(data) and again.rows == 100
    assert np.array_equal(batch["x"], data["x"][[3, 99, 3]])
    assert np.array_equal(batch["is_new"], data["is_new"][[3, 99, 3]])


def test_what_came_otherwise_than_it_was_sent_is_not_kept(tmp_path: Path) -> None:
    data, cache = arrays(0), Cache(tmp_path, most_bytes=1 << 20)
    wrong = [part for part in parts(data) if not (isinstance(part, Chunk) and part.column == 1)]

    with pytest.raises(DataCorrupt, match="came otherwise"):
        cache.open(digest(data), lambda: wrong)
    with pytest.raises(DataCorrupt, match="came otherwise"):
        cache.open(digest(data), lambda: [*parts(data)][:-1])

    assert list(tmp_path.iterdir()) == []
    assert cache.open(digest(data), lambda: parts(data)).rows == 100


def test_a_file_that_has_lost_its_end_is_fetched_anew(tmp_path: Path) -> None:
    data = arrays(0)
    Cache(tmp_path, most_bytes=1 << 20).open(digest(data), lambda: parts(data))
    os.truncate(tmp_path / digest(data) / "0", 7)

    found = Cache(tmp_path, most_bytes=1 << 20).open(digest(data), lambda: parts(data))

    assert np.array_equal(found.batch(np.arange(100))["x"], data["x"])


def test_the_longest_unused_goes_when_there_is_no_room(tmp_path: Path) -> None:
    first, second, third = (arrays(seed) for seed in range(3))
    size = sum(array.nbytes for array in first.values())
    cache = Cache(tmp_path, most_bytes=2 * size + 1000)
    for number, data in enumerate((first, second)):
        cache.open(digest(data), lambda data=data: parts(data))
        os.utime(tmp_path / digest(data), (1000 + number, 1000 + number))
    cache.open(digest(first), nobody)  # used again, and so younger than the second

    cache.open(digest(third), lambda: parts(third))

    assert {path.name for path in tmp_path.iterdir()} == {digest(first), digest(third)}


def test_what_is_being_read_stays(tmp_path: Path) -> None:
    first, second = arrays(0), arrays(1)
    cache = Cache(tmp_path, most_bytes=sum(array.nbytes for array in first.values()) + 1000)
    held = cache.open(digest(first), lambda: parts(first))

    cache.open(digest(second), lambda: parts(second))

    assert {path.name for path in tmp_path.iterdir()} == {digest(first), digest(second)}
    assert np.array_equal(held.batch(np.arange(100))["x"], first["x"])


def test_a_dataset_larger_than_the_cache_is_refused_before_it_comes(tmp_path: Path) -> None:
    data = arrays(0)

    with pytest.raises(ResourceError, match="--cache-bytes"):
        Cache(tmp_path, most_bytes=1000).open(digest(data), lambda: parts(data))

    assert list(tmp_path.iterdir()) == []


def test_what_is_still_coming_has_its_room(tmp_path: Path) -> None:
    first, second, third = (arrays(seed) for seed in range(3))
    size = sum(array.nbytes for array in first.values())
    cache = Cache(tmp_path, most_bytes=2 * size + 1000)
    cache.open(digest(first), lambda: parts(first))

    def slowly() -> Iterator[Part]:
        coming = parts(second)
        yield next(coming)
        cache.open(digest(third), lambda: parts(third))  # as on another thread
        yield from coming

    cache.open(digest(second), slowly)

    assert {path.name for path in tmp_path.iterdir()} == {digest(second), digest(third)}
