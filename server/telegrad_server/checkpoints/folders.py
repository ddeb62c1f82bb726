"""Checkpoints on a disk: each a folder that is written beside, synced, renamed, and only then spoken of.

::

    FOLDER/JOB/STEP.TRY/manifest.json, shard-00001-of-00001.safetensors     a checkpoint
    FOLDER/JOB/writing-RANDOM/                                              one on its way, or left by a crash
    FOLDER/JOB/gone-RANDOM/                                                 one on its way out

Write: the shards, then the manifest with their digests, each synced; the folder, synced; the rename, which is the
commit; the folder above, synced; then `commit` returns. So a crash at any point leaves the checkpoints that were
committed, and of the one on its way all or nothing (`tests/checkpoints/test_crashes.py` enumerates what a disk may be
left with).
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from telegrad_server.checkpoints import manifest as manifests
from telegrad_server.checkpoints.depot import Entry
from telegrad_server.checkpoints.files import Files, Output, RealFiles
from telegrad_server.checkpoints.places import GONE, WRITING, Place, places_in


class Folders:
    """The checkpoints of all jobs under a folder."""

    def __init__(self, folder: Path, *, files: Files | None = None) -> None:
        self._folder = folder
        self._files = RealFiles() if files is None else files

    def homes(self) -> list[str]:
        try:
            return self._files.names(self._folder)
        except FileNotFoundError:
            return []

    def places(self, home: str) -> list[Place]:
        try:
            return places_in(self._files.names(self._folder / home))
        except FileNotFoundError:
            return []

    def begin(self, home: str, step: int) -> Entry:
        place = self._folder / home
        beside = place / f"{WRITING}{secrets.token_hex(8)}"
        self._make_home(place)
        self._files.make_folder(beside)
        return Beside(self, self._files, beside, step)

    def read(self, home: str, place: Place, file: str, most_bytes: int) -> memoryview:
        return self._files.read(self._folder / home / place.name / file, most_bytes)

    def put_away(self, home: str, places: Sequence[Place]) -> None:
        folder = self._folder / home
        self._files.sync_folder(folder)  # what stays must last before anything goes
        for place in places:
            with suppress(FileNotFoundError):  # another process puts it away too
                self._files.rename(folder / place.name, folder / f"{GONE}{secrets.token_hex(8)}")
        self._files.sync_folder(folder)

    def clean(self, home: str) -> None:
        self._clean(self._folder / home, GONE)

    def sweep(self, home: str) -> None:
        self._clean(self._folder / home, WRITING, GONE)

    def remove_home(self, home: str) -> None:
        folder = self._folder / home
        with suppress(FileNotFoundError):
            for checkpoint in self._files.names(folder):
                self.discard(folder / checkpoint)
            self._files.remove_folder(folder)
            self._files.sync_folder(self._folder)

    def room(self) -> int:
        return self._files.room(self._folder)

    def discard(self, folder: Path) -> None:
        """Remove a folder of files, which another process may be removing too."""
        with suppress(FileNotFoundError):
            for name in self._files.names(folder):
                with suppress(FileNotFoundError):
                    self._files.remove(folder / name)
            self._files.remove_folder(folder)

    def _make_home(self, home: Path) -> None:
        """The job's folder, lasting: a crash may have left it without its name synced, so that is done each time."""
        for folder in (self._folder, home):
            with suppress(FileExistsError):
                self._files.make_folder(folder)
            self._files.sync_folder(folder.parent)

    def _clean(self, folder: Path, *prefixes: str) -> None:
        """Remove from a folder the folders whose names begin so."""
        with suppress(FileNotFoundError):
            for name in self._files.names(folder):
                if name.startswith(prefixes):
                    self.discard(folder / name)


class Beside:
    """A folder beside those that are checkpoints."""

    def __init__(self, depot: Folders, files: Files, folder: Path, step: int) -> None:
        self._depot, self._files, self._folder, self._step = depot, files, folder, step

    def create(self, file: str) -> Output:
        return self._files.create(self._folder / file)

    def commit(self, manifest: bytes) -> Place:
        output = self.create(manifests.NAME)
        try:
            output.write(manifest)
            output.sync()
        finally:
            output.close()
        self._files.sync_folder(self._folder)
        place = self._renamed()
        self._files.sync_folder(self._folder.parent)
        return place

    def discard(self) -> None:
        self._depot.discard(self._folder)

    def _renamed(self) -> Place:
        """Give the folder its name: the next try of its step, also if another process has just made one."""
        home = self._folder.parent
        while True:
            tries = [place.attempt for place in self._depot.places(home.name) if place.step == self._step]
            place = Place(self._step, max(tries, default=0) + 1)
            try:
                self._files.rename(self._folder, home / place.name)
                return place
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
