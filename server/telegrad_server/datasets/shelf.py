"""One tenant's datasets on the disk. No file is named by what a user wrote: names are hashed, contents are digests.

    columns/DIGEST   a column's elements            sets/DIGEST   which columns make a dataset, as JSON
    parts/DIGEST     one that is being received     names/HASH    a name and the digest that it stands for
                                                    holds/HASH    what a job needs, whatever becomes of the name

A name is replaced in one step and a dataset never changes. What nothing leads to any more is removed: with the name
that led to it, or, what an upload left behind, after a day in which it could have gone on.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from telegrad.errors import DataCorrupt, NotFound, QuotaExceeded, StorageFull
from telegrad.ir.types import BY_NAME, Type
from telegrad.wire.arrays import numpy_dtype
from telegrad.wire.datasets import SLICE_BYTES, Column, Description, Missing, column_hash, dataset_digest

from telegrad_server.datasets.dataset import Array
from telegrad_server.datasets.disk import only_one, open_file, read_file, storage, sync_folder, write_file
from telegrad_server.datasets.part import Part

MOST_NAMES = 10_000
ORPHAN_SECONDS = 24 * 3600.0
SPARE_BYTES = 64 << 20
"""What an upload leaves free on the disk, for the journal and its like."""

_FOLDERS = ("columns", "parts", "sets", "names", "holds")


class Shelf:
    """The datasets of one tenant in a folder of its own. Several processes may work on it."""

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._lock = threading.RLock()
        self._parts: dict[str, Part] = {}
        for name in _FOLDERS:
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    # ---- putting

    def offer(self, name: str, columns: Sequence[Column]) -> Description | tuple[Missing, ...]:
        """Let the name stand for the dataset with these columns; or what is missing for it."""
        digest = dataset_digest(columns)
        with self._alone():
            missing = {c.digest: c for c in columns if not self._has(c)}
            if missing:
                parts = {d: self._size(self._folder / "parts" / d) for d in missing}
                self._check_room(sum(c.type.nbytes for c in missing.values()) - sum(parts.values()))
                return tuple(Missing(d, min(parts[d], c.type.nbytes)) for d, c in missing.items())
            place = self._place("names", name)
            if not place.exists() and len(self._listed("names")) >= MOST_NAMES:
                raise QuotaExceeded(f"there are {MOST_NAMES} datasets already; delete some", reason="QUOTA_DATASETS")
            former = self._named(place)
            self._write("sets", digest, {"columns": [_column_to_json(c) for c in columns]})
            self._write("names", place.name, {"name": name, "digest": digest})
            if former is not None and former != digest:
                self._drop(former)
        return Description(name, digest, columns[0].type.shape[0], tuple(columns))

    def receive(self, type: Type, digest: str) -> Part:
        """Take the bytes of a column; another upload of the same one ends. Close it in the end, whatever happens."""
        with self._alone():
            former = self._parts.pop(digest, None)
            if former is not None:
                former.close()
            path = self._folder / "parts" / digest
            self._check_room(type.nbytes - self._size(path))
            with storage(self._folder):
                part = Part(path, self._folder / "columns" / digest, type, digest)
            self._parts = {d: p for d, p in self._parts.items() if not p.is_over} | {digest: part}
            return part

    def _check_room(self, wanted: int) -> None:
        coming = sum(part.type.nbytes - part.received_bytes for part in self._parts.values() if not part.is_over)
        held = self.held_bytes
        if held + coming + wanted > self._most_bytes:
            raise QuotaExceeded(
                f"{wanted} bytes more are over the quota of {self._most_bytes} bytes for datasets, of which"
                f" {held + coming} are taken; delete some",
                reason="QUOTA_DATASET_BYTES",
                wanted=wanted,
                held=held + coming,
                quota=self._most_bytes,
            )
        found = os.statvfs(self._folder)
        free = found.f_bavail * found.f_frsize - SPARE_BYTES
        if wanted > 0 and wanted > free:
            raise StorageFull(f"{wanted} bytes are wanted where datasets are kept, and {max(free, 0)} are free")

    @property
    def held_bytes(self) -> int:
        """What the tenant's columns take, those that are being received too."""
        return sum(self._size(path) for folder in ("columns", "parts") for path in (self._folder / folder).iterdir())

    # ---- finding

    def names(self) -> list[Description]:
        """All that have a name, in its order."""
        with self._lock:
            found: list[Description] = []
            for path in self._listed("names"):
                try:
                    entry = self._read(path)
                    found.append(self.described(_text(entry, "digest", path), name=_text(entry, "name", path)))
                except FileNotFoundError:  # deleted meanwhile
                    continue
            return sorted(found, key=lambda d: d.name)

    def named(self, name: str) -> Description:
        """What a name stands for, or NotFound."""
        digest = self._named(self._place("names", name))
        if digest is None:
            raise NotFound(f"there is no dataset {name!r}; session.datasets.list() tells which there are", name=name)
        return self.described(digest, name=name)

    def _named(self, place: Path) -> str | None:
        try:
            return _text(self._read(place), "digest", place)
        except FileNotFoundError:
            return None

    def described(self, digest: str, *, name: str = "") -> Description:
        """The dataset with a digest, or NotFound. DataCorrupt if what the disk says of it is not what it was."""
        path = self._folder / "sets" / digest
        try:
            columns = _columns_from_json(self._read(path), path)
        except FileNotFoundError:
            raise NotFound(f"there is no dataset with the digest {digest}", digest=digest) from None
        if dataset_digest(columns) != digest:
            raise DataCorrupt(f"sets/{digest} says something else than what was written", file=str(path))
        return Description(name, digest, columns[0].type.shape[0], columns)

    def mapped(self, column: Column) -> Array:
        """A column's elements, mapped and not read. DataCorrupt if its file has gone or has another length."""
        path = self._folder / "columns" / column.digest
        try:
            descriptor = open_file(path)
        except FileNotFoundError:
            raise DataCorrupt(f"the file columns/{column.digest} of column {column.name!r} has gone") from None
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != column.type.nbytes:
                raise DataCorrupt(
                    f"columns/{column.digest} of column {column.name!r} has {size} bytes, and {column.type} takes"
                    f" {column.type.nbytes}; put the dataset again",
                    expected=column.type.nbytes,
                    found=size,
                )
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        dtype = numpy_dtype(column.type.dtype)
        return np.frombuffer(data, np.uint8).view(dtype.newbyteorder("<")).reshape(column.type.shape)

    def verify(self, columns: Iterable[Column]) -> None:
        """Read everything again. DataCorrupt for the first column that is not what was put, which can be put again."""
        for column in columns:
            hash = column_hash(column.type)
            data = self.mapped(column).reshape(-1).view(np.uint8).data
            for at in range(0, len(data), SLICE_BYTES):
                hash.update(data[at : at + SLICE_BYTES])
            if hash.hexdigest() != column.digest:
                place = self._folder / "columns" / column.digest
                os.replace(place, place.with_suffix(".corrupt"))
                raise DataCorrupt(
                    f"columns/{column.digest} of column {column.name!r} has the digest {hash.hexdigest()}: the disk has"
                    " changed it; put the dataset again",
                    expected=column.digest,
                    found=hash.hexdigest(),
                )

    # ---- holding and removing

    def hold(self, digest: str, *, by: str) -> None:
        """Keep a dataset, as one of those of ``by``, which is known by this text, until it lets go. NotFound."""
        with self._alone():
            self.described(digest)
            self._write("holds", self._place("holds", f"{by}\n{digest}").name, {"name": by, "digest": digest})

    def holders(self) -> set[str]:
        """By what datasets are held."""
        with self._alone():
            return {_text(self._read(place), "name", place) for place in self._listed("holds")}

    def let_go(self, *, by: str) -> None:
        """All that ``by`` held is no longer kept for it. Nothing happens if it held nothing."""
        with self._alone():
            for place in [place for place in self._listed("holds") if self._read(place).get("name") == by]:
                self._remove(place)

    def delete(self, name: str) -> None:
        """Forget a name, and what only it led to. NotFound."""
        with self._alone():
            if not self._remove(self._place("names", name)):
                raise NotFound(f"there is no dataset {name!r} to delete", name=name)

    def _remove(self, place: Path) -> bool:
        digest = self._named(place)
        if digest is None:
            return False
        place.unlink()
        sync_folder(place.parent)
        self._drop(digest)
        return True

    def _drop(self, digest: str) -> None:
        """Remove a dataset, unless a name or a job leads to it, and those of its columns that no other has."""
        if digest in self._wanted():
            return
        try:
            columns = self.described(digest).columns
        except (NotFound, DataCorrupt):  # then what it had is found to be an orphan
            columns = ()
        (self._folder / "sets" / digest).unlink(missing_ok=True)
        sync_folder(self._folder / "sets")
        used = self._used()
        for column in columns:
            if column.digest not in used:
                (self._folder / "columns" / column.digest).unlink(missing_ok=True)

    def collect(self, *, now: float) -> None:
        """Remove what nothing leads to and nobody has touched for a day; ``now`` in seconds of the epoch."""
        with self._alone():
            self._remove_old("sets", self._wanted(), now)
            self._remove_old("columns", self._used(), now)
            self._remove_old("parts", {d for d, p in self._parts.items() if not p.is_over}, now)

    def _remove_old(self, folder: str, kept: set[str], now: float) -> None:
        for path in (self._folder / folder).iterdir():
            if path.name not in kept and now - path.lstat().st_mtime > ORPHAN_SECONDS:
                path.unlink()

    def _wanted(self) -> set[str]:
        """The datasets to which a name or a job leads."""
        paths = [path for folder in ("names", "holds") for path in self._listed(folder)]
        return {_text(self._read(path), "digest", path) for path in paths}

    def _used(self) -> set[str]:
        """The columns of all datasets that there are."""
        return {c.digest for path in self._listed("sets") for c in _columns_from_json(self._read(path), path)}

    # ---- files

    @contextmanager
    def _alone(self) -> Generator[None, None, None]:
        """Inside the ``with`` no other thread or process changes what leads where."""
        with self._lock, storage(self._folder), only_one(self._folder / "lock"):
            yield

    def _has(self, column: Column) -> bool:
        path = self._folder / "columns" / column.digest
        return path.exists() and self._size(path) == column.type.nbytes

    def _size(self, path: Path) -> int:
        try:
            return path.lstat().st_size
        except FileNotFoundError:
            return 0

    def _place(self, folder: str, name: str) -> Path:
        return self._folder / folder / hashlib.sha256(name.encode()).hexdigest()

    def _listed(self, folder: str) -> list[Path]:
        return [path for path in (self._folder / folder).iterdir() if len(path.name) == 64]  # none half written

    def _write(self, folder: str, name: str, entry: Mapping[str, Any]) -> None:
        write_file(self._folder / folder / name, json.dumps(entry).encode())

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            entry = json.loads(read_file(path))
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise DataCorrupt(f"{path.parent.name}/{path.name} is not what was written there", file=str(path))
        return cast("dict[str, Any]", entry)


def _text(entry: Mapping[str, Any], key: str, path: Path) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise DataCorrupt(f"{path.parent.name}/{path.name} has no {key}", file=str(path))
    return value


def _column_to_json(column: Column) -> dict[str, Any]:
    type = column.type
    return {"name": column.name, "dtype": type.dtype.name, "shape": list(type.shape), "digest": column.digest}


def _columns_from_json(entry: Mapping[str, Any], path: Path) -> tuple[Column, ...]:
    try:
        return tuple(
            Column(str(c["name"]), Type(tuple(map(int, c["shape"])), BY_NAME[c["dtype"]]), str(c["digest"]))
            for c in entry["columns"]
        )
    except (KeyError, TypeError, ValueError):
        raise DataCorrupt(f"{path.parent.name}/{path.name} describes no columns", file=str(path)) from None
