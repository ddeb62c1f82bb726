"""All tenants' datasets under one folder. Every look-up takes the tenant, and finds nothing of anybody else's."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from telegrad.errors import AccessError, DataCorrupt, NotFound, StorageAway, TelegradError
from telegrad.ir.types import Type
from telegrad.wire.arrays import array_bytes
from telegrad.wire.datasets import (
    SLICE_BYTES,
    Column,
    Description,
    Missing,
    check_columns,
    check_digest,
    column_of,
)
from telegrad.wire.naming import check_name

from telegrad_server.datasets.cache import Cache
from telegrad_server.datasets.dataset import Array, Dataset, Mapped
from telegrad_server.datasets.part import Part
from telegrad_server.datasets.registered import Registered
from telegrad_server.datasets.roots import Root
from telegrad_server.datasets.shelf import Shelf

TENANT_BYTES = 1 << 40
CACHE_BYTES = 64 << 30


class Catalog:
    """The datasets in a folder, which is made if need be, and those that an operator has registered.

    ``most_bytes`` is each tenant's quota; ``cache_bytes`` may be taken by blocks of what is registered. All tenants can
    read what is registered; a name of a tenant's own comes first. For any thread. ResourceError if a library is missing
    that a root needs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        most_bytes: int = TENANT_BYTES,
        roots: Iterable[Root] = (),
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        place = folder / "registered"
        blocks = Cache(place / "blocks", most_bytes=cache_bytes)
        self._registered = {root.name: Registered(root, place, blocks=blocks) for root in roots}
        self._lock = threading.Lock()
        self._shelves: dict[str, Shelf] = {}

    def put(self, tenant: str, name: str, arrays: Mapping[str, Array]) -> Description:
        """Keep arrays under a name, which may have stood for others. What is there already is not written again.

        ShapeError if their first axes differ, DTypeError, QuotaExceeded, StorageFull, GraphError (NAME_INVALID).
        """
        columns = tuple(column_of(column, array) for column, array in arrays.items())
        by_digest = {column.digest: column for column in columns}
        while not isinstance(answer := self.offer(tenant, name, columns), Description):
            for missing in answer:
                column = by_digest[missing.digest]
                self._write(tenant, column, arrays[column.name])
        return answer

    def _write(self, tenant: str, column: Column, array: Array) -> None:
        part = self.receive(tenant, column.type, column.digest)
        begun_at = part.received_bytes
        try:
            data = array_bytes(array)
            for at in range(begun_at, len(data), SLICE_BYTES):
                part.write(data[at : at + SLICE_BYTES])
            part.finish()
        except DataCorrupt:
            if not begun_at:
                raise  # else what was there already was wrong, and has been thrown away: it is offered again
        finally:
            part.close()

    def offer(self, tenant: str, name: str, columns: Sequence[Column]) -> Description | tuple[Missing, ...]:
        """Keep what has these columns under a name; or which of them must be received before."""
        check_name(name, what="a dataset")
        check_columns(columns)
        return self._shelf(tenant).offer(name, columns)

    def receive(self, tenant: str, type: Type, digest: str) -> Part:
        """Take a column's bytes. Close it in the end, whatever happens."""
        return self._shelf(tenant).receive(type, check_digest(digest))

    def describe(self, tenant: str, name: str) -> Description:
        """What a name stands for, or NotFound."""
        try:
            return self._own(tenant, name)
        except NotFound:
            return self._registered_as(name).describe()

    def list(self, tenant: str) -> list[Description]:
        """All that a tenant can read, by name."""
        found = {description.name: description for description in self._shelf(tenant).names()}
        for name in self._registered.keys() - found.keys():
            try:
                found[name] = self._registered[name].describe()
            except TelegradError as error:
                logging.warning("dataset %s is not listed: %s", name, error.message)
        return [found[name] for name in sorted(found)]

    def open(self, tenant: str, name: str) -> Dataset:
        """What a name stands for, to be read, or NotFound. It can be read to the end, whatever becomes of the name."""
        try:
            return self._mapped(tenant, self._own(tenant, name))
        except NotFound:
            return self._registered_as(name).open()

    def open_digest(self, tenant: str, digest: str) -> Dataset:
        """The dataset with a digest, to be read, or NotFound; StorageAway if it may be in a store that is."""
        try:
            return self._mapped(tenant, self._shelf(tenant).described(check_digest(digest)))
        except NotFound as missing:
            why: TelegradError = missing
            for registered in self._registered.values():
                try:
                    if (dataset := registered.find(digest)) is not None:
                        return dataset
                except StorageAway as away:
                    why = away
            raise why from None

    def verify(self, tenant: str, name: str) -> None:
        """Read all of a dataset again. DataCorrupt, naming the column, if the disk has changed it."""
        try:
            self._shelf(tenant).verify(self._own(tenant, name).columns)
        except NotFound:
            self._registered_as(name).open()

    def hold(self, tenant: str, digest: str, *, by: str) -> None:
        """Keep a dataset until ``by`` (as in "job-17") lets go of it, though its name be deleted. NotFound.

        What an operator has registered is the operator's: it cannot be held.
        """
        try:
            self._shelf(tenant).hold(check_digest(digest), by=by)
        except NotFound:
            self.open_digest(tenant, digest)

    def let_go(self, tenant: str, *, by: str) -> None:
        """What ``by`` held is no longer kept for it."""
        self._shelf(tenant).let_go(by=by)

    def holders(self) -> set[str]:
        """Who holds datasets, of whatever tenant."""
        return {by for shelf in self._shelves_there() for by in shelf.holders()}

    def let_all_go(self, *, by: str) -> None:
        """What ``by`` held is no longer kept for it, of whatever tenant it was."""
        for shelf in self._shelves_there():
            shelf.let_go(by=by)

    def collect(self, *, now: float) -> None:
        """Remove what uploads that were cut off have left, a day after; ``now`` in seconds of the epoch."""
        for shelf in self._shelves_there():
            shelf.collect(now=now)

    def _shelves_there(self) -> list[Shelf]:
        """Those of all tenants that have put something."""
        if not self._folder.exists():
            return []
        folders = [path for path in self._folder.iterdir() if len(path.name) == 64]
        with self._lock:
            known = {hashlib.sha256(tenant.encode()).hexdigest(): shelf for tenant, shelf in self._shelves.items()}
        return [known.get(path.name) or Shelf(path, most_bytes=self._most_bytes) for path in folders]

    def delete(self, tenant: str, name: str) -> None:
        """Forget a name, and the bytes to which nothing else leads. NotFound; AccessError for a registered one."""
        try:
            self._shelf(tenant).delete(check_name(name, what="a dataset"))
        except NotFound:
            if name not in self._registered:
                raise
            raise AccessError(f"dataset {name!r} is registered by the operator, who alone can remove it") from None

    def _own(self, tenant: str, name: str) -> Description:
        return self._shelf(tenant).named(check_name(name, what="a dataset"))

    def _registered_as(self, name: str) -> Registered:
        """The root with a name; called where a tenant's own was not found."""
        if name not in self._registered:
            raise NotFound(f"there is no dataset {name!r}; session.datasets.list() tells which there are", name=name)
        return self._registered[name]

    def _mapped(self, tenant: str, found: Description) -> Dataset:
        shelf = self._shelf(tenant)
        return Mapped(found.digest, {column.name: shelf.mapped(column) for column in found.columns})

    def _shelf(self, tenant: str) -> Shelf:
        with self._lock:
            shelf = self._shelves.get(tenant)
            if shelf is None:
                folder = self._folder / hashlib.sha256(tenant.encode()).hexdigest()
                shelf = self._shelves[tenant] = Shelf(folder, most_bytes=self._most_bytes)
                shelf.collect(now=time.time())
            return shelf
