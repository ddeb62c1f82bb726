"""The order of rows in an epoch: a seeded permutation without a table, so any step's batch is known by itself.

A Feistel network over pairs (left, right) with left < a and right < b, where a is the square root of the rows, rounded
up, and a * b just covers them: each of its rounds adds, modulo a or b, a keyed hash of the other half, which can be
undone; so it is a bijection (Black and Rogaway 2002, Ciphers with Arbitrary Finite Domains, section 5). What falls
outside the rows is sent through again until it falls inside; that is rare, less than one in the square root of the
rows. The keys are SHAKE-128 of seed and epoch, the hash is that of SplitMix64 (Steele et al. 2014). Only unsigned
64-bit integers are involved, so all machines agree; a change would change every job that is resumed, and there is a
test with numbers.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from telegrad.errors import GraphError, IndexRange

ROUNDS = 8
_U64 = np.uint64
_FIRST, _SECOND = _U64(0xBF58476D1CE4E5B9), _U64(0x94D049BB133111EB)
_SHIFTS = _U64(30), _U64(27), _U64(31)


def permuted(
    index: npt.ArrayLike, *, rows: int, seed: int, epoch: int, window: int | None = None
) -> npt.NDArray[np.int64]:
    """The rows at these places of an epoch's order. index[...] -> int64[...].

    Over all places from 0 to ``rows - 1`` every row comes once. Each ``window``, a number from 0, has orders of its
    own. IndexRange for a place outside, GraphError for a seed or epoch outside of [0, 2**64).
    """
    places = np.asarray(index, np.int64)
    if places.size == 0:
        return places.copy()
    if places.min() < 0 or places.max() >= rows:
        raise IndexRange(f"places from {places.min()} to {places.max()} were asked of an order of {rows} rows")
    keys = _keys(seed, epoch, window)
    a = math.isqrt(rows - 1) + 1
    b = -(-rows // a)
    found = _encrypt(places.reshape(-1).astype(_U64), keys, _U64(a), _U64(b))
    while (outside := np.flatnonzero(found >= _U64(rows))).size:
        found[outside] = _encrypt(found[outside], keys, _U64(a), _U64(b))
    return found.astype(np.int64).reshape(places.shape)


def _keys(seed: int, epoch: int, window: int | None) -> npt.NDArray[np.uint64]:
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**64):
        raise GraphError(f"seed {seed} and epoch {epoch} must be from 0 to 2**64 - 1")
    text = b"telegrad permutation 1" + seed.to_bytes(8, "little") + epoch.to_bytes(8, "little")
    if window is not None:
        text += b"window" + window.to_bytes(8, "little")
    return np.frombuffer(hashlib.shake_128(text).digest(8 * ROUNDS), "<u8").astype(_U64)


def _encrypt(x: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64], a: Any, b: Any) -> npt.NDArray[np.uint64]:
    left, right = x // b, x % b
    for round in range(0, ROUNDS, 2):
        left = (left + _hash(right, keys[round]) % a) % a
        right = (right + _hash(left, keys[round + 1]) % b) % b
    return left * b + right


def _hash(x: npt.NDArray[np.uint64], key: Any) -> npt.NDArray[np.uint64]:
    z = x + key  # arrays of unsigned integers wrap
    z = (z ^ (z >> _SHIFTS[0])) * _FIRST
    z = (z ^ (z >> _SHIFTS[1])) * _SECOND
    return z ^ (z >> _SHIFTS[2])
