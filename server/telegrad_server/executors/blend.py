"""Of two arrays' elements one or the other, without a branch for each: NumPy's ways guess, and a mask is no pattern.

An element's bits are taken as an integer: ``y ^ ((x ^ y) & mask)`` is x where all bits of the mask are set and y where
none is, bit for bit, NaN included. It goes through the arrays in blocks that stay in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any

FEWEST = 4096
"""Of fewer elements the calls take longer than the branches."""
BLOCK = 16_384
"""So many elements are gone through at a time."""


def is_plain(condition: Array, x: Array, y: Array, out: Array) -> bool:
    """Whether `blend` takes these: they are large, and contiguous, or one element repeated."""
    if out.size < FEWEST or out.dtype.itemsize not in (1, 2, 4, 8):
        return False
    if not (out.flags.c_contiguous and condition.flags.c_contiguous and condition.shape == out.shape):
        return False
    return all(v.ndim == 0 or (v.shape == out.shape and (v.flags.c_contiguous or not any(v.strides))) for v in (x, y))


def blend(condition: Array, x: Array, y: Array, out: Array) -> None:
    """Write x where the condition holds and y elsewhere into out, which may be x or y."""
    integer = np.dtype(f"i{out.dtype.itemsize}")
    bits, ones, others = condition.reshape(-1).view(np.int8), _bits(x, integer), _bits(y, integer)
    target = out.reshape(-1).view(integer)
    mask, changed = np.empty(BLOCK, integer), np.empty(BLOCK, integer)
    is_zero = [v.ndim == 0 and not v for v in (ones, others)]
    for start in range(0, target.size, BLOCK):
        part = slice(start, start + BLOCK)
        count = target[part].size
        m, t = mask[:count], changed[:count]
        one, other = (v if v.ndim == 0 else v[part] for v in (ones, others))
        if is_zero[0]:  # a rectifier's gradient
            np.subtract(bits[part], 1, out=m, dtype=integer)  # of 0 all bits are set
            np.bitwise_and(other, m, out=target[part])
            continue
        np.negative(bits[part], out=m, dtype=integer)  # of 1 all bits are set
        if is_zero[1]:
            np.bitwise_and(one, m, out=target[part])
            continue
        np.bitwise_xor(one, other, out=t)
        np.bitwise_and(t, m, out=t)
        np.bitwise_xor(other, t, out=target[part])


def _bits(x: Array, integer: Any) -> Array:
    """Its elements as integers, [elements]; [] of one that is repeated."""
    if x.ndim and x.flags.c_contiguous:
        return x.reshape(-1).view(integer)
    return np.array(x[(0,) * x.ndim], x.dtype).view(integer)
