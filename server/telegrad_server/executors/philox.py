"""Philox 4x32-10 on any array library: the words of a counter-based random stream.

Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3, section 4.3. The arithmetic is on unsigned
64-bit integers and exact, so every library gives equal bits. The same lines serve Python integers, with
which the key of an op is derived on the CPU, and arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # the golden ratio, and the square root of 3 less 1
MASK = 0xFFFFFFFF

Word = Any
"""A 32-bit word held in a Python integer or in an array of uint64."""


def block(counter: Sequence[Word], key: Sequence[Word]) -> tuple[Word, Word, Word, Word]:
    """The four words of one counter (or of an array of counters) under a key of two words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def op_key(key: Sequence[Word], stream: int) -> tuple[Word, Word]:
    """The key of one random op: from the seed (words 0, 1), the number of the call (words 2, 3) and the stream."""
    first, second, _, _ = block((key[2], key[3], stream, 0), (key[0], key[1]))
    return first, second


def words(lib: Any, key: Sequence[Word], start: int, count: int, *, chunk: int) -> Any:
    """``count`` words of the key's stream from word ``start`` on, as uint32; made ``chunk`` blocks at a time."""
    first, last = start // 4, (start + count + 3) // 4
    found = lib.empty((last - first, 4), lib.uint32)
    for at in range(first, last, chunk):
        end = min(at + chunk, last)
        counter = lib.arange(at, end, dtype=lib.uint64)
        lanes = block((counter & MASK, counter >> 32, 0, 0), key)
        for lane, value in enumerate(lanes):
            found[at - first : end - first, lane] = value
    return found.reshape(-1)[start - 4 * first : start - 4 * first + count]
