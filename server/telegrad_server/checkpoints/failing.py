"""A file system, and a bucket, that reach a failpoint at each step of a checkpoint, on the way to another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from telegrad_server.checkpoints import manifest, objects
from telegrad_server.checkpoints.files import Files, Output
from telegrad_server.checkpoints.objects import Bucket
from telegrad_server.checkpoints.places import GONE, WRITING
from telegrad_server.failpoints import Reached


class FailingFiles:
    """Another file system, and the failpoints on the way to it."""

    def __init__(self, files: Files, reached: Reached) -> None:
        self._files = files
        self._reached = reached

    def make_folder(self, path: Path) -> None:
        if path.name.startswith(WRITING):
            self._reached("checkpoint.begin")
        self._files.make_folder(path)

    def create(self, path: Path) -> Output:
        what = "checkpoint.manifest" if path.name == manifest.NAME else "checkpoint.shard"
        return _FailingOutput(self._files.create(path), self._reached, what)

    def sync_folder(self, path: Path) -> None:
        if path.name.startswith(WRITING):
            self._reached("checkpoint.folder_sync")
        self._files.sync_folder(path)

    def rename(self, old: Path, new: Path) -> None:
        if old.name.startswith(WRITING):
            self._reached("checkpoint.rename")
        self._files.rename(old, new)
        self._reached("checkpoint.gc" if new.name.startswith(GONE) else "checkpoint.latest")

    def remove(self, path: Path) -> None:
        if path.parent.name.startswith(GONE):
            self._reached("checkpoint.gc_remove")
        self._files.remove(path)

    def remove_folder(self, path: Path) -> None:
        self._files.remove_folder(path)

    def names(self, path: Path) -> list[str]:
        return self._files.names(path)

    def read(self, path: Path, most_bytes: int) -> memoryview:
        if path.name != manifest.NAME:
            self._reached("checkpoint.restore")
        return self._files.read(path, most_bytes)

    def room(self, path: Path) -> int:
        return self._files.room(path)


class FailingBucket:
    """Another bucket, and the failpoints on the way to it: the put of a manifest is all that a rename is elsewhere."""

    def __init__(self, bucket: Bucket, reached: Reached) -> None:
        self._bucket = bucket
        self._reached = reached

    def create(self, key: str) -> Output:
        file = key.rpartition("/")[2]
        if file == objects.GONE:
            return _Followed(self._bucket.create(key), lambda: self._reached("checkpoint.gc"))
        if file == manifest.NAME:
            output = _Followed(self._bucket.create(key), lambda: self._reached("checkpoint.latest"))
            return _FailingOutput(output, self._reached, "checkpoint.manifest", also=_OF_A_RENAME)
        if file.startswith("shard-00001"):
            self._reached("checkpoint.begin")
        return _FailingOutput(self._bucket.create(key), self._reached, "checkpoint.shard")

    def read(self, key: str, most_bytes: int) -> memoryview:
        if not key.endswith(f"/{manifest.NAME}"):
            self._reached("checkpoint.restore")
        return self._bucket.read(key, most_bytes)

    def keys(self, folder: str) -> list[str]:
        return self._bucket.keys(folder)

    def folders(self) -> list[str]:
        return self._bucket.folders()

    def remove(self, key: str) -> None:
        self._reached("checkpoint.gc_remove")
        self._bucket.remove(key)

    def drop_uploads(self, folder: str) -> None:
        self._bucket.drop_uploads(folder)


_OF_A_RENAME = ("checkpoint.folder_sync", "checkpoint.rename")


class _Followed:
    """An output with something to be done once it lasts."""

    def __init__(self, output: Output, lasts: Callable[[], None]) -> None:
        self._output, self._lasts = output, lasts

    def write(self, data: bytes | memoryview) -> None:
        self._output.write(data)

    def sync(self) -> None:
        self._output.sync()
        self._lasts()

    def close(self) -> None:
        self._output.close()


class _FailingOutput:
    def __init__(self, output: Output, reached: Reached, what: str, *, also: tuple[str, ...] = ()) -> None:
        self._output = output
        self._reached = reached
        self._what = what
        self._also = also

    def write(self, data: bytes | memoryview) -> None:
        half = len(data) // 2
        self._output.write(data[:half])
        self._reached(self._what)
        self._output.write(data[half:])

    def sync(self) -> None:
        for name in (f"{self._what}_sync", *self._also):
            self._reached(name)
        self._output.sync()

    def close(self) -> None:
        self._output.close()
