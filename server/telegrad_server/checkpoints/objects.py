"""Checkpoints in an object store, which renames nothing and syncs nothing: the manifest comes last, and is the commit.

::

    JOB/STEP.TRY.RANDOM/shard-00001-of-00001.safetensors, manifest.json     a checkpoint
    JOB/STEP.TRY.RANDOM/shard-00001-of-00001.safetensors                    one on its way, or left by a crash
    JOB/STEP.TRY.RANDOM/gone                                                one on its way out, whatever else is there

An object is there whole or not at all, and lasts once its put is answered. No name is used twice, so nothing is ever
overwritten, by whomever: a put with a condition, which not every store knows and which a repeated request fails, is
not needed. What goes is given the object ``gone`` first, at one stroke, and loses that one last: so a reader never
meets half a checkpoint, and anybody can finish what was cut off (`tests/checkpoints/test_objects.py` cuts it off after
each put and each removal).
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Sequence
from typing import Protocol

from telegrad_server.checkpoints import manifest as manifests
from telegrad_server.checkpoints.depot import Entry
from telegrad_server.checkpoints.files import Output
from telegrad_server.checkpoints.places import Place, places_in

GONE = "gone"
"""The object beside which nothing is a checkpoint any more."""


class Bucket(Protocol):
    """Objects by key, below a prefix. Every call raises OSError."""

    def create(self, key: str) -> Output:
        """Begin an object. It is there when it is synced, and never if it is closed before."""
        ...

    def read(self, key: str, most_bytes: int) -> memoryview:
        """The bytes of an object, as far as ``most_bytes``."""
        ...

    def keys(self, folder: str) -> list[str]:
        """The keys that begin with ``folder/``, in order."""
        ...

    def folders(self) -> list[str]:
        """What stands before the first slash of all keys, each once."""
        ...

    def remove(self, key: str) -> None:
        """Remove an object; nothing happens if it is not there."""
        ...

    def drop_uploads(self, folder: str) -> None:
        """Forget the pieces of objects below a folder that nobody has synced and nobody will."""
        ...


class Objects:
    """The checkpoints of all jobs in a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def homes(self) -> list[str]:
        return self._bucket.folders()

    def places(self, home: str) -> list[Place]:
        found = self._folders(home).items()
        whole = [folder for folder, files in found if manifests.NAME in files and GONE not in files]
        return places_in([folder.removeprefix(f"{home}/") for folder in whole])

    def begin(self, home: str, step: int) -> Entry:
        known = places_in([folder.removeprefix(f"{home}/") for folder in self._folders(home)])
        tries = [place.attempt for place in known if place.step == step]
        return Coming(self, self._bucket, home, Place(step, max(tries, default=0) + 1, secrets.token_hex(8)))

    def read(self, home: str, place: Place, file: str, most_bytes: int) -> memoryview:
        return self._bucket.read(f"{home}/{place.name}/{file}", most_bytes)

    def put_away(self, home: str, places: Sequence[Place]) -> None:
        for place in places:
            _put(self._bucket, f"{home}/{place.name}/{GONE}", b"on its way out\n")

    def clean(self, home: str) -> None:
        for folder, files in self._folders(home).items():
            if GONE in files:
                self.discard(folder, files)

    def sweep(self, home: str) -> None:
        for folder, files in self._folders(home).items():
            if GONE in files or manifests.NAME not in files:
                self.discard(folder, files)
        self._bucket.drop_uploads(home)

    def remove_home(self, home: str) -> None:
        for folder, files in self._folders(home).items():
            self.discard(folder, files)
        self._bucket.drop_uploads(home)

    def room(self) -> int:
        return 1 << 62  # nobody says, and it is paid for

    def discard(self, folder: str, files: Sequence[str]) -> None:
        """Remove objects: first what makes them a checkpoint, last what says that they are none."""
        for file in sorted(files, key=lambda file: (file == GONE, file != manifests.NAME)):
            self._bucket.remove(f"{folder}/{file}")

    def files(self, folder: str) -> list[str]:
        """The objects of a checkpoint that are there."""
        return self._folders(folder).get(folder, [])

    def _folders(self, home: str) -> dict[str, list[str]]:
        """The objects in a home, by what stands before the last slash of their keys."""
        found: dict[str, list[str]] = {}
        for key in self._bucket.keys(home):
            folder, _, file = key.rpartition("/")
            found.setdefault(folder, []).append(file)
        return found


class Coming:
    """Objects that no manifest makes a checkpoint yet."""

    def __init__(self, depot: Objects, bucket: Bucket, home: str, place: Place) -> None:
        self._depot, self._bucket, self._place = depot, bucket, place
        self._folder = f"{home}/{place.name}"
        self._files: list[str] = []

    def create(self, file: str) -> Output:
        self._files.append(file)
        return self._bucket.create(f"{self._folder}/{file}")

    def commit(self, manifest: bytes) -> Place:
        _put(self._bucket, f"{self._folder}/{manifests.NAME}", manifest)
        there = self._depot.files(self._folder)
        if not {*self._files} <= {*there} or GONE in there:  # who swept before it was one took its shards
            raise OSError(errno.ENOENT, "it was removed while it was written: its writer was replaced")
        return self._place

    def discard(self) -> None:
        self._depot.discard(self._folder, self._depot.files(self._folder))


def _put(bucket: Bucket, key: str, data: bytes) -> None:
    output = bucket.create(key)
    try:
        output.write(data)
        output.sync()
    finally:
        output.close()
