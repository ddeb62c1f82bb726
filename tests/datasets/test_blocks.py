"""Folders of Parquet files as datasets in blocks: what is read of them, how much is held, and what cannot be read."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import telegrad as tg
from telegrad.errors import DataCorrupt, DTypeError, IndexRange, NotFound, ResourceError
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad_server.datasets import Catalog, Dataset, Pass, parse_roots
from telegrad_server.datasets.blocks import Blocks, block_digest
from telegrad_server.datasets.cache import Cache
from telegrad_server.datasets.fetched import Part
from telegrad_server.datasets.listing import listed_here
from telegrad_server.datasets.shards import Shards

from tests.datasets.parquets import WIDTH, held_bytes, rows_of, write
from tests.faults.conftest import Server

ROW_BYTES = WIDTH * 4 + 8


def catalog_of(tmp_path: Path, roots: str, **options: Any) -> Catalog:
    return Catalog(tmp_path / "datasets", roots=parse_roots(roots), **options)


@pytest.mark.parametrize("place", ["{0}?kind=parquet", "{0}/*.parquet", "{0}/**/*.parquet"])
def test_a_folder_of_files_is_one_dataset(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "clicks"
    x, y = write(folder, files=[(30, 7), (1, 7), (25, 10)])
    (folder / "_SUCCESS").touch()
    (folder / ".crc.parquet").write_bytes(b"no table")
    catalog = catalog_of(tmp_path, "clicks=" + place.format(folder))

    clicks = catalog.open("anybody", "clicks")
    described = catalog.describe("anybody", "clicks")

    rows = np.array([55, 0, 30, 30, 29, 31])
    batch = clicks.batch(rows)
    assert clicks.columns == {"x": Type((WIDTH,), t.float32), "y": Type((), t.int64)}
    np.testing.assert_array_equal(batch["x"], x[rows])
    np.testing.assert_array_equal(batch["y"], y[rows])
    assert (described.rows, described.blocks, described.bytes) == (56, 5 + 1 + 3, 56 * ROW_BYTES)
    assert catalog.open_digest("somebody", clicks.digest).rows == 56
    for outside in ([56], [-1]):
        with pytest.raises(IndexRange):
            clicks.batch(np.array(outside))


@pytest.mark.slow
def test_a_dataset_that_does_not_fit_is_read_within_the_bound(tmp_path: Path) -> None:
    rng = random.Random(20261126)
    files = [(rng.randrange(1, 500), rng.randrange(15, 40)) for _ in range(50)]
    x, _ = write(tmp_path / "clicks", files=files)
    window_bytes = 100 * ROW_BYTES
    (root,) = parse_roots(f"clicks={tmp_path}/clicks?kind=parquet&shuffle_bytes={window_bytes}")
    listing = listed_here(root)
    assert listing is not None
    shards = Shards(root, listing, tmp_path / "notes.json")
    bound = shards.layout.shuffling_bytes
    assert len(x) * ROW_BYTES > 20 * bound
    cache = Cache(tmp_path / "cache", most_bytes=bound)
    peaks: list[int] = []
    asked: list[int] = []

    def watched(block: int) -> Iterator[Part]:
        asked.append(block)
        yield from shards.parts(block)
        peaks.append(held_bytes(tmp_path / "cache"))

    def opened(block: int) -> Dataset:
        return cache.open(block_digest(listing.digest, block), lambda: watched(block))

    clicks = Blocks(shards.layout, opened, room_bytes=cache.most_bytes)
    for epoch in range(2):
        of = Pass(0, clicks.rows, 7, epoch)
        seen: list[int] = []
        asked.clear()
        for first in range(0, clicks.rows, 16):
            while clicks.prepare(first, of):
                pass
            rows = clicks.rows_at(np.arange(first, min(first + 16, clicks.rows)), of)
            np.testing.assert_array_equal(clicks.batch(rows)["x"], x[rows])
            seen += rows.tolist()
        assert sorted(seen) == list(range(len(x)))
        assert len(asked) == len(set(asked))  # no block came twice
    assert max(peaks) <= bound
    assert held_bytes(tmp_path / "cache") <= bound


def test_a_loop_finds_its_blocks_prepared(tmp_path: Path) -> None:
    write(tmp_path / "clicks", files=[(40, 5)] * 10)
    asked: list[int] = []
    of_files = catalog_of(tmp_path, f"c={tmp_path}/clicks?kind=parquet&shuffle_bytes={50 * ROW_BYTES}").open("a", "c")
    assert isinstance(of_files, Blocks)

    def opened(block: int) -> Dataset:
        asked.append(block)
        return of_files.block(block)

    clicks = Blocks(of_files.layout, opened, room_bytes=1 << 20)
    of = Pass(0, 400, 3, 0)
    for first in range(0, 400, 10):
        while clicks.prepare(first, of):
            pass
        prepared = set(asked)
        clicks.batch(clicks.rows_at(np.arange(first, first + 10), of))
        assert set(asked) == prepared  # reading asked for no other
    assert clicks.prepare(-30, Pass(0, 400, 3, 1))  # the epoch that comes next
    assert not clicks.prepare(-60, Pass(0, 400, 3, 2))  # and none that is far away


def test_a_cache_without_room_for_shuffling_says_so(tmp_path: Path) -> None:
    write(tmp_path / "clicks", files=[(40, 5)] * 10)
    catalog = catalog_of(tmp_path, f"c={tmp_path}/clicks?kind=parquet", cache_bytes=40 * ROW_BYTES)
    clicks = catalog.open("a", "c")

    with pytest.raises(ResourceError, match=r"--cache-bytes, or register it with a smaller \?shuffle_bytes="):
        clicks.rows_at(np.arange(3), Pass(0, 400, 3, 0))
    for first in range(0, 400, 100):  # in its order it is read
        rows = clicks.rows_at(np.arange(first, first + 100), Pass(0, 400, None, 0))
        assert clicks.batch(rows)["y"].tolist() == list(range(first, first + 100))


def test_another_version_of_a_file_is_another_dataset(tmp_path: Path) -> None:
    write(tmp_path / "clicks", files=[(10, 5), (10, 5)])
    catalog = catalog_of(tmp_path, f"c={tmp_path}/clicks?kind=parquet")
    old = catalog.open("a", "c")
    old.batch(np.arange(3))

    write(tmp_path / "clicks", files=[(12, 5)])

    assert old.batch(np.arange(3))["y"].tolist() == [0, 1, 2]  # it was here
    with pytest.raises(NotFound, match="another file now"):
        old.batch(np.array([7]))
    new = catalog.open("a", "c")
    assert (new.rows, new.digest != old.digest) == (22, True)
    assert new.batch(np.arange(12))["y"].tolist() == [*range(12)]
    with pytest.raises(NotFound):
        catalog.open_digest("a", old.digest)
    (tmp_path / "clicks" / "01.parquet").unlink()
    with pytest.raises(NotFound, match="has gone"):
        new.block(4)
    for path in (tmp_path / "clicks").iterdir():
        path.unlink()
    with pytest.raises(NotFound):
        catalog.open("a", "c")


def test_footers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "clicks", files=[(10, 5)] * 3)
    roots = f"c={tmp_path}/clicks?kind=parquet"
    digest = catalog_of(tmp_path, roots).open("a", "c").digest
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    again = parse_roots(roots)[0]
    listing = listed_here(again)
    assert listing is not None and listing.digest == digest

    (notes,) = (tmp_path / "datasets" / "registered").glob("*/*.json")

    assert Shards(again, listing, notes).layout.rows == 30


def test_what_cannot_be_one_dataset(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def opened(name: str, *tables: dict[str, Any], options: str = "") -> Dataset:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for number, table in enumerate(tables):
            pq.write_table(pa.table(table), folder / f"{number}.parquet")
        return catalog_of(tmp_path / name, f"c={folder}?kind=parquet{options}").open("a", "c")

    good = {"x": np.arange(3)}
    with pytest.raises(DataCorrupt, match=r"1\.parquet has the columns x float"):
        opened("types", good, {"x": np.arange(3, dtype=np.float32)})
    with pytest.raises(DataCorrupt, match=r"1\.parquet has the columns"):
        opened("names", good, {"y": np.arange(3)})
    with pytest.raises(DataCorrupt, match=r"1\.parquet has no column 'x'"):
        opened("chosen", good, {"y": np.arange(3)}, options="&columns=x")
    with pytest.raises(DTypeError, match="word"):
        opened("words", {"word": ["a"]})
    with pytest.raises(DataCorrupt, match="no rows"):
        opened("empty", {"x": np.arange(0)}, {"x": np.arange(0)})
    assert opened("gaps", {"x": np.arange(0)}, good, {"x": np.arange(0)}, good).rows == 6
    lists = opened("lists", {"x": [[1, 2]]}, {"x": [[1, 2, 3]]})
    with pytest.raises(DataCorrupt, match=r"1\.parquet has a row"):
        lists.batch(np.array([1]))
    nulls = opened("nulls", good, {"x": pa.array([1, None], pa.int64())})
    with pytest.raises(DataCorrupt, match=r"1\.parquet has rows without a value"):
        nulls.batch(np.array([3]))
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.parquet").write_bytes(b"PAR1 is not enough PAR1")
    with pytest.raises(DataCorrupt, match=r"a\.parquet is no Parquet file"):
        opened("none")


@pytest.mark.slow
def test_a_bit_that_the_disk_has_changed_in_a_file_is_no_crash(tmp_path: Path) -> None:
    write(tmp_path / "clicks", files=[(40, 40)])
    (path,) = (tmp_path / "clicks").iterdir()
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        flipped = bytearray(whole)
        flipped[at] ^= 0x41
        path.write_bytes(flipped)
        os.utime(path, ns=(at, at))
        try:
            catalog_of(tmp_path, f"c={tmp_path}/clicks?kind=parquet").open("a", "c").batch(np.arange(3))
        except (DataCorrupt, DTypeError, IndexRange):
            pass


@pytest.mark.parametrize(
    "setting",
    ["c={0}/nothing?kind=parquet", "c={0}/nothing/*.parquet", "c={0}?kind=parquet&window=3", "c={0}/*"],
)
def test_a_setting_that_is_none_is_a_sentence(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ResourceError):
        parse_roots(setting.format(tmp_path))


@pytest.mark.slow
def test_a_client_finds_how_it_is_read(start: Callable[..., Server], tmp_path: Path) -> None:
    x, _ = write(tmp_path / "clicks", files=[(30, 7), (20, 7)])
    roots = f"clicks={tmp_path}/clicks?kind=parquet"
    server = start("--data-dir", str(tmp_path / "data"), "--dataset-roots", roots)

    with tg.connect(server.address, new=True) as session:
        clicks = session.datasets["clicks"]

        assert (clicks.rows, clicks.blocks, clicks.bytes) == (50, 8, 50 * ROW_BYTES)
        assert "read in 8 blocks, never whole" in session.datasets.describe("clicks")
        np.testing.assert_array_equal(clicks[[49, 3]]["x"], x[[49, 3]])


def test_rows_are_what_was_written(tmp_path: Path) -> None:
    """The tests' own writer: each row says which it is."""
    x, y = write(tmp_path / "clicks", files=[(5, 2), (4, 9)])

    assert y.tolist() == list(range(9))
    expected: npt.NDArray[np.float32] = rows_of(y)
    np.testing.assert_array_equal(x, expected)
