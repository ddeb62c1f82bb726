"""Offsets in one block of memory for values whose lifetimes are known: best fit, in the order of the schedule."""

from __future__ import annotations

from bisect import bisect_left, insort

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""


def aligned(nbytes: int) -> int:
    """The bytes that a value of ``nbytes`` takes: at least one unit, so that no two values share an offset."""
    return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)


class Arena:
    """Best fit among the free blocks, which are merged with their neighbours. ``top`` is the most ever in use.

    With ``is_by_size`` a block is used again by values of its own size alone. Rows of such values begin at the same
    places, so threads that do some rows each, at a pace of their own, never meet in memory.
    """

    def __init__(self, *, is_by_size: bool = False) -> None:
        self.top = 0
        self._is_by_size = is_by_size
        self._free: dict[int, list[int]] = {}  # size -> offsets, where these count alone
        self._by_size: list[tuple[int, int]] = []  # (size, offset), sorted
        self._size_at: dict[int, int] = {}  # offset -> size, of free blocks
        self._start_of: dict[int, int] = {}  # end -> offset, of free blocks

    def take(self, nbytes: int) -> int:
        """The offset of a free block, the smallest that is large enough; the arena grows if there is none."""
        size = aligned(nbytes)
        if self._is_by_size:
            if not self._free.get(nbytes):
                self.top += size
                return self.top - size
            return self._free[nbytes].pop()
        at = bisect_left(self._by_size, (size, -1))
        if at < len(self._by_size):
            free, offset = self._by_size[at]
            self._remove(offset)
            if free > size:
                self._insert(offset + size, free - size)
            return offset
        offset = self._start_of.get(self.top, self.top)
        if offset < self.top:  # the last block is free and too small: it grows
            self._remove(offset)
        self.top = offset + size
        return offset

    def give(self, offset: int, nbytes: int) -> None:
        """Take back what `take` gave."""
        if self._is_by_size:
            self._free.setdefault(nbytes, []).append(offset)
            return
        size = aligned(nbytes)
        after = self._size_at.get(offset + size)
        if after is not None:
            self._remove(offset + size)
            size += after
        before = self._start_of.get(offset)
        if before is not None:
            size += self._size_at[before]
            self._remove(before)
            offset = before
        self._insert(offset, size)

    def _insert(self, offset: int, size: int) -> None:
        insort(self._by_size, (size, offset))
        self._size_at[offset] = size
        self._start_of[offset + size] = offset

    def _remove(self, offset: int) -> None:
        size = self._size_at.pop(offset)
        del self._start_of[offset + size]
        del self._by_size[bisect_left(self._by_size, (size, offset))]
