"""Facts of attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from telegrad.errors import DTypeError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.ops.attention import Attention, AttentionGradient

from tests.ops.checks import Array
from tests.ops.operands import real
from tests.ops.registry.facts import (
    ALL,
    FLOATS,
    LONG,
    NO_AXES,
    NO_BROADCAST,
    NO_TIES,
    SPACINGS,
    WIDE,
    Facts,
    Sample,
    refuse,
    ty,
)


def _reference(op: Attention, q: Array, k: Array, v: Array, *bias: Array) -> list[Array]:
    """The whole matrix of weights, which the op never has."""
    scores = np.einsum("...ie,...je->...ij", q, k) * op.scale + (bias[0] if bias else 0.0)
    if op.is_causal:
        rows, columns = scores.shape[-2:]
        scores = np.where(np.tri(rows, columns, dtype=bool), scores, -np.inf)
    weights = np.exp(scores)
    total = weights.sum(-1)
    with np.errstate(divide="ignore"):
        return [np.einsum("...ij,...jd->...id", weights, v) / total[..., None], np.log(total)]


def _flops(op: Attention, q: Type, k: Type, v: Type, *bias: Type) -> int:
    """Two products of matrices, and five operations for each weight."""
    pairs = math.prod(q.shape[:-2]) * q.shape[-2] * k.shape[-2]
    return pairs * (2 * q.shape[-1] + 2 * v.shape[-1] + 5)


def _operands(*lead: int, queries: int, keys: int, width: int, wide: int, bias: bool = False) -> tuple[Any, ...]:
    found = (real(*lead, queries, width), real(*lead, keys, width), real(*lead, keys, wide))
    return (*found, real(*lead, queries, keys)) if bias else found


def _gradient(op: AttentionGradient, g: Array, q: Array, k: Array, v: Array, *more: Array) -> list[Array]:
    """From the whole matrix of weights."""
    total, row, *bias = more
    scores = np.einsum("...ie,...je->...ij", q, k) * op.scale + (bias[0] if bias else 0.0)
    weights = np.exp(scores - total[..., None])
    if op.is_causal:
        weights = weights * np.tri(*scores.shape[-2:])
    f = weights * (np.einsum("...id,...jd->...ij", g, v) - row[..., None])
    dq, dk = np.einsum("...ij,...je->...ie", f, k) * op.scale, np.einsum("...ij,...ie->...je", f, q) * op.scale
    return [dq, dk, np.einsum("...ij,...id->...jd", weights, g)]


def _gradient_flops(op: AttentionGradient, g: Type, q: Type, k: Type, v: Type, *more: Type) -> int:
    """Five products of matrices, and six operations for each weight."""
    pairs = math.prod(q.shape[:-2]) * q.shape[-2] * k.shape[-2]
    return pairs * (6 * q.shape[-1] + 4 * v.shape[-1] + 6)


def _gradient_operands(*lead: int, queries: int, keys: int, width: int, wide: int, bias: bool = False) -> Any:
    sums = (real(*lead, queries), real(*lead, queries))
    found = _operands(*lead, queries=queries, keys=keys, width=width, wide=wide, bias=bias)
    return (real(*lead, queries, wide), *found[:3], *sums, *found[3:])


OP = Attention(1.0)
BACK = AttentionGradient(1.0)
THREE = (ty(3, 2), ty(4, 2), ty(4, 3))

ROWS = [
    Facts(
        samples=(
            Sample(Attention(0.7), _operands(queries=3, keys=4, width=2, wide=3)),
            Sample(Attention(0.5, True), _operands(2, queries=3, keys=4, width=2, wide=1)),
            Sample(OP, _operands(2, 2, queries=3, keys=2, width=2, wide=2, bias=True)),
            Sample(OP, _operands(0, queries=3, keys=2, width=2, wide=2)),
            Sample(OP, _operands(2, queries=3, keys=2, width=0, wide=2)),
            Sample(Attention(0.5), _operands(queries=2, keys=LONG, width=2, wide=1)),
            Sample(OP, (real(2, 2), real(2, 2), real(2, 2))),
        ),
        refusals=(
            refuse(DTypeError, "of one floating-point dtype", OP, *THREE[:2], ty(4, 3, dtype=t.float64)),
            refuse(DTypeError, "of one floating-point dtype", OP, *[ty(2, 2, dtype=t.int64)] * 3),
            refuse(ShapeError, "must have the same last axis", OP, ty(3, 3), *THREE[1:]),
            refuse(ShapeError, "must have the same leading axes", OP, ty(2, 3, 2), *THREE[1:]),
            refuse(ShapeError, "the bias must be", OP, *THREE, ty(3, 3)),
        ),
        reference=_reference,
        dtypes=FLOATS,
        spacings={**SPACINGS, t.float64: 64, t.float32: 64},
        differentiable=ALL,
        flops=_flops,
        without={**NO_AXES, **NO_BROADCAST, **NO_TIES, "scalar": "it takes matrices"},
    ),
    Facts(
        samples=(
            Sample(AttentionGradient(0.7), _gradient_operands(queries=3, keys=4, width=2, wide=3)),
            Sample(AttentionGradient(0.5, True), _gradient_operands(2, queries=3, keys=4, width=2, wide=1)),
            Sample(BACK, _gradient_operands(2, 2, queries=3, keys=2, width=2, wide=2, bias=True)),
            Sample(BACK, _gradient_operands(0, queries=3, keys=2, width=2, wide=2)),
            Sample(BACK, _gradient_operands(2, queries=3, keys=2, width=0, wide=2)),
            Sample(AttentionGradient(0.5), _gradient_operands(queries=2, keys=LONG, width=2, wide=1)),
        ),
        refusals=(
            refuse(ShapeError, "the gradient must be", BACK, ty(3, 2), *THREE, ty(3), ty(3)),
            refuse(ShapeError, "the gradient must be", BACK, ty(3, 3), *THREE, ty(3), ty(2)),
            refuse(ShapeError, "the same leading axes", BACK, ty(3, 3), ty(2, 3, 2), *THREE[1:], ty(3), ty(3)),
        ),
        reference=_gradient,
        dtypes=WIDE,
        spacings={**SPACINGS, t.float64: 64, t.float32: 64},
        differentiable=ALL,
        flops=_gradient_flops,
        without={**NO_AXES, **NO_BROADCAST, **NO_TIES, "scalar": "it takes matrices"},
    ),
]
