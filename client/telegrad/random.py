"""Random tensors. Counter-based: the same seed and program give the same numbers, on every machine and backend.

The key is the session's seed and the number of the call; inside a function, of the function's call. Nothing
but that counter is state, so a checkpoint holds it in one number.
"""

from __future__ import annotations

from collections.abc import Sequence

from telegrad import context
from telegrad.errors import GraphError
from telegrad.ir import types
from telegrad.ir.types import DType, check_shape
from telegrad.ops import random as philox
from telegrad.tensor import Tensor


def key() -> tuple[Tensor, int]:
    """The key of the next random numbers as a uint32[4] tensor, and their stream: what random ops take."""
    home = context.TRACE.get() or context.current_session()
    return home.random_key()


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    return check_shape((shape,) if isinstance(shape, int) else tuple(shape), op="random")


def uniform(
    shape: int | Sequence[int] = (), low: float = 0.0, high: float = 1.0, *, dtype: DType = types.float32
) -> Tensor:
    """Numbers from the uniform distribution on [low, high)."""
    k, stream = key()
    x = philox.uniform(k, stream=stream, shape=_shape(shape), dtype=dtype)
    return x if (low, high) == (0.0, 1.0) else x * (high - low) + low


def normal(
    shape: int | Sequence[int] = (), mean: float = 0.0, std: float = 1.0, *, dtype: DType = types.float32
) -> Tensor:
    """Numbers from the normal distribution."""
    k, stream = key()
    x = philox.normal(k, stream=stream, shape=_shape(shape), dtype=dtype)
    return x if (mean, std) == (0.0, 1.0) else x * std + mean


def integers(low: int, high: int, shape: int | Sequence[int] = (), *, dtype: DType = types.int64) -> Tensor:
    """Integers from low up to and without high, each equally likely."""
    if high <= low:
        raise GraphError(f"integers: high ({high}) must be above low ({low})")
    k, stream = key()
    return philox.integers(k, low, high, stream=stream, shape=_shape(shape), dtype=dtype)


def bernoulli(p: float, shape: int | Sequence[int] = ()) -> Tensor:
    """True with probability p."""
    return uniform(shape) < p


def permutation(n: int) -> Tensor:
    """The integers from 0 to n - 1 in random order."""
    k, stream = key()
    return philox.permutation(k, n, stream=stream)
