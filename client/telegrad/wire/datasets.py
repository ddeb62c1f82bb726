"""What a dataset is: columns with one row axis, known by the digest of what is in them.

A column's digest is the SHA-256 of its type as text, a newline, and its elements (little-endian, C order). A dataset's
is that of its columns' names and digests, in their order. So equal contents have equal digests on every machine,
nothing is sent twice, and a job that names a digest reads the same rows for ever.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from telegrad.errors import GraphError, ShapeError
from telegrad.ir.types import Type
from telegrad.wire.arrays import array_bytes, type_of

MOST_COLUMNS = 1024
LONGEST_COLUMN_NAME = 128
SLICE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Column:
    """A column: ``type`` is that of all its rows together, so its first axis counts them."""

    name: str
    type: Type
    digest: str

    @property
    def row(self) -> Type:
        """The type of one row."""
        return Type(self.type.shape[1:], self.type.dtype)


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of a dataset without reading it. ``name`` is empty for one that is known by its digest only."""

    name: str
    digest: str
    rows: int
    columns: tuple[Column, ...]
    source: str = ""  # what an operator registered it from; empty for one that was put
    blocks: int = 0  # in how many blocks it is read, if nobody ever has all of it

    @property
    def bytes(self) -> int:
        """The bytes of all its rows."""
        return sum(column.type.nbytes for column in self.columns)


@dataclass(frozen=True, slots=True)
class Missing:
    """A column that the server does not have yet, and how many of its bytes it does have."""

    digest: str
    received_bytes: int


def column_hash(type: Type) -> Any:
    """The hash of a column of this type, to which its elements are still to be given."""
    return hashlib.sha256(f"{type}\n".encode())


def column_of(name: str, array: npt.NDArray[Any]) -> Column:
    """The column that an array is. ShapeError if it has no axis of rows, DTypeError if its elements are not offered."""
    type = type_of(array)
    if not type.shape:
        raise ShapeError(f"column {name!r} is a scalar; its first axis must be that of the rows")
    hash = column_hash(type)
    data = array_bytes(array)
    for at in range(0, len(data), SLICE_BYTES):  # between two slices Ctrl-C is heard
        hash.update(data[at : at + SLICE_BYTES])
    return Column(name, type, hash.hexdigest())


def dataset_digest(columns: Iterable[Column]) -> str:
    """The digest of a dataset with these columns."""
    hash = hashlib.sha256(b"dataset\n")
    for column in columns:
        name = column.name.encode()
        hash.update(b"%d:%s %s\n" % (len(name), name, column.digest.encode()))
    return hash.hexdigest()


def check_columns(columns: Sequence[Column]) -> int:
    """How many rows a dataset with these columns has. ShapeError or GraphError if there can be none."""
    if not 0 < len(columns) <= MOST_COLUMNS:
        raise GraphError(f"a dataset has from 1 to {MOST_COLUMNS} columns, not {len(columns)}")
    names = [column.name for column in columns]
    for name in names:
        if not name.isprintable() or not 0 < len(name) <= LONGEST_COLUMN_NAME:
            what = f"it must be text of 1 to {LONGEST_COLUMN_NAME} printable characters"
            raise GraphError(f"{name!r:.80} is no name of a column: {what}", reason="NAME_INVALID")
        if names.count(name) > 1:
            raise GraphError(f"two columns are called {name!r}; each needs a name of its own", reason="NAME_REUSED")
    for column in columns:
        check_digest(column.digest)
        if not column.type.shape:
            raise ShapeError(f"column {column.name!r} is a scalar; its first axis must be that of the rows")
    rows = {column.name: column.type.shape[0] for column in columns}
    if len(set(rows.values())) > 1:
        raise ShapeError(f"the columns have different numbers of rows: {rows}; their first axes must be equal")
    return columns[0].type.shape[0]


def check_digest(digest: str) -> str:
    """The digest. GraphError if it is none: it is the name of a file."""
    if len(digest) != 64 or not set(digest) <= set(string.hexdigits.lower()):
        raise GraphError(f"{digest!r:.80} is no digest: one has 64 hexadecimal digits in lower case")
    return digest
