"""Dropout of whole channels, and dropout that keeps mean and variance of SELU's activations."""

from __future__ import annotations

import math

from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import shape as s
from telegrad.ops.random import RandomUniform

SELU_FLOOR = 1.7580993408473766
"""-1 times what SELU tends to: its scale times its alpha."""


def _kept(x: V, key: V, p: float, stream: int, op: str, *, by_channel: bool) -> V:
    """True with probability 1 - p for each element, or for each of x[N, C, ...]'s channels."""
    if not 0.0 <= p <= 1.0:
        raise GraphError(f"{op}: p {p} must be from 0 to 1")
    if by_channel and x.ndim < 2:
        raise ShapeError(f"{op}({x.type}): takes [N, C, ...]")
    shape = (*x.shape[:2], *(1,) * (x.ndim - 2)) if by_channel else x.shape
    return RandomUniform(shape, t.float32, stream)(key) >= p


def feature_dropout(x: V, key: V, /, *, p: float = 0.5, stream: int = 0) -> V:
    """x[N, C, ...] with each channel of each sample zero with probability p, and divided by 1 - p otherwise."""
    kept = _kept(x, key, p, stream, "feature_dropout", by_channel=True)
    return s.zeros_like(x) if p == 1.0 else e.where(kept, x * (1.0 / (1.0 - p)), 0)


def _alpha(x: V, kept: V, p: float) -> V:
    if p == 1.0:
        return s.zeros_like(x)
    a = 1.0 / math.sqrt((SELU_FLOOR**2 * p + 1.0) * (1.0 - p))
    return e.where(kept, x * a + SELU_FLOOR * a * p, SELU_FLOOR * a * (p - 1.0))


def alpha_dropout(x: V, key: V, /, *, p: float = 0.5, stream: int = 0) -> V:
    """x with each element SELU's lower limit with probability p, moved and scaled to keep mean and variance.

    Klambauer et al. 2017, section 3: for an x of mean 0 and variance 1.
    """
    return _alpha(x, _kept(x, key, p, stream, "alpha_dropout", by_channel=False), p)


def feature_alpha_dropout(x: V, key: V, /, *, p: float = 0.5, stream: int = 0) -> V:
    """`alpha_dropout` of whole channels of x[N, C, ...]."""
    return _alpha(x, _kept(x, key, p, stream, "feature_alpha_dropout", by_channel=True), p)


__all__: list[str] = []
"""The public face is `telegrad.nn.functional`."""
