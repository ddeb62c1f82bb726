"""What operands are made of: each maker takes a generator and gives an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ops.checks import Array

Operand = Callable[[np.random.Generator], Array]


def real(*shape: int, low: float = -2.0, high: float = 2.0) -> Operand:
    """Uniform float64 numbers."""
    return lambda rng: rng.uniform(low, high, shape)


def positive(*shape: int) -> Operand:
    return real(*shape, low=0.5, high=2.0)


def apart(*shape: int) -> Operand:
    """Numbers in random order of which no two are near each other."""

    def make(rng: np.random.Generator) -> Array:
        n = int(np.prod(shape))
        return rng.permutation(np.linspace(-2.0, 2.0, n)).reshape(shape) + rng.uniform(-0.1, 0.1, shape) / max(n, 1)

    return make


def values(*numbers: Any, dtype: Any = np.float64) -> Operand:
    """These very numbers."""
    return lambda rng: np.array(numbers, dtype)


def number(x: Any, dtype: Any = np.int64) -> Operand:
    """A 0-d operand."""
    return lambda rng: np.array(x, dtype)


def integers(*shape: int, low: int = -4, high: int = 5, dtype: Any = np.int64) -> Operand:
    return lambda rng: rng.integers(low, high, shape).astype(dtype)


def booleans(*shape: int) -> Operand:
    return lambda rng: rng.integers(0, 2, shape) == 1


def definite(*shape: int) -> Operand:
    """Stacks of positive definite matrices, the upper triangle being noise: ops read the lower."""

    def make(rng: np.random.Generator) -> Array:
        x = rng.uniform(-1.0, 1.0, shape)
        return np.tril(x @ np.swapaxes(x, -1, -2) + np.eye(shape[-1])) + np.triu(rng.uniform(-1.0, 1.0, shape), 1)

    return make


def regular(*shape: int) -> Operand:
    """Stacks of matrices, not symmetric, that are far from singular."""
    return lambda rng: rng.uniform(-1.0, 1.0, shape) + 3.0 * np.eye(*shape[-2:])


def with_singular_values(*numbers: float, rows: int, columns: int) -> Operand:
    """A matrix with these singular values."""

    def make(rng: np.random.Generator) -> Array:
        u, _, vt = np.linalg.svd(rng.normal(size=(rows, columns)), full_matrices=False)
        return (u * np.array(numbers)) @ vt

    return make


def key(rng: np.random.Generator) -> Array:
    return rng.integers(0, 2**32, 4, dtype=np.uint64).astype(np.uint32)
