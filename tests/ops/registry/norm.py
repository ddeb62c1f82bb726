"""Facts of the op below all normalisations, and of its gradient."""

from __future__ import annotations

import math

import numpy as np
from telegrad.errors import AxisError, DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ops.norm import Standardize, StandardizeGradient

from tests.ops.checks import Array
from tests.ops.operands import positive, real, values
from tests.ops.registry.facts import FLOATS, LONG, NO_MATRICES, SPACINGS, Facts, Sample, refuse, ty

EPS = 1e-3
SOFT = {**SPACINGS, t.float64: 64, t.float32: 64, t.float16: 2, t.bfloat16: 2}

WITHOUT = {
    **NO_MATRICES,
    "broadcast": "its operands have one shape",
    "keepdims": "moments always keep their axes",
    "negative axes": "its functions name the axes by other means",
}


def _standardized(op: Standardize, x: Array) -> list[Array]:
    mean = x.mean(axis=op.axes, keepdims=True) if op.is_centred else np.zeros(())
    var = ((x - mean) ** 2).mean(axis=op.axes, keepdims=True)
    y = (x - mean) / np.sqrt(var + op.eps)
    return [y, mean, var] if op.is_centred else [y, var]


def _gradient(op: StandardizeGradient, g: Array, y: Array, scale: Array) -> Array:
    """The projection onto what is orthogonal to y (and to the constants), by a matrix for each row."""
    axes = op.axes
    rest = tuple(a for a in range(g.ndim) if a not in axes)
    order = (*rest, *axes)
    n = math.prod(g.shape[a] for a in axes)
    lines = [np.transpose(x, order).reshape(-1, n) for x in (g, y)]
    rows = []
    for a, b in zip(*lines, strict=True):
        matrix = np.eye(n) - np.outer(b, b) / max(n, 1)
        if op.is_centred:
            matrix = matrix - np.full((n, n), 1 / max(n, 1))
        rows.append(matrix @ a)
    shape = [g.shape[a] for a in order]
    found = np.array(rows).reshape(shape)
    return np.transpose(found, np.argsort(order)) * scale


ROWS = [
    Facts(
        samples=(
            Sample(Standardize((1,), EPS), (real(2, 5),)),
            Sample(Standardize((0, 2), EPS), (real(3, 2, 4),)),
            Sample(Standardize((0, 1), EPS, is_centred=False), (real(3, 4),)),
            Sample(Standardize((1,), EPS, is_centred=False), (real(2, 3, 2),)),
            Sample(Standardize((), EPS), (real(),)),
            Sample(Standardize((0,), EPS), (real(3, 0),)),
            Sample(Standardize((0,), EPS), (values(1.0, 1.0, -2.0, 3.0),)),
            Sample(Standardize((0,), EPS), (real(LONG),)),
        ),
        refusals=(
            refuse(AxisError, "standardize: axis 2", Standardize((2,), EPS), ty(2, 3)),
            refuse(DTypeError, "takes a floating-point dtype", Standardize((0,), EPS), ty(2, dtype=t.int64)),
            refuse(GraphError, "eps must not be negative", Standardize((0,), -1.0), ty(2)),
            refuse(GraphError, "does not take 2 operands", Standardize((0,), EPS), ty(2), ty(2)),
        ),
        reference=_standardized,
        dtypes=FLOATS,
        spacings=SOFT,
        differentiable=(0,),
        flops=lambda op, x: 7 * math.prod(x.shape),
        without=WITHOUT,
    ),
    Facts(
        samples=(
            Sample(StandardizeGradient((1,)), (real(2, 5), real(2, 5), positive(2, 1))),
            Sample(StandardizeGradient((0, 2)), (real(3, 2, 4), real(3, 2, 4), positive(1, 2, 1))),
            Sample(StandardizeGradient((0, 1), is_centred=False), (real(3, 4), real(3, 4), positive(1, 1))),
            Sample(StandardizeGradient(()), (real(), real(), positive())),
            Sample(StandardizeGradient((0,)), (real(3, 0), real(3, 0), positive(1, 0))),
            Sample(StandardizeGradient((0,)), (values(1.0, 1.0, -2.0), values(0.5, 0.5, 2.0), positive(1))),
            Sample(StandardizeGradient((0,)), (real(LONG), real(LONG), positive(1))),
        ),
        refusals=(
            refuse(AxisError, "axis 2", StandardizeGradient((2,)), ty(2, 3), ty(2, 3), ty(2, 3)),
            refuse(ShapeError, "takes float32", StandardizeGradient((1,)), ty(2, 3), ty(2, 3), ty(2)),
            refuse(ShapeError, "takes float32", StandardizeGradient((1,)), ty(2, 3), ty(3), ty(2, 1)),
            refuse(DTypeError, "floating-point", StandardizeGradient((0,)), *[ty(2, dtype=t.int64)] * 3),
        ),
        reference=_gradient,
        dtypes=FLOATS,
        spacings=SOFT,
        differentiable=(0, 1, 2),
        flops=lambda op, g, y, scale: 8 * math.prod(g.shape),
        without=WITHOUT,
    ),
]
