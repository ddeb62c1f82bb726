"""What checkpoints ask of an S3, and what it does when it cannot be had."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
from telegrad.errors import ResourceError, StorageAway
from telegrad_server.checkpoints import CheckpointStore, Objects
from telegrad_server.checkpoints.s3 import S3Bucket

from tests.checkpoints import s3
from tests.checkpoints.drafts import arrays_of, draft, named, tensors

s3fs: Any = pytest.importorskip("s3fs")
pytest.importorskip("boto3")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
PART = 5 << 20  # S3 takes no less


def keys(bucket: Any) -> list[str]:
    return [found.key for found in bucket.objects.all()]


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART + 7])
def test_an_object_of_any_size_is_there_once_it_is_synced(bucket: Any, size: int) -> None:
    data = os.urandom(size)
    there = S3Bucket(s3.URL, part_bytes=PART)
    output = there.create("home/a")
    for start in range(0, size, 1 << 20):
        output.write(data[start : start + (1 << 20)])
        assert keys(bucket) == []

    output.sync()
    output.close()

    assert keys(bucket) == ["deep/down/home/a"]
    assert list(there.sizes("home")) == ["home/a"]
    assert list(bucket.multipart_uploads.all()) == []
    if size:
        assert bytes(there.read("home/a", 1 << 30)) == data
        assert bytes(there.read("home/a", 5)) == data[:5]


def test_what_is_closed_before_is_never_there_and_leaves_no_parts(bucket: Any) -> None:
    output = S3Bucket(s3.URL, part_bytes=PART).create("home/a")
    output.write(bytes(PART + 1))
    assert len(list(bucket.multipart_uploads.all())) == 1

    output.close()

    assert keys(bucket) == []
    assert list(bucket.multipart_uploads.all()) == []


def test_parts_that_a_crash_left_are_dropped_with_their_folder_alone(bucket: Any) -> None:
    there = S3Bucket(s3.URL, part_bytes=PART)
    for key in ("home/a", "home2/a"):
        there.create(key).write(bytes(PART))

    there.drop_uploads("home")

    assert [found.key for found in bucket.multipart_uploads.all()] == ["deep/down/home2/a"]


def test_more_than_a_page_of_keys(bucket: Any) -> None:
    for number in range(1003):
        bucket.put_object(Key=f"deep/down/home/{number:04d}", Body=b"")
    bucket.put_object(Key="deep/down/other/x", Body=b"")
    bucket.put_object(Key="deep/elsewhere", Body=b"")

    there = S3Bucket(s3.URL)

    assert list(there.sizes("home")) == [f"home/{number:04d}" for number in range(1003)]
    assert there.folders() == ["home", "other"]


def test_what_is_not_there_is_not_found(bucket: Any) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        S3Bucket(s3.URL).read("home/a", 5)
    assert caught.value.errno == errno.ENOENT
    S3Bucket(s3.URL).remove("home/a")


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "gs://bucket", "s3://no-such-bucket-here/x"])
def test_a_store_that_is_none_is_said_so_at_the_start(bucket: Any, url: str) -> None:
    with pytest.raises(ResourceError, match=r"s3://BUCKET|cannot be listed"):
        S3Bucket(url)


def test_a_store_that_no_longer_answers_is_waited_for(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(Objects(S3Bucket(s3.URL)))
    store.write(draft(tensors(1)), named(tensors(1)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    there = S3Bucket(s3.URL)
    monkeypatch.setattr(
        there, "_s3", s3fs.S3FileSystem(endpoint_url=nobody, use_listings_cache=False, skip_instance_cache=True)
    )
    monkeypatch.setattr(there._s3, "retries", 1)
    away = CheckpointStore(Objects(there))

    with pytest.raises(StorageAway, match="goes on by itself"):
        away.write(draft(tensors(2), step=2), named(tensors(2)))
    with pytest.raises(StorageAway, match="goes on by itself"):
        away.latest("job-1")

    assert arrays_of(store.latest("job-1").tensors) == arrays_of(named(tensors(1)))
