"""An operator's files as a dataset of all tenants.

Its digest is that of the files' names, sizes and times of change, and of the options: a file that is written anew makes
another dataset, and a job that read the old one says so. Their contents are not hashed, since they may take terabytes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from telegrad.errors import DataCorrupt, NotFound, TelegradError
from telegrad.ir.types import Type
from telegrad.wire.datasets import Column, Description

from telegrad_server.datasets.blocks import Blocks, block_digest
from telegrad_server.datasets.cache import Cache
from telegrad_server.datasets.dataset import Dataset, Mapped
from telegrad_server.datasets.images import Images, check_pillow
from telegrad_server.datasets.listing import Listing, listed_here, listed_in_store
from telegrad_server.datasets.mapping import npy_columns, npz_columns, safetensors_columns, text_columns
from telegrad_server.datasets.parquet import check_pyarrow, parquet_columns
from telegrad_server.datasets.remote import check_fsspec, look
from telegrad_server.datasets.roots import Root
from telegrad_server.datasets.shards import Shards

_CHECKS: Mapping[str, Callable[[Root], None]] = {"images": check_pillow, "parquet": check_pyarrow}


class Registered:
    """A root; ``cache`` is a folder for what cannot be mapped as it is, and ``blocks`` for what is read in blocks.

    ResourceError if it needs a library.
    """

    def __init__(self, root: Root, cache: Path, *, blocks: Cache) -> None:
        self.root = root
        self._blocks = blocks
        self._shards: dict[str, Shards] = {}
        self._cache = cache / hashlib.sha256(root.name.encode()).hexdigest()
        if root.kind in _CHECKS:
            _CHECKS[root.kind](root)
        if root.url:
            check_fsspec(root)

    def open(self) -> Dataset:
        """The dataset as the files are now. NotFound if they have gone, DataCorrupt if they are not of their kind."""
        root = self.root
        try:
            if root.url:
                remote = look(root)
                if root.kind == "parquet" and (listing := listed_in_store(remote)) is not None:
                    return self._in_blocks(listing)
                digest = remote.digest
                self._forget_but(digest)
                root = replace(root, path=remote.fetched(self._cache / f"{digest}.fetched"))
            elif root.kind == "parquet" and (listing := listed_here(root)) is not None:
                return self._in_blocks(listing)
            else:
                digest = self.digest()
            if root.kind == "images":
                return Images(digest, root)
            cache = self._cache / digest
            self._forget_but(digest)
            if root.kind == "npy":
                return Mapped(digest, npy_columns(root.path))
            if root.kind == "npz":
                return Mapped(digest, npz_columns(root.path, cache))
            if root.kind == "safetensors":
                return Mapped(digest, safetensors_columns(root.path))
            if root.kind == "text":
                return Mapped(digest, text_columns(root))
            return Mapped(digest, parquet_columns(root, cache))
        except FileNotFoundError as error:
            raise NotFound(f"dataset {root.name!r}: the operator's files have gone", name=root.name) from error
        except PermissionError as error:
            raise NotFound(f"dataset {root.name!r}: the server may not read the operator's files") from error

    def find(self, digest: str) -> Dataset | None:
        """The dataset with this digest, if that is what the files are, or were when a block is wanted of them.

        Files that are another dataset are not opened, so nothing that is wrong with them is in the way. StorageAway.
        """
        if (shards := self._shards.get(digest)) is not None:
            return self._opened(shards)
        try:
            if self._now() != digest:
                return None
        except (FileNotFoundError, PermissionError, NotFound, DataCorrupt):
            return None
        dataset = self.open()
        return dataset if dataset.digest == digest else None

    def _now(self) -> str:
        """The digest of the dataset that the files are now."""
        root = self.root
        if root.url:
            remote = look(root)
            listing = listed_in_store(remote) if root.kind == "parquet" else None
            return remote.digest if listing is None else listing.digest
        listing = listed_here(root) if root.kind == "parquet" else None
        return self.digest() if listing is None else listing.digest

    def find_blocks(self, digest: str) -> Blocks | None:
        """The dataset with this digest, if it is in blocks and that is what the files are; None for any other."""
        if self.root.kind != "parquet":
            return None
        try:
            if digest not in self._shards:
                root = self.root
                listing = listed_in_store(look(root)) if root.url else listed_here(root)
                if listing is None or listing.digest != digest:
                    return None
                return self._in_blocks(listing)
            return self._opened(self._shards[digest])
        except (OSError, TelegradError) as error:
            logging.warning("dataset %s cannot be read from here: %s", self.root.name, error)
            return None

    def _in_blocks(self, listing: Listing) -> Blocks:
        shards = self._shards.get(listing.digest)
        if shards is None:
            self._forget_but(listing.digest)
            shards = Shards(self.root, listing, self._cache / f"{listing.digest}.json")
            self._shards = {listing.digest: shards}
        return self._opened(shards)

    def _opened(self, shards: Shards) -> Blocks:
        layout, cache = shards.layout, self._blocks

        def opened(block: int) -> Dataset:
            return cache.open(block_digest(layout.digest, block), lambda: shards.parts(block))

        return Blocks(layout, opened, room_bytes=cache.most_bytes)

    def digest(self) -> str:
        """What tells these files on this machine, as they are now, from others."""
        root = self.root
        hash = hashlib.sha256(f"registered\n{root.kind}\n{root.options}\n".encode())
        for path in sorted(root.path.rglob("*")) if root.path.is_dir() else [root.path]:
            found = os.stat(path)
            name = path.relative_to(root.path).as_posix() if path != root.path else ""
            hash.update(f"{len(name)}:{name} {found.st_size} {found.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return hash.hexdigest()

    def _forget_but(self, digest: str) -> None:
        """Remove what was unpacked of earlier files."""
        for path in self._cache.iterdir() if self._cache.exists() else ():
            if not path.name.startswith(digest):
                shutil.rmtree(path, ignore_errors=True)
                with suppress(OSError):  # a file that was fetched: no folder
                    path.unlink()

    def describe(self) -> Description:
        """What it is."""
        dataset = self.open()
        columns = tuple(
            Column(name, Type((dataset.rows, *row.shape), row.dtype), "") for name, row in dataset.columns.items()
        )
        blocks = len(dataset.layout.block_rows) if isinstance(dataset, Blocks) else 0
        return Description(self.root.name, dataset.digest, dataset.rows, columns, self.root.path.name, blocks)
