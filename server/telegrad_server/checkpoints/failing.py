"""The failpoints of checkpoints: a file system that reaches one at each step of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from telegrad_server.checkpoints import manifest
from telegrad_server.checkpoints.files import Files, Output
from telegrad_server.checkpoints.places import GONE, WRITING
from telegrad_server.failpoints import Failpoints

FAILPOINTS = (
    "checkpoint.begin",  # before the folder is made
    "checkpoint.shard",  # in the middle of a piece of a shard
    "checkpoint.shard_sync",  # a shard is written and not synced
    "checkpoint.manifest",  # in the middle of the manifest
    "checkpoint.manifest_sync",
    "checkpoint.folder_sync",  # all files are synced, their names are not
    "checkpoint.rename",  # before the commit
    "checkpoint.latest",  # after it: the folder above is not synced
    "checkpoint.gc",  # a checkpoint has lost its name
    "checkpoint.gc_remove",  # before one of its files goes
    "checkpoint.restore",  # before a shard is read
)


class FailingFiles:
    """Another file system, and the failpoints on the way to it."""

    def __init__(self, files: Files, failpoints: Failpoints) -> None:
        self._files = files
        self._reach = failpoints.reach

    def make_folder(self, path: Path) -> None:
        if path.name.startswith(WRITING):
            self._reach("checkpoint.begin")
        self._files.make_folder(path)

    def create(self, path: Path) -> Output:
        what = "checkpoint.manifest" if path.name == manifest.NAME else "checkpoint.shard"
        return _FailingOutput(self._files.create(path), self._reach, what)

    def sync_folder(self, path: Path) -> None:
        if path.name.startswith(WRITING):
            self._reach("checkpoint.folder_sync")
        self._files.sync_folder(path)

    def rename(self, old: Path, new: Path) -> None:
        if old.name.startswith(WRITING):
            self._reach("checkpoint.rename")
        self._files.rename(old, new)
        self._reach("checkpoint.gc" if new.name.startswith(GONE) else "checkpoint.latest")

    def remove(self, path: Path) -> None:
        if path.parent.name.startswith(GONE):
            self._reach("checkpoint.gc_remove")
        self._files.remove(path)

    def remove_folder(self, path: Path) -> None:
        self._files.remove_folder(path)

    def names(self, path: Path) -> list[str]:
        return self._files.names(path)

    def read(self, path: Path, most_bytes: int) -> memoryview:
        if path.name != manifest.NAME:
            self._reach("checkpoint.restore")
        return self._files.read(path, most_bytes)


class _FailingOutput:
    def __init__(self, output: Output, reach: Callable[[str], None], what: str) -> None:
        self._output = output
        self._reach = reach
        self._what = what

    def write(self, data: bytes | memoryview) -> None:
        half = len(data) // 2
        self._output.write(data[:half])
        self._reach(self._what)
        self._output.write(data[half:])

    def sync(self) -> None:
        self._reach(f"{self._what}_sync")
        self._output.sync()

    def close(self) -> None:
        self._output.close()
