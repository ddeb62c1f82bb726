"""How a dataset lies in blocks, and an order of its rows in which a loop needs only some blocks at a time.

An epoch takes the blocks in a seeded order and cuts that into windows: as many blocks in a row as have at most
``window_rows`` rows together, and at least one. Within a window the rows have a seeded order without a table. So every
row comes once, a batch lies in one window or two, and the rows of any place follow from the layout, seed and epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from telegrad.ir.types import Type

from telegrad_server.datasets.dataset import Pass, Rows
from telegrad_server.datasets.fetched import note_bytes
from telegrad_server.datasets.permutation import permuted


@dataclass(frozen=True, eq=False)
class Layout:
    """A dataset in blocks: its digest, the type of one row of each column, and how many rows each block has."""

    digest: str
    columns: tuple[tuple[str, Type], ...]
    block_rows: Rows
    window_rows: int

    @cached_property
    def ends(self) -> Rows:
        """The row after the last one of each block."""
        return np.cumsum(self.block_rows)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @cached_property
    def row_bytes(self) -> int:
        """What a row takes."""
        return sum(type.nbytes for _, type in self.columns)

    @property
    def largest_rows(self) -> int:
        """The rows of the largest block."""
        return int(self.block_rows.max()) if len(self.block_rows) else 0

    def bytes_of(self, rows: int, *, blocks: int = 1) -> int:
        """What so many rows take that lie in so many blocks."""
        return rows * self.row_bytes + blocks * note_bytes(self.columns)

    @cached_property
    def half_bytes(self) -> int:
        """What must be at hand of a window and one block more."""
        window = min(max(self.window_rows, self.largest_rows), self.rows)
        blocks = int(np.searchsorted(np.cumsum(np.sort(self.block_rows)), window, side="right"))
        return self.bytes_of(window + self.largest_rows, blocks=blocks + 1)

    @property
    def shuffling_bytes(self) -> int:
        """What must be at hand so that a shuffled loop asks for no block twice: of one window, and of the next."""
        return 2 * self.half_bytes

    def blocks_of(self, rows: Rows) -> Rows:
        """The block of each row."""
        return np.searchsorted(self.ends, rows, side="right")


class Order:
    """The rows of a pass over a layout, by place."""

    def __init__(self, layout: Layout, of: Pass) -> None:
        self._of = of
        ends = np.minimum(layout.ends, of.first + of.rows)
        starts = np.maximum(layout.ends - layout.block_rows, of.first)
        self._blocks = np.flatnonzero(ends > starts)
        if of.seed is not None and len(self._blocks):
            count = len(self._blocks)
            self._blocks = self._blocks[permuted(np.arange(count), rows=count, seed=of.seed, epoch=of.epoch)]
        self._first_rows = starts[self._blocks]
        self._ends = np.cumsum((ends - starts)[self._blocks])
        self._windows = _windows(self._ends, layout.window_rows) if of.seed is not None else self._ends[:0]

    def rows(self, places: Rows) -> Rows:
        """The rows at these places. places[n] -> int64[n]."""
        return self._in_a_row(places if self._of.seed is None else self._within_windows(places))

    def block(self, place: int) -> tuple[int, int]:
        """The block that is at this place if nothing is shuffled within windows, and the place after it."""
        number = int(np.searchsorted(self._ends, place, side="right"))
        return int(self._blocks[number]), int(self._ends[number])

    def _within_windows(self, places: Rows) -> Rows:
        assert self._of.seed is not None
        found = np.empty_like(places)
        numbers = np.searchsorted(self._windows, places, side="right")
        for number in np.unique(numbers):
            here = numbers == number
            first = int(self._windows[number - 1]) if number else 0
            count = int(self._windows[number]) - first
            seed, epoch = self._of.seed, self._of.epoch
            found[here] = first + permuted(places[here] - first, rows=count, seed=seed, epoch=epoch, window=int(number))
        return found

    def _in_a_row(self, places: Rows) -> Rows:
        numbers = np.searchsorted(self._ends, places, side="right")
        firsts = np.where(numbers > 0, self._ends[numbers - 1], 0)
        return self._first_rows[numbers] + places - firsts


def _windows(ends: Rows, most_rows: int) -> Rows:
    """Where windows end: each takes blocks as long as they have at most so many rows, and at least one."""
    found: list[int] = []
    block = first = 0
    while block < len(ends):
        block = max(block + 1, int(np.searchsorted(ends, first + most_rows, side="right")))
        first = int(ends[block - 1])
        found.append(first)
    return np.array(found, np.int64)
