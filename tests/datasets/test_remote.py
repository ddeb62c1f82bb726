"""What an operator registers in an S3: fetched once for each version, and sentences for what cannot be had."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import NotFound, ResourceError
from telegrad.safetensors import save_file
from telegrad_server.datasets import Catalog, Pass, parse_roots

from tests.datasets.parquets import held_bytes, write
from tests.faults import conftest as faults

s3fs: Any = pytest.importorskip("s3fs")
moto: Any = pytest.importorskip("moto.server")
boto3: Any = pytest.importorskip("boto3")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
start = faults.start

BUCKET = "telegrad-tests"
X = np.arange(60, dtype=np.float32).reshape(10, 2, 3)
Y = np.arange(10, dtype=np.int64)
ROWS = np.array([7, 0, 3])


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket, which this process's environment leads to."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # it remembers the address of other tests' server
    bucket = boto3.resource("s3").Bucket(BUCKET)
    bucket.create()
    bucket.objects.delete()
    return bucket


def catalog_of(tmp_path: Path, roots: str) -> Catalog:
    return Catalog(tmp_path / "datasets", roots=parse_roots(roots))


def put_npz(bucket: Any, key: str, **arrays: Any) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    bucket.put_object(Key=key, Body=file.getvalue())


def test_every_kind_of_file_is_read_from_there(bucket: Any, tmp_path: Path) -> None:
    save_file({"x": X, "y": Y}, tmp_path / "a.safetensors")
    bucket.upload_file(str(tmp_path / "a.safetensors"), "deep/down/a.safetensors")
    put_npz(bucket, "a.npz", x=X, y=Y)
    bucket.put_object(Key="a.txt", Body=b"abcdefghij")
    s3 = f"s3://{BUCKET}"
    catalog = catalog_of(
        tmp_path, f"tensors={s3}/deep/down/a.safetensors,arrays={s3}/a.npz,book={s3}/a.txt?window=3&stride=1"
    )

    for name in ("tensors", "arrays"):
        batch = catalog.open("anybody", name).batch(ROWS)
        np.testing.assert_array_equal(batch["x"], X[ROWS])
        np.testing.assert_array_equal(batch["y"], Y[ROWS])
    assert bytes(catalog.open("anybody", "book").batch(np.array([7]))["tokens"]) == b"hij"
    assert [(d.name, d.source) for d in catalog.list("anybody")] == [
        ("arrays", "a.npz"),
        ("book", "a.txt"),
        ("tensors", "a.safetensors"),
    ]


def test_parquet_and_a_folder_of_images(bucket: Any, tmp_path: Path) -> None:
    pa, pq, image = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet", "PIL.Image"))
    pq.write_table(pa.table({"y": Y}), tmp_path / "a.parquet")
    bucket.upload_file(str(tmp_path / "a.parquet"), "a.parquet")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 5, 3), np.uint8)
    for number, array in enumerate(pixels):
        file = io.BytesIO()
        image.fromarray(array).save(file, "PNG")
        bucket.put_object(Key=f"faces/{('cats', 'dogs')[number % 2]}/{number}.png", Body=file.getvalue())
    catalog = catalog_of(tmp_path, f"t=s3://{BUCKET}/a.parquet,faces=s3://{BUCKET}/faces?kind=images")

    faces = catalog.open("anybody", "faces").batch(np.arange(4))

    np.testing.assert_array_equal(catalog.open("anybody", "t").batch(ROWS)["y"], Y[ROWS])
    np.testing.assert_array_equal(faces["image"], pixels[[0, 2, 1, 3]])
    assert faces["label"].tolist() == [0, 0, 1, 1]


def test_a_version_is_fetched_once_and_another_one_is_another_dataset(bucket: Any, tmp_path: Path) -> None:
    put_npz(bucket, "a.npz", x=X)
    catalog = catalog_of(tmp_path, f"a=s3://{BUCKET}/a.npz")
    digest = catalog.open("anybody", "a").digest
    (fetched,) = (tmp_path / "datasets").rglob("*.fetched")
    when = fetched.stat().st_mtime_ns

    assert catalog_of(tmp_path, f"a=s3://{BUCKET}/a.npz").open("somebody", "a").digest == digest
    assert fetched.stat().st_mtime_ns == when
    put_npz(bucket, "a.npz", x=X + 1)
    dataset = catalog.open("anybody", "a")

    assert dataset.digest != digest
    np.testing.assert_array_equal(dataset.batch(ROWS)["x"], X[ROWS] + 1)
    assert not fetched.exists()
    assert not list((tmp_path / "datasets").rglob("*.new"))
    with pytest.raises(NotFound):
        catalog.open_digest("anybody", digest)


def test_what_is_not_there_and_a_store_that_does_not_answer(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = catalog_of(
        tmp_path, f"a=s3://{BUCKET}/no.npz,b=s3://no-such-bucket-here/a.npz,c=s3://{BUCKET}/no?kind=images"
    )

    for name in ("a", "b", "c"):
        with pytest.raises(NotFound):
            catalog.open("anybody", name)
    assert catalog.list("anybody") == []
    with pytest.raises(ResourceError, match="no-such-protocol:// needs a package"):
        catalog_of(tmp_path, "a=no-such-protocol://bucket/a.npz")
    with pytest.raises(ResourceError, match=r"\?kind="):
        parse_roots(f"a=s3://{BUCKET}/folder")
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(ResourceError, match="s3 does not give it"):
            catalog.open("anybody", "a")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_job_trains_on_what_lies_in_an_s3(bucket: Any, start: Any, tmp_path: Path) -> None:
    put_npz(bucket, "a.npz", x=X.reshape(10, 6), y=Y.astype(np.float32))
    server = start("--data-dir", str(tmp_path / "served"), "--dataset-roots", f"points=s3://{BUCKET}/a.npz")
    with tg.connect(server.address, new=True) as session:
        w = tg.Variable(np.zeros(6, np.float32))

        def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            loss = ((x @ w - y) ** 2).mean()
            w.assign(w - 1e-4 * tg.grad(lambda w: ((x @ w - y) ** 2).mean())(w))
            return loss

        job = session.submit(step, data=session.datasets["points"], epochs=4, batch_size=5).wait(timeout_seconds=60)

        losses = job.history["epoch/loss"]["value"]
    assert losses[-1] < losses[0]


def test_a_folder_of_parquet_files_is_read_in_blocks_and_never_fetched(bucket: Any, tmp_path: Path) -> None:
    x, y = write(tmp_path / "day=1", files=[(140, 20), (120, 20)])
    for path in (tmp_path / "day=1").iterdir():
        bucket.upload_file(str(path), f"clicks.parquet/day=1/{path.name}")
    bucket.put_object(Key="clicks.parquet/_SUCCESS", Body=b"")
    row_bytes = x[0].nbytes + 8
    s3 = f"s3://{BUCKET}/clicks.parquet"
    options, cache_bytes = f"shuffle_bytes={20 * row_bytes}", 100 * row_bytes
    roots = f"a={s3}?kind=parquet&{options},b={s3}/*/*.parquet?{options}"
    catalog = Catalog(tmp_path / "datasets", roots=parse_roots(roots), cache_bytes=cache_bytes)

    for name in ("a", "b"):
        clicks, described = catalog.open("anybody", name), catalog.describe("anybody", name)
        of = Pass(0, 260, 5, 1)
        seen: list[int] = []
        for first in range(0, 260, 13):
            rows = clicks.rows_at(np.arange(first, first + 13), of)
            np.testing.assert_array_equal(clicks.batch(rows)["x"], x[rows])
            seen += rows.tolist()
        assert sorted(seen) == y.tolist()
        assert (described.rows, described.blocks) == (260, 7 + 6)
        assert 0 < held_bytes(tmp_path / "datasets" / "registered" / "blocks") <= cache_bytes
    assert not list((tmp_path / "datasets").rglob("*.fetched"))
    old = catalog.open("anybody", "a")
    bucket.upload_file(str(tmp_path / "day=1" / "01.parquet"), "clicks.parquet/day=1/00.parquet")

    with pytest.raises(NotFound, match="another file now"):
        old.batch(np.arange(140))
    with pytest.raises(NotFound):
        Catalog(tmp_path / "datasets", roots=parse_roots(roots)).open_digest("anybody", old.digest)
