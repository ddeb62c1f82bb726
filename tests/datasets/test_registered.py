"""What an operator registers: files as others write them, and sentences for those that cannot be read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import AccessError, DataCorrupt, DTypeError, NotFound, ResourceError, TelegradError
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.safetensors import save_file
from telegrad_server.datasets import Catalog, Dataset, parse_roots, permuted

from tests.faults.conftest import Server

X = np.arange(60, dtype=np.float32).reshape(10, 2, 3)
Y = np.arange(10, dtype=np.int64)
ROWS = permuted(range(6), rows=10, seed=0, epoch=0)


def catalog_of(tmp_path: Path, roots: str) -> Catalog:
    return Catalog(tmp_path / "datasets", roots=parse_roots(roots))


def opened(tmp_path: Path, root: Path, options: str = "") -> Dataset:
    return catalog_of(tmp_path, f"d={root}{options}").open("anybody", "d")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i8", ">u2", "?"])
def test_npy(tmp_path: Path, order: Any, dtype: str) -> None:
    array = np.array(X, dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)

    dataset = opened(tmp_path, tmp_path / "a.npy")

    batch = dataset.batch(ROWS)["x"]
    assert dataset.columns == {"x": Type((2, 3), t.BY_NAME[np.dtype(dtype).newbyteorder("=").name])}
    assert batch.dtype.isnative and batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, array[ROWS])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "a.npz", x=X, y=Y)

    for _ in range(2):
        dataset = opened(tmp_path, tmp_path / "a.npz")
        assert list(dataset.columns) == ["x", "y"]
        np.testing.assert_array_equal(dataset.batch(ROWS)["x"], X[ROWS])
        np.testing.assert_array_equal(dataset.batch(ROWS)["y"], Y[ROWS])


def test_safetensors(tmp_path: Path) -> None:
    save_file({"x": X, "odd": np.arange(10, dtype=np.int8), "y": Y}, tmp_path / "a.safetensors")

    batch = opened(tmp_path, tmp_path / "a.safetensors").batch(ROWS)

    np.testing.assert_array_equal(batch["x"], X[ROWS])
    np.testing.assert_array_equal(batch["y"], Y[ROWS])


def test_text_is_windows_of_bytes(tmp_path: Path) -> None:
    text = bytes(range(97, 123))
    (tmp_path / "a.txt").write_bytes(text)

    apart = opened(tmp_path, tmp_path / "a.txt", "?window=5")
    lapped = opened(tmp_path, tmp_path / "a.txt", "?window=5&stride=2")

    assert (apart.rows, apart.columns) == (5, {"tokens": Type((5,), t.uint8)})
    assert bytes(apart.batch(np.array([1, 4]))["tokens"]) == text[5:10] + text[20:25]
    assert lapped.rows == 11
    assert bytes(lapped.batch(np.array([10]))["tokens"]) == text[20:25]


def test_parquet(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    n = 100_000
    table = pa.table(
        {
            "i": np.arange(n),
            "f": np.linspace(0, 1, n, dtype=np.float32),
            "b": np.arange(n) % 2 == 0,
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(3 * n, dtype=np.int16)), 3),
            "list": pa.array([[i, -i] for i in range(n)]),
            "word": ["a"] * n,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=30_000)
    rows = permuted(range(100), rows=n, seed=0, epoch=0)

    dataset = opened(tmp_path, tmp_path / "a.parquet", "?columns=i|f|b|vector|list")
    batch = dataset.batch(rows)

    assert dataset.columns["vector"] == Type((3,), t.int16)
    np.testing.assert_array_equal(batch["i"], rows)
    np.testing.assert_array_equal(batch["f"], np.linspace(0, 1, n, dtype=np.float32)[rows])
    np.testing.assert_array_equal(batch["b"], rows % 2 == 0)
    np.testing.assert_array_equal(batch["vector"], (rows[:, None] * 3 + np.arange(3)).astype(np.int16))
    np.testing.assert_array_equal(batch["list"], np.stack([rows, -rows], 1))
    with pytest.raises(DTypeError, match="word"):
        opened(tmp_path, tmp_path / "a.parquet")
    with pytest.raises(DataCorrupt, match="nothing"):
        opened(tmp_path, tmp_path / "a.parquet", "?columns=nothing")


def test_parquet_that_is_no_table_of_numbers(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for number, column in enumerate(([1, None], [[1], [1, 2]], [], [[[1]], [[1], [2]]])):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"x": pa.array(column, pa.int64() if not column else None)}), path)
        with pytest.raises(DataCorrupt):
            opened(tmp_path, path)
    (tmp_path / "no.parquet").write_bytes(b"PAR1 is not enough PAR1")
    with pytest.raises(DataCorrupt):
        opened(tmp_path, tmp_path / "no.parquet")
    assert not list(tmp_path.rglob("*.new"))


def test_a_folder_of_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
    for number, array in enumerate(pixels):
        folder = tmp_path / "faces" / ("cats", "dogs")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(array).save(folder / f"{number}.png")
    (tmp_path / "faces" / "cats" / "readme.md").write_text("no image")

    dataset = opened(tmp_path, tmp_path / "faces")
    batch = dataset.batch(np.array([4, 0, 2]))
    small = opened(tmp_path, tmp_path / "faces", "?size=2x3&mode=L")

    assert dataset.rows == 6
    np.testing.assert_array_equal(batch["image"], pixels[[3, 0, 4]])
    np.testing.assert_array_equal(batch["label"], [1, 0, 0])
    assert small.batch(np.array([0]))["image"].shape == (1, 2, 3)
    image.fromarray(pixels[0, :3]).save(tmp_path / "faces" / "dogs" / "9.png")
    with pytest.raises(DataCorrupt, match=r"9\.png"):
        opened(tmp_path, tmp_path / "faces").batch(np.array([6]))
    (tmp_path / "faces" / "cats" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataCorrupt, match=r"0\.png"):
        opened(tmp_path, tmp_path / "faces")


def test_images_without_folders_have_no_label(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "flat").mkdir()
    image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "flat" / "a.png")

    assert list(opened(tmp_path, tmp_path / "flat").columns) == ["image"]


def test_a_library_that_is_missing_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    (tmp_path / "a.parquet").touch()
    (tmp_path / "images").mkdir()

    for root in ("a.parquet", "images"):
        with pytest.raises(ResourceError, match=r"telegrad\[datasets\]"):
            catalog_of(tmp_path, f"d={tmp_path / root}")


def npy_header(text: str, *, version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    size = (len(text) if length is None else length).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + size + text.encode("latin1")


BAD_NPY = {
    "empty": b"",
    "other": b"hello",
    "short": b"\x93NUMPY\x01",
    "cut off": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n") + bytes(11),
    "too long": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n") + bytes(13),
    "negative": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }\n") + bytes(12),
    "overflow": npy_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62}, 4), }}\n"),
    "no literal": npy_header("__import__('os').system('true')\n"),
    "huge header": npy_header(" " * 20000, version=b"\x02\x00"),
    "version 3": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }\n", version=b"\x03\x00"),
    "scalar": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n") + bytes(4),
    "objects": npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n") + bytes(8),
    "records": npy_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n") + bytes(4),
    "text": npy_header("{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }\n") + bytes(4),
    "complex": npy_header("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }\n") + bytes(8),
}


@pytest.mark.parametrize("what", BAD_NPY)
def test_an_npy_file_that_is_none_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "a.npy").write_bytes(BAD_NPY[what])

    with pytest.raises((DataCorrupt, DTypeError)):
        opened(tmp_path, tmp_path / "a.npy")


def test_an_npz_file_that_is_none_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", x=X, y=Y)
    whole = (tmp_path / "good.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "members.npz", "w") as archive:
        archive.writestr("../../x.npy", b"hello")
    with zipfile.ZipFile(tmp_path / "rows.npz", "w") as archive:
        for name, rows in (("x", 2), ("y", 3)):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.zeros(rows))
    for number, data in enumerate((b"", b"hello", whole[:100], whole[100:], b"PK\x05\x06" + bytes(18))):
        (tmp_path / f"{number}.npz").write_bytes(data)

    for name in ("members", "rows", "0", "1", "2", "3", "4"):
        with pytest.raises(DataCorrupt):
            opened(tmp_path, tmp_path / f"{name}.npz")
    for at in range(0, len(whole), 7):  # whatever is flipped: an error of ours, or the arrays
        flipped = bytearray(whole)
        flipped[at] ^= 0x41
        (tmp_path / "flipped.npz").write_bytes(flipped)
        try:
            opened(tmp_path, tmp_path / "flipped.npz").batch(np.array([0]))
        except TelegradError:
            pass


def test_the_digest_tells_files_and_options_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a" * 100)
    catalog = catalog_of(tmp_path, f"a={path}?window=5,b={path}?window=5&stride=1")
    first, other = catalog.open("a", "a").digest, catalog.open("a", "b").digest
    assert catalog.open_digest("a", other).rows == 96

    os.utime(path, ns=(0, 0))

    assert len({first, other, catalog.open("a", "a").digest}) == 3
    with pytest.raises(NotFound):
        catalog.open_digest("a", first)


def test_what_is_registered_all_can_read_and_nobody_can_delete(tmp_path: Path) -> None:
    np.savez(tmp_path / "digits.npz", x=X, y=Y)
    catalog = catalog_of(tmp_path, f"digits={tmp_path / 'digits.npz'}")
    digest = catalog.open("a", "digits").digest

    for tenant in ("a", "b"):
        assert [(d.name, d.source, d.rows) for d in catalog.list(tenant)] == [("digits", "digits.npz", 10)]
        catalog.hold(tenant, digest, by="job")
        catalog.let_go(tenant, by="job")
        catalog.verify(tenant, "digits")
    with pytest.raises(AccessError):
        catalog.delete("a", "digits")
    catalog.put("a", "digits", {"mine": Y})
    assert list(catalog.open("a", "digits").columns) == ["mine"]
    assert list(catalog.open("b", "digits").columns) == ["x", "y"]
    assert catalog.open_digest("a", digest).rows == 10


def test_files_that_have_gone_are_not_listed_and_not_found(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", X)
    catalog = catalog_of(tmp_path, f"a={tmp_path}/a.npy, b={tmp_path}/b.npy")
    (tmp_path / "a.npy").unlink()

    assert [d.name for d in catalog.list("t")] == ["b"]
    with pytest.raises(NotFound):
        catalog.open("t", "a")


def test_a_job_finds_its_data_whatever_is_wrong_with_files_of_other_names(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", X)
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    (tmp_path / "gone.npy").write_bytes(b"")
    catalog = catalog_of(tmp_path, ",".join(
        [f"a=/{tmp_path}/bad.npz", f"b={tmp_path}/bad.parquet", f"c={tmp_path}/gone.npy", f"d={tmp_path}/good.npy"]
    ))  # fmt: skip
    (tmp_path / "gone.npy").unlink()
    digest = catalog.open("anybody", "d").digest

    np.testing.assert_array_equal(catalog.open_digest("anybody", digest).batch(ROWS)["x"], X[ROWS])
    with pytest.raises(NotFound):
        catalog.open_digest("anybody", "0" * 64)


def test_unpacked_files_of_former_versions_are_removed(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=X)
    catalog = catalog_of(tmp_path, f"a={tmp_path}/a.npz")
    old = catalog.open("t", "a")
    np.savez_compressed(tmp_path / "a.npz", x=X + 1)

    np.testing.assert_array_equal(catalog.open("t", "a").batch(ROWS)["x"], (X + 1)[ROWS])
    np.testing.assert_array_equal(old.batch(ROWS)["x"], X[ROWS])
    assert len(list((tmp_path / "datasets" / "registered").glob("*/*"))) == 1


@pytest.mark.parametrize(
    "setting",
    [
        "digits", "=x", "d=", "d=/nowhere.npy", "../d={folder}/a.npy", "d={folder}/a.bin", "d={folder}/a.npy?window=3",
        "d={folder}/a.npy?kind=pickle", "d={folder}/a.npy,d={folder}/a.npy", "d={folder}/a.npy?", "d={folder}/a.npy?x",
    ],
)  # fmt: skip
def test_a_setting_that_is_none_is_a_sentence(tmp_path: Path, setting: str) -> None:
    np.save(tmp_path / "a.npy", X)
    (tmp_path / "a.bin").touch()
    setting = setting.replace("{folder}", str(tmp_path))

    if setting.endswith("?"):
        assert parse_roots(setting)
    else:
        with pytest.raises(ResourceError):
            parse_roots(setting)


@pytest.mark.parametrize("options", ["?window=0", "?window=-1", "?window=x", "?stride=0", "?window=101"])
def test_options_that_are_none_are_said(tmp_path: Path, options: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"a" * 100)

    with pytest.raises((ResourceError, DataCorrupt)):
        opened(tmp_path, tmp_path / "a.txt", options)


def test_a_client_finds_what_the_operator_has_registered(start: Callable[..., Server], tmp_path: Path) -> None:
    np.savez(tmp_path / "digits.npz", x=X, y=Y)
    server = start("--data-dir", str(tmp_path / "data"), "--dataset-roots", f"digits={tmp_path / 'digits.npz'}")

    with tg.connect(server.address, new=True) as session:
        digits = session.datasets["digits"]

        assert (digits.source, digits.rows, list(session.datasets)) == ("digits.npz", 10, ["digits"])
        np.testing.assert_array_equal(digits[ROWS]["x"], X[ROWS])
        assert "registered by the operator" in session.datasets.describe("digits")
        with pytest.raises(AccessError):
            session.datasets.delete("digits")
