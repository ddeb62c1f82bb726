"""The catalog on a disk: what is put is found, once, by its tenant only, and whole."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from telegrad.errors import (
    DataCorrupt,
    DTypeError,
    GraphError,
    IndexRange,
    NotFound,
    QuotaExceeded,
    ServerUnavailable,
    ShapeError,
    StorageFull,
    TelegradError,
)
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.wire.arrays import array_bytes
from telegrad.wire.datasets import Missing, column_of
from telegrad_server.datasets import Catalog, permuted

X = np.arange(60, dtype=np.float32).reshape(10, 2, 3)
Y = np.arange(10, dtype=np.int64)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "datasets")


def files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"datasets/*/{kind}/*"))


def test_a_batch_is_the_rows_asked_for(catalog: Catalog) -> None:
    catalog.put("a", "digits", {"x": X, "y": Y})
    digits = catalog.open("a", "digits")
    rows = permuted(range(4), rows=digits.rows, seed=1, epoch=2)

    batch = digits.batch(rows)

    assert list(batch) == ["x", "y"]
    assert digits.columns == {"x": Type((2, 3), t.float32), "y": Type((), t.int64)}
    assert (batch["x"] == X[rows]).all() and (batch["y"] == Y[rows]).all()
    assert batch["x"].flags.writeable  # a copy


@pytest.mark.parametrize("dtype", [d.name for d in t.DTYPES])
def test_every_dtype_comes_back(catalog: Catalog, dtype: str) -> None:
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    array = np.arange(12).reshape(6, 2).astype(kind)

    catalog.put("a", "d", {"x": array[::-1], "empty": np.zeros((6, 0), kind)})
    batch = catalog.open("a", "d").batch(np.array([5, 0, 0]))

    assert batch["x"].dtype == kind and (batch["x"] == array[[0, 5, 5]]).all()
    assert batch["empty"].shape == (3, 0)


def test_a_dataset_without_rows_can_be_kept(catalog: Catalog) -> None:
    catalog.put("a", "d", {"x": X[:0]})

    assert catalog.open("a", "d").rows == 0
    assert catalog.open("a", "d").batch(np.array([], np.int64))["x"].shape == (0, 2, 3)


def test_what_is_there_another_catalog_finds(catalog: Catalog, tmp_path: Path) -> None:
    put = catalog.put("a", "digits", {"x": X, "y": Y})

    again = Catalog(tmp_path / "datasets")

    assert again.list("a") == [put]
    assert again.describe("a", "digits") == put
    assert again.open_digest("a", put.digest).rows == 10
    assert (put.rows, put.bytes) == (10, X.nbytes + Y.nbytes)


def test_equal_columns_are_kept_once(catalog: Catalog, tmp_path: Path) -> None:
    catalog.put("a", "one", {"x": X, "y": Y})
    catalog.put("a", "two", {"pixels": X, "again": X})

    assert len(files(tmp_path, "columns")) == 2


def test_the_digest_tells_type_order_and_names_apart(catalog: Catalog) -> None:
    variants: list[dict[str, Any]] = [
        {"x": X, "y": Y}, {"y": Y, "x": X}, {"x": X, "z": Y}, {"x": X.reshape(10, 6), "y": Y},
        {"x": X.view(np.int32), "y": Y}, {"x": X + 1, "y": Y},
    ]  # fmt: skip

    digests = [catalog.put("a", "d", arrays).digest for arrays in variants]

    assert len(set(digests)) == len(variants)
    assert digests[0] == catalog.put("b", "other", {"x": np.asfortranarray(X), "y": Y.astype(">i8")}).digest


def test_a_name_stands_for_what_was_put_last(catalog: Catalog, tmp_path: Path) -> None:
    catalog.put("a", "d", {"x": X})
    old = catalog.open("a", "d")
    catalog.put("a", "d", {"x": X + 1})

    assert (catalog.open("a", "d").batch(Y)["x"] == X + 1).all()
    assert len(files(tmp_path, "columns")) == 1
    assert (old.batch(Y)["x"] == X).all()  # who reads may read on


def test_deleting_keeps_what_others_need(catalog: Catalog, tmp_path: Path) -> None:
    catalog.put("a", "one", {"x": X, "y": Y})
    catalog.put("a", "two", {"y": Y})

    catalog.delete("a", "one")

    assert [d.name for d in catalog.list("a")] == ["two"]
    assert (catalog.open("a", "two").batch(Y)["y"] == Y).all()
    assert len(files(tmp_path, "columns")) == 1
    with pytest.raises(NotFound):
        catalog.delete("a", "one")


def test_what_a_job_holds_stays_though_its_name_is_deleted(catalog: Catalog, tmp_path: Path) -> None:
    digest = catalog.put("a", "d", {"x": X}).digest
    catalog.hold("a", digest, by="job-1")
    catalog.hold("a", digest, by="job-2")

    catalog.delete("a", "d")
    catalog.let_go("a", by="job-1")

    assert catalog.open_digest("a", digest).rows == 10
    catalog.let_go("a", by="job-2")
    catalog.let_go("a", by="job-2")
    with pytest.raises(NotFound):
        catalog.open_digest("a", digest)
    assert files(tmp_path, "columns") == files(tmp_path, "sets") == files(tmp_path, "holds") == []


def test_a_job_holds_several(catalog: Catalog, tmp_path: Path) -> None:
    digests = [catalog.put("a", name, {name: array}).digest for name, array in (("x", X), ("y", Y))]
    for digest in digests:
        catalog.hold("a", digest, by="job-1")
    for name in ("x", "y"):
        catalog.delete("a", name)

    assert [catalog.open_digest("a", digest).digest for digest in digests] == digests
    catalog.let_go("a", by="job-1")

    assert files(tmp_path, "columns") == files(tmp_path, "sets") == files(tmp_path, "holds") == []


def test_another_tenant_finds_nothing(catalog: Catalog) -> None:
    put = catalog.put("a", "d", {"x": X})

    for look in (
        lambda: catalog.open("b", "d"), lambda: catalog.describe("b", "d"), lambda: catalog.delete("b", "d"),
        lambda: catalog.open_digest("b", put.digest), lambda: catalog.hold("b", put.digest, by="j"),
        lambda: catalog.verify("b", "d"),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            look()
    assert catalog.list("b") == []
    assert catalog.offer("b", "d", put.columns) == (Missing(put.columns[0].digest, 0),)  # nor that it is there


NAMES = [
    "", ".", "..", "../x", "a/../b", "/etc/passwd", "a/b", "a\\b", "..\\..\\x", "%2e%2e", "%2e%2e%2f", "%252e%252e",
    "a\0b", "a\nb", "a\n", " a", "a b", "a ", "-a", ".a", "_a", "C:", "C:\\x", "\\\\host\\share", "~", "~root", "a:b",
    "a" * 129, "a" * 256, "é", "\uff41", "a\u202eb", "a\u0301", "\u2024\u2024", "\uff0e\uff0e", "‥", "a\u2215b",
    "a\uff0fb", "a?b", "a*b", "a|b", "a<b", "a>b", 'a"b', "a'b", "a;b", "a&b", "$HOME", "`id`", "a\tb", "a\rb",
    "a\x7fb", "a\ud800", "file://x", "s3://x", "a#b", "a%00b", "@a", "a@b", "a,b", "a=b", "(a)", "[a]", "{a}", "😀",
    "٣", "a\u200b",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_refused(catalog: Catalog, tmp_path: Path, name: str) -> None:
    for call in (
        lambda: catalog.put("a", name, {"x": X}), lambda: catalog.open("a", name), lambda: catalog.delete("a", name),
        lambda: catalog.describe("a", name),
    ):  # fmt: skip
        with pytest.raises(GraphError) as caught:
            call()
        assert caught.value.reason == "NAME_INVALID"


@pytest.mark.parametrize("name", ["CON", "NUL.txt", "a..", "a.", "a...b", "con.tar.gz", "A", "a", "0", "a" * 128])
def test_odd_names_that_are_allowed_name_no_file(catalog: Catalog, tmp_path: Path, name: str) -> None:
    catalog.put("../../tenant", name, {"x": X})

    assert [d.name for d in catalog.list("../../tenant")] == [name]
    found = [p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()]
    assert all(set(part) <= set("0123456789abcdef") for p in found for part in p.parts[1:2] + p.parts[3:])


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "../" + "0" * 61, "0" * 63 + "\n", "٣" * 64])
def test_a_digest_that_is_none_is_refused(catalog: Catalog, digest: str) -> None:
    for call in (
        lambda: catalog.open_digest("a", digest), lambda: catalog.receive("a", Type((1,), t.int8), digest),
        lambda: catalog.hold("a", digest, by="j"),
    ):  # fmt: skip
        with pytest.raises(GraphError):
            call()


@pytest.mark.parametrize(
    "arrays, error",
    [
        ({}, GraphError),
        ({"x": np.float32(1)}, ShapeError),
        ({"x": X, "y": Y[:9]}, ShapeError),
        ({"x": np.array(["a"])}, DTypeError),
        ({"x": np.array([None])}, DTypeError),
        ({"": X}, GraphError),
        ({"a\nb": X}, GraphError),
        ({"a" * 129: X}, GraphError),
        ({f"c{i}": Y for i in range(1025)}, GraphError),
    ],
)
def test_what_is_no_dataset_is_refused(catalog: Catalog, arrays: dict[str, Any], error: type[TelegradError]) -> None:
    with pytest.raises(error):
        catalog.put("a", "d", {name: np.asarray(array) for name, array in arrays.items()})

    assert catalog.list("a") == []


def test_a_row_that_there_is_not_is_refused(catalog: Catalog) -> None:
    catalog.put("a", "d", {"x": X})

    for rows in ([10], [-1], [0, 11]):
        with pytest.raises(IndexRange):
            catalog.open("a", "d").batch(np.array(rows))


# ---- receiving


def test_an_upload_goes_on_where_another_stopped(catalog: Catalog, tmp_path: Path) -> None:
    column, data = column_of("x", X), array_bytes(X)
    part = catalog.receive("a", column.type, column.digest)
    part.write(data[:100])
    part.close()

    again = Catalog(tmp_path / "datasets")  # as after a restart
    assert again.offer("a", "d", (column,)) == (Missing(column.digest, 100),)
    rest = again.receive("a", column.type, column.digest)
    assert rest.received_bytes == 100
    rest.write(data[100:])
    rest.finish()

    assert again.offer("a", "d", (column,)) == again.describe("a", "d")
    assert files(tmp_path, "parts") == []


def test_a_new_upload_of_the_same_column_takes_over(catalog: Catalog) -> None:
    column, data = column_of("x", X), array_bytes(X)
    first = catalog.receive("a", column.type, column.digest)
    first.write(data[:100])

    second = catalog.receive("a", column.type, column.digest)

    assert second.received_bytes == 100
    with pytest.raises(ServerUnavailable):
        first.write(data[100:])
    second.write(data[100:])
    second.finish()


def test_another_process_is_waited_for(catalog: Catalog, tmp_path: Path) -> None:
    column = column_of("x", X)
    part = catalog.receive("a", column.type, column.digest)

    with pytest.raises(ServerUnavailable):
        Catalog(tmp_path / "datasets").receive("a", column.type, column.digest)
    part.close()


def test_other_bytes_than_announced_are_refused_and_can_be_sent_anew(catalog: Catalog) -> None:
    column, data = column_of("x", X), array_bytes(X)
    part = catalog.receive("a", column.type, column.digest)
    part.write(bytes(len(data)))
    with pytest.raises(DataCorrupt):
        part.finish()
    part.close()

    part = catalog.receive("a", column.type, column.digest)
    assert part.received_bytes == 0
    with pytest.raises(DataCorrupt) as long:
        part.write(bytes(len(data) + 1))
    with pytest.raises(DataCorrupt) as short:
        part.finish()
    part.write(data)
    part.finish()

    assert (long.value.reason, short.value.reason) == ("DATA_LENGTH", "DATA_TRUNCATED")


def test_what_a_power_cut_has_spoilt_is_sent_anew(catalog: Catalog) -> None:
    column = column_of("x", X)
    part = catalog.receive("a", column.type, column.digest)
    part.write(bytes(100))
    part.close()

    catalog.put("a", "d", {"x": X})

    assert (catalog.open("a", "d").batch(Y)["x"] == X).all()


def test_a_quota_counts_what_is_coming_too_and_deleting_makes_room(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "datasets", most_bytes=X.nbytes + 10)
    catalog.put("a", "d", {"x": X})
    catalog.put("a", "e", {"x": X})  # nothing more is kept for it

    with pytest.raises(QuotaExceeded) as caught:
        catalog.put("a", "f", {"x": X + 1})
    assert caught.value.reason == "QUOTA_DATASET_BYTES"
    catalog.put("b", "d", {"x": X + 1})  # another tenant's
    catalog.delete("a", "d")
    catalog.delete("a", "e")
    part = catalog.receive("a", column_of("x", X).type, column_of("x", X).digest)
    with pytest.raises(QuotaExceeded):
        catalog.put("a", "f", {"x": X + 1})
    part.close()
    catalog.put("a", "f", {"x": X + 1})


def test_a_full_disk_is_said_and_nothing_torn_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(tmp_path / "datasets", most_bytes=1 << 62)
    huge = Type((1 << 55,), t.int8)

    with pytest.raises(StorageFull):
        catalog.receive("a", huge, "0" * 64)

    assert catalog.list("a") == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no full device")
def test_a_disk_that_fills_up_is_said(catalog: Catalog, tmp_path: Path) -> None:
    column = column_of("x", X)
    part = catalog.receive("a", column.type, column.digest)
    os.dup2(full := os.open("/dev/full", os.O_WRONLY), part._file.fileno())
    os.close(full)

    with pytest.raises(StorageFull):
        part.write(array_bytes(X))
    part.close()


def test_what_an_upload_left_is_removed_after_a_day(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "datasets")
    kept, left = column_of("x", X), column_of("x", X + 1)
    catalog.put("a", "d", {"x": X})
    for whole in (True, False):
        part = catalog.receive("a", left.type, left.digest)
        part.write(array_bytes(X + 1)[: None if whole else 100])
        if whole:
            part.finish()
        part.close()
    shelf = catalog._shelf("a")

    shelf.collect(now=time.time())
    assert len(files(tmp_path, "columns")) == 2 and len(files(tmp_path, "parts")) == 1
    shelf.collect(now=time.time() + 25 * 3600)

    assert [p.name for p in files(tmp_path, "columns")] == [kept.digest]
    assert files(tmp_path, "parts") == []


# ---- damage


def test_a_file_that_was_cut_off_is_found_at_once(catalog: Catalog, tmp_path: Path) -> None:
    catalog.put("a", "d", {"x": X})
    os.truncate(files(tmp_path, "columns")[0], 100)

    with pytest.raises(DataCorrupt):
        catalog.open("a", "d")
    catalog.put("a", "d", {"x": X})
    assert (catalog.open("a", "d").batch(Y)["x"] == X).all()


def test_a_flipped_bit_is_found_by_verify_and_mended_by_put(catalog: Catalog, tmp_path: Path) -> None:
    catalog.put("a", "d", {"x": X})
    catalog.verify("a", "d")
    file = files(tmp_path, "columns")[0]
    data = bytearray(file.read_bytes())
    data[17] ^= 4
    file.write_bytes(data)

    with pytest.raises(DataCorrupt):
        catalog.verify("a", "d")
    catalog.put("a", "d", {"x": X})
    catalog.verify("a", "d")


@pytest.mark.parametrize("kind", ["names", "sets"])
@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"columns": 3}', b'{"columns": []}', b"[" * 100_000])
def test_a_broken_description_is_said(catalog: Catalog, tmp_path: Path, kind: str, text: bytes) -> None:
    catalog.put("a", "d", {"x": X})
    files(tmp_path, kind)[0].write_bytes(text)

    with pytest.raises(DataCorrupt):
        catalog.open("a", "d")


@pytest.mark.parametrize("kind", ["names", "sets", "columns"])
def test_a_link_in_the_store_is_not_followed(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    catalog.put("a", "d", {"x": X})
    file = files(tmp_path, kind)[0]
    os.rename(file, tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(DataCorrupt):
        catalog.open("a", "d")
