"""Lengths of and distances between vectors along an axis, with PyTorch's names and arguments."""

from __future__ import annotations

from telegrad.errors import ShapeError
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import reduce as r
from telegrad.ops import shape as s
from telegrad.ops.control import stop_gradient
from telegrad.ops.matrix_norms import vector_norm


def _at_least(norm: V, eps: float) -> V:
    """The norm, or eps if that is larger; the gradient is that of the norm all the same, as in PyTorch."""
    return norm + stop_gradient(e.clip(norm, eps) - norm)


def cosine_similarity(x1: V, x2: V, dim: int = 1, eps: float = 1e-8) -> V:
    """The cosine of the angle between the vectors along ``dim``, each of length ``eps`` at least."""
    x, y = e.common(x1, x2)
    lengths = [_at_least(vector_norm(v, axis=dim, keepdims=True), eps) for v in (x, y)]
    return r.sum((x / lengths[0]) * (y / lengths[1]), axis=dim)


def pairwise_distance(x1: V, x2: V, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> V:
    """The p-norm of x1 - x2 + eps along the last axis."""
    x, y = e.common(x1, x2)
    return vector_norm(x - y + eps, axis=-1, keepdims=keepdim, ord=p)


def normalize(input: V, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> V:
    """input over its p-norm along ``dim``, or over ``eps`` if that is larger."""
    return input / e.clip(vector_norm(input, axis=dim, keepdims=True, ord=p), eps)


def cdist(x1: V, x2: V, p: float = 2.0) -> V:
    """The p-norms of the differences of all rows: x1[..., n, d], x2[..., m, d] -> [..., n, m]."""
    x, y = e.common(x1, x2)
    if min(x.ndim, y.ndim) < 2 or x.shape[-1] != y.shape[-1]:
        raise ShapeError(f"cdist({x1.type}, {x2.type}): takes two stacks of rows of the same length")
    return vector_norm(s.expand_dims(x, axis=-2) - s.expand_dims(y, axis=-3), axis=-1, ord=p)


__all__: list[str] = []
"""The public face is `telegrad.nn.functional`."""
