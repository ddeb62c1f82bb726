"""A file system that reaches a failpoint at each step of a checkpoint's protocol, on the way to another."""

from __future__ import annotations

from pathlib import Path

from telegrad_server.checkpoints import manifest
from telegrad_server.checkpoints.files import Files, Output
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


class _FailingOutput:
    def __init__(self, output: Output, reached: Reached, what: str) -> None:
        self._output = output
        self._reached = reached
        self._what = what

    def write(self, data: bytes | memoryview) -> None:
        half = len(data) // 2
        self._output.write(data[:half])
        self._reached(self._what)
        self._output.write(data[half:])

    def sync(self) -> None:
        self._reached(f"{self._what}_sync")
        self._output.sync()

    def close(self) -> None:
        self._output.close()
