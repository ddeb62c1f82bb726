"""A dataset in blocks that come when they are wanted and go for others, so it may be larger than any machine."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from telegrad.errors import IndexRange, ResourceError
from telegrad.wire.arrays import numpy_dtype

from telegrad_server.datasets.dataset import Array, Dataset, Pass, Rows, check_rows
from telegrad_server.datasets.layout import Layout, Order

_Value = TypeVar("_Value")
Opened = Callable[[int], Dataset]
"""Gives a block by number, to be read."""

ORDERS = 3
"""So many passes are remembered: an epoch, the next, and a validation."""


def block_digest(digest: str, block: int) -> str:
    """The name of a block of the dataset with a digest, among blocks of other datasets and of no other file."""
    return hashlib.sha256(f"block {block} of {digest}\n".encode()).hexdigest()


class Blocks:
    """A dataset of blocks, of which those read last are held: at most half of ``room_bytes``, and one block."""

    def __init__(self, layout: Layout, opened: Opened, *, room_bytes: int) -> None:
        self.layout = layout
        self.digest = layout.digest
        self.rows = layout.rows
        self.columns = dict(layout.columns)
        self._opened = opened
        self._room_bytes = room_bytes
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Dataset] = OrderedDict()
        self._held_bytes = 0
        self._orders: OrderedDict[Pass, Order] = OrderedDict()
        self._prepared: OrderedDict[Pass, int] = OrderedDict()

    def block(self, number: int) -> Dataset:
        """A block by number. IndexRange if there is none."""
        if not 0 <= number < len(self.layout.block_rows):
            raise IndexRange(f"block {number} was asked of a dataset that has {len(self.layout.block_rows)}")
        return self._opened(number)

    def batch(self, rows: Rows) -> Mapping[str, Array]:
        """A copy of these rows of every column; brings the blocks that are not here."""
        check_rows(rows, self.rows)
        found = {n: np.empty((len(rows), *t.shape), numpy_dtype(t.dtype)) for n, t in self.columns.items()}
        blocks = self.layout.blocks_of(rows)
        for number in np.unique(blocks):
            here = np.flatnonzero(blocks == number)
            first = int(self.layout.ends[number] - self.layout.block_rows[number])
            for name, array in self._hold(int(number)).batch(rows[here] - first).items():
                found[name][here] = array
        return found

    def _hold(self, number: int) -> Dataset:
        with self._lock:
            if (held := self._held.get(number)) is not None:
                self._held.move_to_end(number)
                return held
        opened = self._opened(number)
        with self._lock:
            if number in self._held:
                return opened
            self._held[number] = opened
            self._held_bytes += self.layout.bytes_of(opened.rows)
            while len(self._held) > 1 and self._held_bytes > self._room_bytes // 2:
                _, left = self._held.popitem(last=False)
                self._held_bytes -= self.layout.bytes_of(left.rows)
        return opened

    def rows_at(self, places: Rows, of: Pass) -> Rows:
        """The rows at these places of a pass, window by window. ResourceError if two windows have no room."""
        needed = self.layout.shuffling_bytes
        if of.seed is not None and needed > self._room_bytes:
            raise ResourceError(
                f"shuffling this dataset needs {needed} bytes of cache, and there are {self._room_bytes}: its operator"
                " can give more with --cache-bytes, or register it with a smaller ?shuffle_bytes=",
                needed=needed,
            )
        return self._order(of).rows(places)

    def prepare(self, place: int, of: Pass) -> bool:
        """Bring the next block of those that the loop will want after this place, as far as there is room."""
        layout = self.layout
        ahead = max(layout.window_rows, layout.largest_rows)
        if self._room_bytes < layout.shuffling_bytes:
            ahead = self._room_bytes // 4 // max(1, layout.row_bytes) - layout.largest_rows
        end = min(place + ahead, of.rows)
        at = max(0, place, self._prepared.get(of, 0))
        if at >= end:
            return False
        block, after = self._order(of).block(at)
        self._opened(block)
        _remember(self._prepared, of, after)
        return True

    def _order(self, of: Pass) -> Order:
        with self._lock:
            if (known := self._orders.get(of)) is not None:
                return known
        order = Order(self.layout, of)
        with self._lock:
            _remember(self._orders, of, order)
        return order


def _remember(known: OrderedDict[Pass, _Value], of: Pass, value: _Value) -> None:
    known[of] = value
    known.move_to_end(of)
    while len(known) > ORDERS:
        known.popitem(last=False)
