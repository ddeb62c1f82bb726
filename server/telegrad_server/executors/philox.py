"""Philox 4x32-10 over any array library: the same words on every backend.

Salmon, Moraes, Dror, Shaw 2011, Parallel Random Numbers: As Easy as 1, 2, 3, figure 4 and table 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
_ROUNDS = 10


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """One block of four words, in Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def philox_words(library: Any, key: Any, stream: int, start: int, count: int) -> Any:
    """Words ``start`` to ``start + count`` of the stream that belongs to (key, stream), as uint32.

    The stream's own key is the first two words of philox(counter=(call, call, stream, 0), key=seed).
    """
    seed_low, seed_high, call_low, call_high = (int(k) for k in key)
    k0, k1, _, _ = philox((call_low, call_high, stream, 0), (seed_low, seed_high))
    first, last = start // 4, -(-(start + count) // 4)
    blocks = library.arange(first, last, dtype=np.uint64)
    mask, shift = np.uint64(_MASK), np.uint64(32)
    c0, c1 = blocks & mask, blocks >> shift
    c2 = library.zeros_like(blocks)
    c3 = library.zeros_like(blocks)
    for _ in range(_ROUNDS):
        p0, p1 = c0 * np.uint64(_M0), c2 * np.uint64(_M1)
        c0, c1 = (p1 >> shift) ^ c1 ^ np.uint64(k0), p1 & mask
        c2, c3 = (p0 >> shift) ^ c3 ^ np.uint64(k1), p0 & mask
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    words = library.stack([c0, c1, c2, c3], axis=1).astype(np.uint32).reshape(-1)
    return words[start - 4 * first : start - 4 * first + count]
