"""Datasets, or blocks of them, on a disk by digest: fetched once, mapped, and the ones longest unused go for others.

::

    FOLDER/DIGEST/about.json, 0, 1, …     a dataset: its columns by number
    FOLDER/.DIGEST.RANDOM/                one that is coming, or that a crash has left

Several processes may share a folder. What one of them removes the others can read to the end.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from telegrad.errors import DataCorrupt, ResourceError
from telegrad.wire.datasets import check_digest

from telegrad_server.datasets.dataset import Dataset, Mapped
from telegrad_server.datasets.disk import storage
from telegrad_server.datasets.fetched import Contents, Part, open_fetched, room_for, write_fetched

LEFT_SECONDS = 24 * 3600.0
"""What is still coming after so long is what a crash has left."""


class Cache:
    """Datasets in a folder, of ``most_bytes`` in all. For any thread."""

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._coming: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
        self._reserved: dict[str, int] = {}
        self._in_use: weakref.WeakValueDictionary[str, Mapped] = weakref.WeakValueDictionary()

    @property
    def most_bytes(self) -> int:
        """What it may hold in all."""
        return self._most_bytes

    def find(self, digest: str) -> Dataset | None:
        """The dataset with a digest, if it is here."""
        return self._found(check_digest(digest))

    def open(self, digest: str, fetch: Callable[[], Iterable[Part]]) -> Dataset:
        """The dataset with a digest, to be read; what ``fetch`` gives, if it is not here yet.

        ResourceError if it is larger than the cache, StorageFull, DataCorrupt; and what ``fetch`` raises.
        """
        check_digest(digest)
        with self._lock:
            coming = self._coming.setdefault(digest, threading.Lock())
        with coming:  # nobody fetches what somebody is fetching
            return self._found(digest) or self._fetched(digest, fetch())

    def _found(self, digest: str) -> Mapped | None:
        place = self._folder / digest
        try:
            found = self._in_use.get(digest) or open_fetched(place, digest)
            os.utime(place)
        except FileNotFoundError:
            return None
        except (DataCorrupt, ValueError, KeyError, TypeError):
            shutil.rmtree(place, ignore_errors=True)
            return None
        self._in_use[digest] = found
        return found

    def _fetched(self, digest: str, parts: Iterable[Part]) -> Mapped:
        coming = iter(parts)
        contents = next(coming, None)
        if not isinstance(contents, Contents):
            raise DataCorrupt("a dataset did not begin with what it holds")
        with storage(self._folder.parent):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self._folder / f".{digest}.{secrets.token_hex(4)}"
        wanted = room_for(contents)
        with self._lock:
            self._make_room(wanted)
            self._reserved[beside.name] = wanted
        try:
            write_fetched(beside, contents, coming)
            found = self._in_use[digest] = open_fetched(beside, digest)  # before another process could remove it
            with suppress(OSError):  # another process was faster
                os.rename(beside, self._folder / digest)
            return found
        finally:
            shutil.rmtree(beside, ignore_errors=True)
            with self._lock:
                del self._reserved[beside.name]

    def _make_room(self, wanted: int) -> None:
        """Remove the longest unused, but none that is being read."""
        if wanted > self._most_bytes:
            raise ResourceError(
                f"a dataset, or a block of one, of {wanted} bytes does not fit into a cache of {self._most_bytes}; its"
                " operator can give more with --cache-bytes",
                wanted=wanted,
            )
        places: list[tuple[float, int, Path]] = []
        for place in self._folder.iterdir():
            if place.name in self._reserved:
                continue
            with suppress(FileNotFoundError):
                used = place.stat().st_mtime
                if place.name.startswith(".") and time.time() - used > LEFT_SECONDS:
                    shutil.rmtree(place, ignore_errors=True)
                    continue
                places.append((used, sum(file.stat().st_size for file in place.iterdir()), place))
        held = sum(size for _, size, _ in places) + sum(self._reserved.values())
        for _, size, place in sorted(places):
            if held + wanted <= self._most_bytes:
                return
            if not place.name.startswith(".") and place.name not in self._in_use:
                shutil.rmtree(place, ignore_errors=True)
                held -= size
