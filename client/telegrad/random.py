"""Random tensors. Counter-based: the same seed and program give the same numbers, on every machine and backend.

The key is the session's seed and the number of the call; inside a function, of the function's call. Nothing
but that counter is state, so a checkpoint holds it in one number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from telegrad import context, ops
from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType, check_shape, normalize_axis, product
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


def exponential(shape: int | Sequence[int] = (), scale: float = 1.0, *, dtype: DType = types.float32) -> Tensor:
    """Numbers from the exponential distribution with mean ``scale``: -scale * log(1 - u)."""
    return ops.astype(ops.log1p(-uniform(shape, dtype=_wide(dtype))) * -scale, dtype)


def gumbel(
    shape: int | Sequence[int] = (), loc: float = 0.0, scale: float = 1.0, *, dtype: DType = types.float32
) -> Tensor:
    """Numbers from the Gumbel distribution, that of maxima: loc - scale * log(-log u)."""
    return ops.astype(loc - scale * ops.log(-ops.log(_inside(shape, dtype))), dtype)


def logistic(
    shape: int | Sequence[int] = (), loc: float = 0.0, scale: float = 1.0, *, dtype: DType = types.float32
) -> Tensor:
    """Numbers from the logistic distribution: loc + scale * log(u / (1 - u))."""
    u = _inside(shape, dtype)
    return ops.astype(loc + scale * (ops.log(u) - ops.log1p(-u)), dtype)


def laplace(
    shape: int | Sequence[int] = (), loc: float = 0.0, scale: float = 1.0, *, dtype: DType = types.float32
) -> Tensor:
    """Numbers from the Laplace distribution with density exp(-|x - loc| / scale) / (2 scale)."""
    u = _inside(shape, dtype) - 0.5
    return ops.astype(loc - scale * ops.sign(u) * ops.log1p(-2 * ops.abs(u)), dtype)


def truncated_normal(
    shape: int | Sequence[int] = (), lower: float = -2.0, upper: float = 2.0, *, dtype: DType = types.float32
) -> Tensor:
    """Standard normal numbers on [lower, upper], by the inverse of their distribution function."""
    if not lower < upper:
        raise GraphError(f"truncated_normal: lower ({lower}) must be below upper ({upper})")
    low, high = (math.erf(x / math.sqrt(2)) for x in (lower, upper))
    x = ops.erfinv(uniform(shape, low, high, dtype=_wide(dtype))) * math.sqrt(2)
    return ops.astype(ops.clip(x, lower, upper), dtype)


def categorical(logits: Tensor, shape: int | Sequence[int] | None = None, *, axis: int = -1) -> Tensor:
    """Numbers of classes, each drawn with the probability softmax(logits) gives it along ``axis``, as int64.

    The result has the logits' shape without the axis; with ``shape``, which must end in that, so many are drawn. By the
    maximum of the logits and Gumbel noise (Gumbel 1954).
    """
    if not logits.dtype.is_float:
        raise DTypeError(f"categorical takes floating-point logits, not {logits.type}")
    scores = ops.moveaxis(logits, normalize_axis(axis, logits.ndim, op="categorical"), -1)
    if scores.shape[-1] == 0:
        raise ShapeError(f"categorical({logits.type}): there are no classes along axis {axis}")
    rest = scores.shape[:-1]
    drawn = rest if shape is None else _shape(shape)
    if len(drawn) < len(rest) or drawn[len(drawn) - len(rest) :] != rest:
        raise ShapeError(f"categorical({logits.type}): the shape {list(drawn)} must end in {list(rest)}")
    dtype = _wide(logits.dtype)
    noise = gumbel((*drawn, scores.shape[-1]), dtype=dtype)
    return ops.argmax(ops.astype(scores, dtype) + noise, axis=-1)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
    """``num_samples`` numbers of classes for input[..., classes], weights that need not sum to one, as int64.

    Without ``replacement`` no class comes twice: the classes with the largest sums of log weight and Gumbel noise
    (Vieira 2014). ShapeError for more than there are; a weight of 0 is drawn last.
    """
    if not input.dtype.is_float or input.ndim == 0:
        raise DTypeError(f"multinomial takes floating-point weights of one axis or more, not {input.type}")
    classes = input.shape[-1]
    if num_samples < 1 or (not replacement and num_samples > classes):
        raise ShapeError(f"multinomial({input.type}): {num_samples} of {classes} classes cannot be drawn")
    dtype = _wide(input.dtype)
    logits = ops.log(ops.astype(input, dtype))
    if not replacement:
        return ops.topk(logits + gumbel(logits.shape, dtype=dtype), num_samples)[1]
    return ops.moveaxis(categorical(logits, (num_samples, *input.shape[:-1])), 0, -1)


def choice(a: int | Tensor, shape: int | Sequence[int] = (), replace: bool = True, p: Tensor | None = None) -> Tensor:
    """Elements of the vector ``a``, or of 0 to a - 1, drawn uniformly or with probabilities p[n].

    ShapeError for more than there are without ``replace``.
    """
    if not isinstance(a, int) and a.ndim != 1:
        raise ShapeError(f"choice: takes an integer or a vector, not {a.type}")
    n = a if isinstance(a, int) else a.shape[0]
    drawn = _shape(shape)
    count = product(drawn)
    if n < 1 or (not replace and count > n):
        raise ShapeError(f"choice: {count} of {n} elements cannot be drawn{'' if replace else ' without replacement'}")
    if p is not None and p.shape != (n,):
        raise ShapeError(f"choice: p must have the shape [{n}], not {list(p.shape)}")
    if p is None:
        places = integers(0, n, drawn) if replace else ops.reshape(permutation(n)[:count], drawn)
    elif replace:
        places = categorical(ops.log(p), drawn)
    else:
        places = ops.reshape(multinomial(p, count), drawn) if count else integers(0, n, drawn)
    return places if isinstance(a, int) else ops.take(a, places, axis=0)


def _wide(dtype: DType) -> DType:
    """What is computed in: 16-bit floats are rounded at the end."""
    return dtype if dtype.itemsize >= 4 else types.float32


def _inside(shape: int | Sequence[int], dtype: DType) -> Tensor:
    """Uniform numbers on (0, 1)."""
    wide = _wide(dtype)
    return ops.maximum(uniform(shape, dtype=wide), 2.0**-25 if wide.itemsize == 4 else 2.0**-54)
