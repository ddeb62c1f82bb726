"""Files of an object store (S3 and what else fsspec knows), fetched into a folder of ours once for each version.

Training reads rows at random, which is a request each there and a page of memory here: so a file is fetched whole when
it is first asked for, and mapped from then on. A version is what the store says of its files: name, size, and ETag or
time of change.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telegrad.errors import DataCorrupt, ResourceError, StorageAway, TelegradError

from telegrad_server.datasets.disk import only_one, storage
from telegrad_server.datasets.libraries import library
from telegrad_server.datasets.roots import Root, is_pattern

_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")
"""Under these names stores tell what changes when a file does."""


def check_fsspec(root: Root) -> None:
    """ResourceError if the store cannot be reached with what is installed here."""
    fsspec: Any = library("fsspec", package="fsspec", dataset=root.name, extra="s3")
    protocol = root.url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        raise ResourceError(
            f"dataset {root.name!r}: {protocol}:// needs a package that is not there ({error}): for s3://,"
            " pip install 'telegrad[s3]'"
        ) from None


@dataclass(frozen=True)
class Remote:
    """The files of a root as the store says they are at one moment: by relative name, which is empty for one file."""

    root: Root
    files: Mapping[str, tuple[str, int, str]]
    """Full name, size and version of each."""

    @property
    def is_folder(self) -> bool:
        """Whether there are several files, or could be."""
        return "" not in self.files

    @property
    def digest(self) -> str:
        """What tells these files from others."""
        hash = hashlib.sha256(f"remote\n{self.root.url}\n{self.root.kind}\n{self.root.options}\n".encode())
        for name, (_, size, version) in sorted(self.files.items()):
            hash.update(f"{len(name)}:{name} {size} {version}\n".encode())
        return hash.hexdigest()

    def fetched(self, place: Path) -> Path:
        """The file or folder at ``place``, fetched if it is not there. StorageFull; DataCorrupt if it changes."""
        if place.exists():
            return place
        with storage(place.parent):
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with only_one(place.with_name(f"{place.name}.lock")):
                if not place.exists():
                    self._fetch(place)
        return place

    def _fetch(self, place: Path) -> None:
        part = place.with_name(f"{place.name}.{secrets.token_hex(4)}.new")
        try:
            for name, (full, size, _) in self.files.items():
                target = part / name if name else part
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with _reaching(self.root):
                    _store(self.root)[0].get_file(full, os.fspath(target))
                if target.stat().st_size != size:
                    raise DataCorrupt(
                        f"{full.rpartition('/')[2]} was to have {size} bytes, and came with another number"
                    )
            if look(self.root) != self:
                raise DataCorrupt(f"the files of dataset {self.root.name!r} changed while they were fetched; try again")
            os.replace(part, place)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)


def look(root: Root) -> Remote:
    """What there is now. FileNotFoundError, PermissionError; StorageAway if nobody answers."""
    with _reaching(root):
        store, top = _store(root)
        found = _found(root, store, top)
    if not found:
        raise FileNotFoundError(root.url)
    for name in found:
        if ".." in Path(name).parts:  # some stores allow it in a name; nothing is written outside our folder
            raise DataCorrupt(f"dataset {root.name!r}: a file is called {name!r}, which no folder can hold")
    return Remote(root, {name: _file(info) for name, info in found.items()})


def now_in_store(root: Root, full: str) -> tuple[str, int, str]:
    """What a store says of one file now: name, size and version. FileNotFoundError, PermissionError, StorageAway."""
    with _reaching(root):
        return _file(_store(root)[0].info(full))


class StoreFile(io.RawIOBase):
    """A file of a store, of which is fetched what is read. StorageAway from any call if the store does not answer."""

    def __init__(self, root: Root, full: str, size: int) -> None:
        super().__init__()
        self._root, self._full, self._size = root, full, size
        with _reaching(root):
            self._store, _ = _store(root)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        with _reaching(self._root):
            found: bytes = self._store.cat_file(self._full, start=self._at, end=end)
        self._at += len(found)
        return found


def _file(info: Mapping[str, Any]) -> tuple[str, int, str]:
    return info["name"], int(info["size"] or 0), _version(info)


def _found(root: Root, store: Any, top: str) -> Mapping[str, Mapping[str, Any]]:
    """The files by relative name, and what the store says of each."""
    if root.kind != "images":
        if root.kind == "parquet" and is_pattern(top):
            there = store.glob(top, detail=True)
            return _relative(top.partition("*")[0].rpartition("/")[0], there)
        info: Mapping[str, Any] = store.info(top)
        if info["type"] == "file":
            return {"": info}
        if root.kind != "parquet":
            return {}
    return _relative(top, store.find(top, detail=True))


def _relative(top: str, there: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    return {name.removeprefix(top).lstrip("/"): info for name, info in there.items() if info["type"] == "file"}


def _store(root: Root) -> tuple[Any, str]:
    """The store, which remembers no listings, and the root's name in it."""
    fsspec: Any = library("fsspec.core", package="fsspec", dataset=root.name, extra="s3")
    return fsspec.url_to_fs(root.url, use_listings_cache=False)


def _version(info: Mapping[str, Any]) -> str:
    return " ".join([f"{key}={info[key]}" for key in _VERSIONS if info.get(key) is not None])


@contextmanager
def _reaching(root: Root) -> Generator[None, None, None]:
    """Inside the ``with``, whatever a store's library raises is a sentence."""
    try:
        yield
    except (FileNotFoundError, PermissionError, TelegradError):
        raise
    except Exception as error:  # the edge to libraries that raise what their own clients do
        raise StorageAway(
            f"dataset {root.name!r}: {root.url.partition('://')[0]} does not give it ({type(error).__name__}: {error})"
        ) from error
