"""A dataset that comes from another machine, column by column into files, which are then mapped like any other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from telegrad.errors import DataCorrupt
from telegrad.ir.types import BY_NAME, Type
from telegrad.wire.arrays import numpy_dtype
from telegrad.wire.datasets import column_hash

from telegrad_server.datasets.dataset import Array, Mapped
from telegrad_server.datasets.disk import storage
from telegrad_server.datasets.mapping import map_file

ABOUT = "about.json"


@dataclass(frozen=True, slots=True)
class Contents:
    """What comes first: how many rows, and the type of one row of each column."""

    rows: int
    columns: tuple[tuple[str, Type], ...]

    @property
    def bytes(self) -> int:
        """Of all rows."""
        return self.rows * sum(row.nbytes for _, row in self.columns)

    def whole(self, column: int) -> Type:
        """The type of a column with all its rows."""
        row = self.columns[column][1]
        return Type((self.rows, *row.shape), row.dtype)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next bytes of a column."""

    column: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Digests:
    """What comes last: the digest of each column."""

    columns: tuple[str, ...]


Part = Contents | Chunk | Digests


def write_fetched(folder: Path, contents: Contents, parts: Iterable[Part]) -> None:
    """Write what comes into a new folder. DataCorrupt if it is not what its digests say; StorageFull."""
    hashes = [column_hash(contents.whole(number)) for number in range(len(contents.columns))]
    digests: Digests | None = None
    with storage(folder):
        folder.mkdir(mode=0o700)
        with ExitStack() as stack:
            files = [stack.enter_context(open(folder / str(number), "xb")) for number in range(len(hashes))]
            for part in parts:
                match part:
                    case Chunk(column, data) if column < len(files):
                        files[column].write(data)
                        hashes[column].update(data)
                    case Digests():
                        digests = part
                    case _:
                        raise DataCorrupt("a dataset came with a part that it cannot have")
    found = tuple([hash.hexdigest() for hash in hashes])
    if digests is None or digests.columns != found:
        raise DataCorrupt(
            "a dataset came otherwise than it was sent", expected=digests and digests.columns, found=found
        )
    with storage(folder):
        (folder / ABOUT).write_text(_about(contents))


def room_for(contents: Contents) -> int:
    """The bytes that its files take."""
    return contents.bytes + len(_about(contents))


def note_bytes(columns: tuple[tuple[str, Type], ...]) -> int:
    """What is kept of any dataset with such columns besides its rows, at most."""
    return len(_about(Contents(2**63, columns)))


def _about(contents: Contents) -> str:
    return json.dumps({"rows": contents.rows, "columns": [[n, t.dtype.name, *t.shape] for n, t in contents.columns]})


def open_fetched(folder: Path, digest: str) -> Mapped:
    """The dataset in a folder. FileNotFoundError if it is not there; DataCorrupt if its files have other lengths."""
    about = json.loads((folder / ABOUT).read_text())
    rows: int = about["rows"]
    columns = tuple([(n, Type(tuple(shape), BY_NAME[dtype])) for n, dtype, *shape in about["columns"]])
    contents = Contents(rows, columns)
    arrays = dict(_arrays(folder, contents))
    return Mapped(digest, arrays)


def _arrays(folder: Path, contents: Contents) -> Iterator[tuple[str, Array]]:
    for number, (name, _) in enumerate(contents.columns):
        type = contents.whole(number)
        data = map_file(folder / str(number))
        if len(data) != type.nbytes:
            raise DataCorrupt(f"the cached column {name!r} has {len(data)} bytes, not {type.nbytes}")
        yield name, data.view(numpy_dtype(type.dtype).newbyteorder("<")).reshape(type.shape)
