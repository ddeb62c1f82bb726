"""Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3).

A key is a uint32[4] *operand*: the halves of the seed and of the call's number. ``stream`` tells apart the
random ops of one graph. Each op draws from a key of its own, philox(counter=(call, stream), key=seed); element
i of the result uses word i of that key's stream, so fusion, reordering and recomputation change nothing, and
``offset`` lets a replica draw its part of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telegrad.errors import DTypeError, GraphError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import DType, Shape, Type, check_shape
from telegrad.ir.value import V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops.index import argsort
from telegrad.ops.shape import zeros_like

KEY = Type((4,), t.uint32)


class Random(Op, abstract=True):
    """The family: a key as operand, ``stream`` and ``shape`` as attributes."""

    shape: Shape
    dtype: DType
    stream: int
    offset: int
    dtypes: ClassVar[tuple[DType, ...]] = (t.float32, t.float64)

    def infer(self, key: Type) -> Type:
        if key != KEY:
            raise DTypeError(f"{self.name}: the key must be {KEY}, not {key}")
        if self.dtype not in self.dtypes:
            raise DTypeError(f"{self.name}: dtype {self.dtype} is not drawn; use astype")
        if not 0 <= self.stream < 2**32 or self.offset < 0:
            raise GraphError(f"{self.name}: stream {self.stream} or offset {self.offset} is out of range")
        return Type(check_shape(self.shape, op=self.name), self.dtype)

    def vjp(self, g: Value, out: Value, key: Value) -> tuple[None]:
        return (None,)

    def cost(self, *types: Type) -> Cost:
        out = self.infer(*types)
        return Cost(60 * out.size, out.nbytes)


@dataclass(frozen=True)
class RandomBits(Random):
    """Uniform random bits as uint32, or uint64 of two words (the first is the lower half)."""

    shape: Shape
    dtype: DType = t.uint32
    stream: int = 0
    offset: int = 0

    dtypes = (t.uint32, t.uint64)

    def eval(self, xp: ArrayModule, key: Array) -> Array:
        return xp.random_bits(key, self.stream, self.offset, self.shape, self.dtype)


@dataclass(frozen=True)
class RandomUniform(Random):
    """Uniform numbers on [0, 1): the upper 24 (float32) or 53 (float64) random bits, scaled. Equal bits everywhere."""

    shape: Shape
    dtype: DType = t.float32
    stream: int = 0
    offset: int = 0

    def eval(self, xp: ArrayModule, key: Array) -> Array:
        return xp.random_uniform(key, self.stream, self.offset, self.shape, self.dtype)


@dataclass(frozen=True)
class RandomNormal(Random):
    """Standard normal numbers by Box and Muller (1958) from two words each; log and cos agree to 4 ulp elsewhere."""

    shape: Shape
    dtype: DType = t.float32
    stream: int = 0
    offset: int = 0

    def eval(self, xp: ArrayModule, key: Array) -> Array:
        return xp.random_normal(key, self.stream, self.offset, self.shape, self.dtype)


@dataclass(frozen=True)
class FoldIn(Op):
    """A key made of a key and a number: that of one trip of a loop, whose random numbers are its own."""

    reference = "Philox with the number and the call in its counter; word 3 tells it from the key of an op"

    def infer(self, key: Type, index: Type) -> Type:
        if key != KEY or index != Type((), t.int64):
            raise DTypeError(f"{self.name} takes a key, {KEY}, and an int64 scalar, not ({key}, {index})")
        return KEY

    def vjp(self, g: Value, out: Value, key: Value, index: Value) -> tuple[None, None]:
        return (None, None)

    def eval(self, xp: ArrayModule, key: Array, index: Array) -> Array:
        return xp.random_fold(key, index)


def uniform(key: V, /, *, shape: Shape, stream: int = 0, dtype: DType = t.float32) -> V:
    """Uniform numbers on [0, 1)."""
    if dtype in (t.float16, t.bfloat16):
        return e.astype(RandomUniform(shape, t.float32, stream)(key), dtype)
    return RandomUniform(shape, dtype, stream)(key)


def normal(key: V, /, *, shape: Shape, stream: int = 0, dtype: DType = t.float32) -> V:
    """Standard normal numbers."""
    if dtype in (t.float16, t.bfloat16):
        return e.astype(RandomNormal(shape, t.float32, stream)(key), dtype)
    return RandomNormal(shape, dtype, stream)(key)


def integers(key: V, low: int, high: int, /, *, shape: Shape, stream: int = 0, dtype: DType = t.int64) -> V:
    """Integers from low up to and without high, by the remainder of 64 bits (bias below (high - low) / 2**64)."""
    if not 0 < high - low < 2**64:
        raise GraphError(f"integers: high ({high}) must be above low ({low}), by less than 2**64")
    for end in (low, high - 1):
        e.literal_op(end, dtype)  # raises unless the dtype holds it
    bits = RandomBits(shape, t.uint64, stream)(key)
    return e.astype(bits % (high - low), dtype) + low


def permutation(key: V, n: int, /, *, stream: int = 0) -> V:
    """The integers from 0 to n - 1 in random order, by sorting 64 random bits each."""
    return argsort(RandomBits((n,), t.uint64, stream)(key))


def bernoulli(key: V, p: float, /, *, shape: Shape, stream: int = 0) -> V:
    """True with probability p, to within 2**-24."""
    if not 0.0 <= p <= 1.0:
        raise GraphError(f"bernoulli: p {p} must be from 0 to 1")
    return RandomUniform(shape, t.float32, stream)(key) < p


def dropout(x: V, key: V, /, *, p: float = 0.5, stream: int = 0) -> V:
    """x with each element zero with probability p, and divided by 1 - p otherwise."""
    if not 0.0 <= p <= 1.0:
        raise GraphError(f"dropout: p {p} must be from 0 to 1")
    if p == 0.0:
        return x
    if p == 1.0:
        return zeros_like(x)
    kept = RandomUniform(x.shape, t.float32, stream)(key) >= p
    return e.where(kept, x * (1.0 / (1.0 - p)), 0)
