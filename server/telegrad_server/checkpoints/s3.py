"""Objects in S3, or a store that speaks its language, through s3fs. Whatever goes wrong there is waited for.

A large object goes up in parts, so that a piece of it is held in memory. Parts that a crash has left are seen by nobody
and are dropped when the job goes on; a rule of the bucket may drop them as well (AbortIncompleteMultipartUpload).
"""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from telegrad.errors import ResourceError

from telegrad_server.checkpoints.files import Output

PART_BYTES = 16 << 20
"""Of an object's parts but the last. S3 takes 5 MiB to 5 GiB, and 10,000 of them."""


class S3Bucket:
    """What lies below ``s3://bucket/prefix``. ResourceError, in a sentence, if it cannot be reached."""

    def __init__(self, url: str, *, part_bytes: int = PART_BYTES) -> None:
        self._part_bytes = part_bytes
        self._url = url
        try:
            s3fs: Any = import_module("s3fs")
        except ImportError as error:
            raise ResourceError(f"{url} needs s3fs ({error}): pip install 'telegrad[s3]'") from None
        self._bucket, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
        if not url.startswith("s3://") or not self._bucket:
            raise ResourceError(f"{url!r} is not s3://BUCKET or s3://BUCKET/PREFIX")
        self._prefix = f"{prefix}/" if prefix else ""
        self._s3: Any = s3fs.S3FileSystem(use_listings_cache=False)
        try:
            self._ask("list_objects_v2", Prefix=self._prefix, MaxKeys=1)
        except OSError as error:
            raise ResourceError(f"{url} cannot be listed: {error.strerror}", reason="STORAGE_FAILED") from error

    def create(self, key: str) -> Output:
        return _Upload(self._ask, self._prefix + key, self._part_bytes)

    def read(self, key: str, most_bytes: int) -> memoryview:
        with _answered():
            return memoryview(self._s3.cat_file(f"{self._bucket}/{self._prefix}{key}", start=0, end=most_bytes))

    def keys(self, folder: str) -> list[str]:
        found = self._pages("list_objects_v2", "Contents", Prefix=f"{self._prefix}{folder}/")
        return [item["Key"].removeprefix(self._prefix) for item in found]

    def folders(self) -> list[str]:
        found = self._pages("list_objects_v2", "CommonPrefixes", Prefix=self._prefix, Delimiter="/")
        return [item["Prefix"].removeprefix(self._prefix).rstrip("/") for item in found]

    def remove(self, key: str) -> None:
        self._ask("delete_object", Key=self._prefix + key)

    def drop_uploads(self, folder: str) -> None:
        prefix = f"{self._prefix}{folder}/"
        for item in self._ask("list_multipart_uploads", Prefix=prefix).get("Uploads", []):
            if item["Key"].startswith(prefix):
                self._ask("abort_multipart_upload", Key=item["Key"], UploadId=item["UploadId"])

    def _pages(self, method: str, items: str, **words: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        more: dict[str, str] = {}
        while True:
            page = self._ask(method, **words, **more)
            found += page.get(items, [])
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _ask(self, method: str, **words: Any) -> Any:
        with _answered():
            return self._s3.call_s3(method, Bucket=self._bucket, **words)


class _Upload:
    """An object on its way."""

    def __init__(self, ask: Any, key: str, part_bytes: int) -> None:
        self._ask, self._key, self._part_bytes = ask, key, part_bytes
        self._held = bytearray()
        self._upload: str | None = None
        self._parts: list[dict[str, Any]] = []

    def write(self, data: bytes | memoryview) -> None:
        self._held += data
        while len(self._held) >= self._part_bytes:
            self._send(self._part_bytes)

    def sync(self) -> None:
        if self._upload is None:
            self._ask("put_object", Key=self._key, Body=bytes(self._held))
            return
        if self._held:
            self._send(len(self._held))
        parts = {"Parts": self._parts}
        self._ask("complete_multipart_upload", Key=self._key, UploadId=self._upload, MultipartUpload=parts)
        self._upload = None

    def close(self) -> None:
        if self._upload is not None:  # it was not synced
            upload, self._upload = self._upload, None
            self._ask("abort_multipart_upload", Key=self._key, UploadId=upload)

    def _send(self, count: int) -> None:
        if self._upload is None:
            self._upload = self._ask("create_multipart_upload", Key=self._key)["UploadId"]
        number = len(self._parts) + 1
        body = bytes(self._held[:count])
        answer = self._ask("upload_part", Key=self._key, UploadId=self._upload, PartNumber=number, Body=body)
        self._parts.append({"ETag": answer["ETag"], "PartNumber": number})
        del self._held[:count]


@contextmanager
def _answered() -> Generator[None]:
    """Inside the ``with`` an object that is not there is FileNotFoundError, and anything else passes: EAGAIN."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, str(error)) from error
    except Exception as error:  # the edge to libraries that raise what their own clients do
        raise OSError(errno.EAGAIN, f"{type(error).__name__}: {error}") from error
