"""Facts of random numbers: Philox once more, in Python's integers. What they are like is in test_random."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ops import random

from tests.ops.checks import Array
from tests.ops.operands import key, number
from tests.ops.registry.facts import A_KEY, SPACINGS, Facts, Sample, refuse, ty

KEY = ty(4, dtype=t.uint32)


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    """Ten rounds of Philox 4x32 as in Salmon et al. 2011, section 4.3."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        (h, low), (i, other) = divmod(a * 0xD2511F53, 2**32), divmod(c * 0xCD9E8D57, 2**32)
        a, b, c, d = i ^ b ^ k, other, h ^ d ^ m, low
        k, m = (k + 0x9E3779B9) % 2**32, (m + 0xBB67AE85) % 2**32
    return [a, b, c, d]


def words(op: Any, key: Array) -> Iterator[int]:
    """The 32-bit words of the op's stream."""
    seed_low, seed_high, call_low, call_high = key.tolist()
    own = tuple(philox((call_low, call_high, op.stream, 0), (seed_low, seed_high))[:2])
    block = 0
    while True:
        yield from philox((block % 2**32, block >> 32, 0, 0), own)
        block += 1


def _drawn(op: Any, key: Array, *, per_element: int, from_words: Any) -> Array:
    stream, count = words(op, key), math.prod(op.shape)
    for _ in range(op.offset * per_element):
        next(stream)
    found = [from_words([next(stream) for _ in range(per_element)]) for _ in range(count)]
    return np.array(found, object).reshape(op.shape)


def _bits(op: random.RandomBits, key: Array) -> Array:
    n = op.dtype.itemsize // 4
    return _drawn(op, key, per_element=n, from_words=lambda w: sum(word << 32 * i for i, word in enumerate(w)))


def _unit(w: list[int]) -> float:
    """A number on [0, 1) from one word, 24 bits of it, or from two, 53 bits."""
    return (w[0] >> 8) / 2**24 if len(w) == 1 else ((w[0] | w[1] << 32) >> 11) / 2**53


def _uniform(op: random.RandomUniform, key: Array) -> Array:
    return _drawn(op, key, per_element=op.dtype.itemsize // 4, from_words=_unit)


def _normal(op: random.RandomNormal, key: Array) -> Array:
    n = op.dtype.itemsize // 4

    def box_muller(w: list[int]) -> float:
        u, v = _unit(w[:n]), _unit(w[n:])
        return math.sqrt(-2 * math.log(1 - u)) * math.cos(2 * math.pi * v)

    return _drawn(op, key, per_element=2 * n, from_words=box_muller)


def _random(op: Any, dtypes: tuple[t.DType, ...], reference: Any, wrong: t.DType) -> Facts:
    narrow, wide = dtypes
    return Facts(
        samples=tuple(
            Sample(made, (key,))
            for made in (
                op((2, 3), narrow, 7, 5), op((2, 3), wide, 7, 5), op((0,), narrow), op((), wide),
                op((9,), narrow, 2**32 - 1),
            )
        ),
        refusals=(
            refuse(DTypeError, "the key must be uint32", op((2,), narrow), ty(3, dtype=t.uint32)),
            refuse(DTypeError, "is not drawn; use astype", op((2,), wrong), KEY),
            refuse(GraphError, "stream 4294967296 or offset 0 is out of range", op((2,), narrow, 2**32), KEY),
            refuse(GraphError, "stream 0 or offset -1 is out of range", op((2,), narrow, 0, -1), KEY),
            refuse(ShapeError, "negative size -1", op((-1,), narrow), KEY),
        ),
        reference=reference,
        dtypes=(),
        spacings={**SPACINGS, t.float64: 16, t.float32: 16},
        differentiable=(),
        flops=lambda op, key: 60 * math.prod(op.shape),
        moves=lambda op, key: math.prod(op.shape) * op.dtype.itemsize,
        without=A_KEY,
    )  # fmt: skip


def _fold(op: random.FoldIn, key: Array, index: Array) -> Array:
    seed_low, seed_high, call_low, call_high = key.tolist()
    high, low = divmod(int(index), 2**32)
    return np.array(philox((call_low, call_high, low, high + 2**31), (seed_low, seed_high)), object)


FOLD = random.FoldIn()

ROWS = [
    _random(random.RandomBits, (t.uint32, t.uint64), _bits, t.float32),
    _random(random.RandomUniform, (t.float32, t.float64), _uniform, t.float16),
    _random(random.RandomNormal, (t.float32, t.float64), _normal, t.int64),
    Facts(
        samples=tuple(Sample(FOLD, (key, number(n))) for n in (0, 1, 2**32 - 1, 2**32, 2**62 + 5)),
        refusals=(
            refuse(DTypeError, "takes a key", FOLD, ty(3, dtype=t.uint32), ty(dtype=t.int64)),
            refuse(DTypeError, "takes a key", FOLD, KEY, ty(1, dtype=t.int64)),
            refuse(DTypeError, "takes a key", FOLD, KEY, ty(dtype=t.uint64)),
        ),
        reference=_fold,
        dtypes=(t.int64,),
        differentiable=(),
        flops=lambda op, key, index: 4,
        without={kind: why for kind, why in A_KEY.items() if kind != "scalar"},
    ),
]
