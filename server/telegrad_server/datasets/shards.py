"""Parquet files of a folder or a pattern as one dataset in blocks: a block is a row group, read when it is wanted.

Of each file only the footer is read beforehand, once for each version of the files; what it says is kept. Files come in
the order of their names. Those that begin with a dot or an underscore are others' notes, as is usual.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from telegrad.errors import DataCorrupt, NotFound
from telegrad.ir.types import BY_NAME, Type
from telegrad.wire.arrays import array_bytes, type_of
from telegrad.wire.datasets import column_hash

from telegrad_server.datasets.disk import read_file, write_file
from telegrad_server.datasets.fetched import Chunk, Contents, Digests, Part
from telegrad_server.datasets.layout import Layout
from telegrad_server.datasets.libraries import library
from telegrad_server.datasets.listing import Listing, opened
from telegrad_server.datasets.parquet import chosen_columns, numbers
from telegrad_server.datasets.roots import Root

MOST_BLOCKS = 1_000_000
SHUFFLE_BYTES = 256 << 20
"""A window of a shuffled epoch, if the operator does not say."""

AT_ONCE = 16
"""So many footers are read at a time."""

SLICE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Block:
    """A row group of a file."""

    file: str
    group: int


class Shards:
    """The files of a listing. ``notes`` is a file of ours for what their footers say."""

    def __init__(self, root: Root, listing: Listing, notes: Path) -> None:
        self._root, self._listing = root, listing
        try:
            found = json.loads(read_file(notes))
        except (FileNotFoundError, ValueError):
            found = self._noted()
            notes.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(notes, json.dumps(found).encode())
        self._columns: tuple[tuple[str, Type], ...] = tuple(
            [(name, Type(tuple(shape), BY_NAME[dtype])) for name, dtype, *shape in found["columns"]]
        )
        groups: list[tuple[Block, int]] = [
            (Block(file, number), rows)
            for file, rows_of in found["files"]
            for number, rows in enumerate(rows_of)
            if rows
        ]
        self._blocks = [block for block, _ in groups]
        row_bytes = max(1, sum(type.nbytes for _, type in self._columns))
        self.layout = Layout(
            listing.digest,
            self._columns,
            np.array([rows for _, rows in groups], np.int64),
            max(1, root.number("shuffle_bytes", SHUFFLE_BYTES) // row_bytes),
        )

    def parts(self, block: int) -> Iterator[Part]:
        """A block as it is sent and kept. NotFound if its file is another one now, DataCorrupt."""
        where, rows = self._blocks[block], int(self.layout.block_rows[block])
        names = [name for name, _ in self._columns]
        slice_rows = max(1, SLICE_BYTES // max(1, self.layout.row_bytes))
        contents = Contents(rows, self._columns)
        yield contents
        hashes = [column_hash(contents.whole(number)) for number in range(len(names))]
        with self._parquet(where.file) as file:
            for batch in file.iter_batches(slice_rows, row_groups=[where.group], columns=names):
                for number, (name, type) in enumerate(self._columns):
                    column = batch.column(batch.schema.names.index(name))
                    array = numbers(column, f"column {name!r} of {where.file}")
                    if type_of(array) != Type((len(array), *type.shape), type.dtype):
                        raise DataCorrupt(
                            f"column {name!r} of {where.file} has a row {type_of(array[0])}, and the first file {type}",
                            file=where.file,
                        )
                    data = array_bytes(array)
                    hashes[number].update(data)
                    yield Chunk(number, bytes(data))
        yield Digests(tuple([hash.hexdigest() for hash in hashes]))

    # ---- footers

    def _noted(self) -> dict[str, Any]:
        """What the footers say: columns, and the rows of each file's row groups."""
        names = list(self._listing.files)
        with ThreadPoolExecutor(min(AT_ONCE, len(names)), thread_name_prefix="telegrad-footers") as pool:
            footers = list(pool.map(self._footer, names))
        first = footers[0][0]
        for name, (schema, _) in zip(names, footers, strict=True):
            if schema != first:
                raise DataCorrupt(
                    f"{name} has the columns {_text(schema)}, and {names[0]} {_text(first)}; all files of a dataset"
                    " have the same, or choose those that they have with ?columns=a|b",
                    file=name,
                )
        files = [(name, rows) for name, (_, rows) in zip(names, footers, strict=True)]
        blocks = sum(len(rows) for _, rows in files)
        if blocks > MOST_BLOCKS:
            raise DataCorrupt(
                f"dataset {self._root.name!r} has {blocks} row groups, and at most {MOST_BLOCKS} are read"
            )
        start = next(((name, g) for name, rows in files for g, n in enumerate(rows) if n), None)
        if start is None:
            raise DataCorrupt(f"dataset {self._root.name!r} has no rows")
        rows = self._first_rows(*start, list(first))
        columns = [[name, type.dtype.name, *type.shape[1:]] for name, type in rows.items()]
        return {"columns": columns, "files": files}

    def _footer(self, name: str) -> tuple[dict[str, str], list[int]]:
        with self._parquet(name) as file:
            chosen = chosen_columns(self._root, file, name)
            schema = file.schema_arrow
            types = {column: str(schema.field(column).type) for column in chosen}
            metadata = file.metadata
            return types, [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]

    def _first_rows(self, name: str, group: int, columns: list[str]) -> dict[str, Type]:
        with self._parquet(name) as file:
            batch = next(iter(file.iter_batches(1, row_groups=[group], columns=columns)))
            return {
                column: type_of(numbers(batch.column(batch.schema.names.index(column)), f"column {column!r} of {name}"))
                for column in columns
            }

    @contextmanager
    def _parquet(self, name: str) -> Generator[Any, None, None]:
        """A file, open. NotFound if it is not what the listing says; DataCorrupt if it is no Parquet file."""
        pyarrow: Any = library("pyarrow", package="pyarrow", dataset=self._root.name)
        parquet: Any = library("pyarrow.parquet", package="pyarrow", dataset=self._root.name)
        try:
            with opened(self._listing, name) as source, parquet.ParquetFile(source, pre_buffer=True) as file:
                yield file
        except FileNotFoundError:
            raise NotFound(f"dataset {self._root.name!r}: {name} has gone", name=self._root.name) from None
        except (pyarrow.ArrowException, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise  # of the disk's; pyarrow's own have no number
            raise DataCorrupt(f"{name} is no Parquet file that can be read here: {error}", file=name) from None


def _text(schema: dict[str, str]) -> str:
    return ", ".join([f"{name} {type}" for name, type in schema.items()])[:400]
