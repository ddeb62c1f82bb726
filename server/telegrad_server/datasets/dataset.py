"""A dataset as a training loop reads it, and the usual one: columns in mapped files, of which a batch copies rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from telegrad.errors import IndexRange
from telegrad.ir.types import Type
from telegrad.wire.arrays import from_numpy_dtype

from telegrad_server.datasets.permutation import permuted

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pass:
    """One epoch over rows ``first`` to ``first + rows``: shuffled by a seed, or with None in their order."""

    first: int
    rows: int
    seed: int | None
    epoch: int


class Dataset(Protocol):
    """Rows by number. Reading is safe on any thread."""

    @property
    def digest(self) -> str:
        """What is in it: another digest, other rows."""
        ...

    @property
    def rows(self) -> int:
        """How many rows there are."""
        ...

    @property
    def columns(self) -> Mapping[str, Type]:
        """The type of one row of each column, in the columns' order."""
        ...

    def batch(self, rows: Rows) -> Mapping[str, Array]:
        """A copy of these rows of every column, in the order asked for. rows[n] -> array[n, ...].

        IndexRange for a row that there is not.
        """
        ...

    def rows_at(self, places: Rows, of: Pass) -> Rows:
        """The rows at these places of a pass. places[n] -> int64[n].

        Over all places from 0 to ``of.rows - 1`` every row of the pass comes once, by the digest and the pass alone.
        """
        ...

    def prepare(self, place: int, of: Pass) -> bool:
        """Bring nearer a little of what a loop will want that has come to this place; whether there may be more to do.

        A place before 0: the loop is so far from the beginning of the pass.
        """
        ...


class Mapped:
    """A dataset of arrays that need not be in memory: mapped files, in any byte order and memory order."""

    def __init__(self, digest: str, arrays: Mapping[str, Array]) -> None:
        self.digest = digest
        self.rows = len(next(iter(arrays.values())))
        self.columns = {n: Type(tuple(a.shape[1:]), from_numpy_dtype(a.dtype)) for n, a in arrays.items()}
        self._arrays = dict(arrays)

    def batch(self, rows: Rows) -> Mapping[str, Array]:
        """A copy of these rows of every column."""
        check_rows(rows, self.rows)
        return {name: _native(array[rows]) for name, array in self._arrays.items()}

    def rows_at(self, places: Rows, of: Pass) -> Rows:
        """Any row may come at any place."""
        return any_rows(places, of)

    def prepare(self, place: int, of: Pass) -> bool:
        """Nothing: it is here."""
        return False


def any_rows(places: Rows, of: Pass) -> Rows:
    """The rows at these places of a pass where all rows are equally near."""
    if of.seed is None:
        return places + of.first
    return permuted(places, rows=of.rows, seed=of.seed, epoch=of.epoch) + of.first


def check_rows(rows: Rows, count: int) -> None:
    """IndexRange unless all rows are from 0 to ``count - 1``."""
    if rows.size and (rows.min() < 0 or rows.max() >= count):
        raise IndexRange(f"rows from {rows.min()} to {rows.max()} were asked of a dataset that has {count}")


def _native(array: Array) -> Array:
    """C order and native bytes; what is true is 1, as some files do not have it."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return array.view(np.uint8) != 0 if array.dtype == np.bool_ else array
