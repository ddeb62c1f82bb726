"""Memory for tensors that come from outside, used again when they are gone.

A training loop brings a batch of the same type for every step and forgets it after the step. New memory for each would
be zeroed by the kernel page by page, and would be in no cache.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from telegrad.ir.types import Type
from telegrad.wire.arrays import Array, numpy_dtype

from telegrad_server.executors.recycle import LARGE_BYTES, Recycled, aligned_bytes

KEPT_TYPES = 4
KEPT_BLOCKS = 8
KEPT_BYTES = 8 << 20
"""Of each type; larger tensors come rarely, or take long to compute with."""


class Arrivals:
    """Arrays to write what arrives into. May be used by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Type, Recycled] = OrderedDict()

    def take(self, type: Type) -> Array:
        """An array that nobody else sees. Its elements are those of anything: all of them must be written."""
        if not LARGE_BYTES <= type.nbytes <= KEPT_BYTES // 2:
            return aligned_bytes(type.nbytes).view(numpy_dtype(type.dtype)).reshape(type.shape)
        with self._lock:
            known = self._known.get(type)
            if known is None:
                known = self._known[type] = Recycled(type, kept=min(KEPT_BLOCKS, KEPT_BYTES // type.nbytes))
                if len(self._known) > KEPT_TYPES:
                    self._known.popitem(last=False)
            self._known.move_to_end(type)
            return known.take()
