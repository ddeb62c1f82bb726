"""The Parquet files of a folder or a pattern, here or in a store, as they are at one moment."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from telegrad.errors import NotFound

from telegrad_server.datasets.remote import Remote, StoreFile, now_in_store
from telegrad_server.datasets.roots import Root, is_pattern

SUFFIX = ".parquet"


class File(NamedTuple):
    """A file: where it is, and what changes when it does."""

    place: str
    bytes: int
    version: str


@dataclass(frozen=True)
class Listing:
    """Files by relative name, in its order; ``digest`` tells them from others."""

    root: Root
    digest: str
    files: Mapping[str, File]


def listed_here(root: Root) -> Listing | None:
    """The files on this machine; None if the root is one file. FileNotFoundError if there are none."""
    path = os.fspath(root.path)
    if is_pattern(path):
        top, found = beginning(path), glob.glob(path, recursive=True)
    elif root.path.is_dir():
        top, found = path, [os.fspath(file) for file in root.path.rglob(f"*{SUFFIX}")]
    else:
        return None
    files = {os.path.relpath(file, top): _here(file) for file in found if os.path.isfile(file)}
    return _listing(root, f"registered\n{root.kind}\n{root.options}\n", files)


def listed_in_store(remote: Remote) -> Listing | None:
    """The files that a store told of; None if the root is one file. FileNotFoundError if there are none."""
    if not remote.is_folder:
        return None
    root = remote.root
    files = {name: File(*file) for name, file in remote.files.items() if is_pattern(root.url) or name.endswith(SUFFIX)}
    return _listing(root, f"remote\n{root.url}\n{root.kind}\n{root.options}\n", files)


def beginning(pattern: str) -> str:
    """The folder in which all lie that are like a pattern."""
    return pattern.partition("*")[0].rpartition("/")[0]


def _listing(root: Root, head: str, files: Mapping[str, File]) -> Listing:
    shown = {name: files[name] for name in sorted(files) if not _is_hidden(Path(name).parts)}
    if not shown:
        raise FileNotFoundError(root.url or root.path)
    hash = hashlib.sha256(f"shards\n{head}".encode())
    for name, (_, size, version) in shown.items():
        hash.update(f"{len(name)}:{name} {size} {version}\n".encode(errors="surrogateescape"))
    return Listing(root, hash.hexdigest(), shown)


def _is_hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith((".", "_")) for part in parts)


def _here(place: str) -> File:
    found = os.stat(place)
    return File(place, found.st_size, str(found.st_mtime_ns))


@contextmanager
def opened(listing: Listing, name: str) -> Generator[Any, None, None]:
    """A file, to be read. NotFound if it is another one now, FileNotFoundError if it has gone."""
    known = listing.files[name]
    is_remote = bool(listing.root.url)
    now = File(*now_in_store(listing.root, known.place)) if is_remote else _here(known.place)
    if now != known:
        raise NotFound(
            f"dataset {listing.root.name!r}: {name} is another file now than when the dataset was found",
            name=listing.root.name,
        )
    with StoreFile(listing.root, known.place, known.bytes) if is_remote else open(known.place, "rb") as file:
        yield file
