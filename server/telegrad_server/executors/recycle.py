"""Fresh memory for results that is not always new: a block is used again once nobody can see it.

A training step returns every parameter anew. New memory for each would be zeroed by the kernel page by page,
which takes longer than the update itself; so each result of a loaded plan keeps the blocks it was given, and
writes into one that is free again: the version before the last. Two do for that. While a checkpoint reads a version,
the steps beside it need a third, which is made when no block is free, and kept for the next checkpoint.

Why that is safe. A block is seen through one array that only this module made, and through views of it. CPython
counts references to both: a handle in a store, a slice, a memoryview of a fetch under way each hold one. A
block whose counts are those of a block just made is held by this module alone. Nobody else can take a new
reference from there, since that needs one to start from, and whoever takes blocks does so on one thread.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from telegrad.ir.types import Type, float32
from telegrad.wire.arrays import Array, numpy_dtype

from telegrad_server.compiler.arena import ALIGNMENT

LARGE_BYTES = 64 * 1024
"""Smaller results are made anew each time: they come from memory that the process has already."""

KEPT = 3


def aligned_bytes(nbytes: int) -> Array:
    """New memory that begins at a multiple of the arena's alignment."""
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + nbytes]


class Recycled:
    """The memory for one result of a plan, or for what comes in; up to ``kept`` blocks are used again."""

    def __init__(self, type: Type, *, kept: int = KEPT) -> None:
        self.type = type
        self._most = kept
        self._kept: list[tuple[Array, Any]] = []
        self.is_large = type.nbytes >= LARGE_BYTES and _HAS_COUNTS

    def take(self) -> Array:
        """An array to write the result into."""
        if not self.is_large:
            return np.empty(self.type.shape, numpy_dtype(self.type.dtype))
        for pair in self._kept:
            if _references(pair) == _IDLE:
                pair[0].flags.writeable = True
                return pair[0]
        pair = _new_pair(self.type)
        if len(self._kept) < self._most:
            self._kept.append(pair)
        return pair[0]

    @property
    def spare_bytes(self) -> int:
        """The bytes kept beside what the results' owners hold: of all blocks but one, and one at least is foreseen."""
        return max(1, len(self._kept) - 1) * self.type.nbytes if self.is_large else 0

    def forget(self) -> None:
        """Let go of all blocks; those that somebody sees live on with them."""
        self._kept.clear()


def _new_pair(type: Type) -> tuple[Array, Any]:
    array = aligned_bytes(type.nbytes).view(numpy_dtype(type.dtype)).reshape(type.shape)
    return array, array.base


def _references(pair: tuple[Array, Any]) -> int:
    return sys.getrefcount(pair[0]) + sys.getrefcount(pair[1])


def _count_when_idle() -> int:
    kept = [_new_pair(Type((1,), float32))]
    return sum(_references(pair) for pair in kept)


_IDLE = _count_when_idle()
_HAS_COUNTS = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
"""Without the interpreter lock, counts are split over threads and say nothing."""
