"""Facts of products with a sparse matrix. References make its dense form, or take one element after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from telegrad.errors import DTypeError, IndexRange, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.ops import sparse

from tests.ops.checks import Array
from tests.ops.operands import integers, real, values
from tests.ops.registry.facts import (
    LONG,
    NEVER_SCALAR,
    NO_AXES,
    NO_BROADCAST,
    NO_MATRICES,
    NO_TIES,
    NUMBERS,
    SPACINGS,
    Facts,
    Sample,
    refuse,
    ty,
)

HUGE = 2**40
PLACES = ty(2, dtype=t.int64)
WITHOUT = {**NO_AXES, **NO_MATRICES, **NO_BROADCAST, **NO_TIES, **NEVER_SCALAR}
SUMS = {**SPACINGS, t.float32: 64}


def index(*numbers: Any) -> Any:
    return values(*numbers, dtype=np.int64)


def _product(op: sparse.SparseMatmul, v: Array, rows: Array, columns: Array, x: Array) -> Array:
    out = np.zeros((op.height, x.shape[1]), x.dtype if x.dtype.kind == "f" else object)
    for each, row, column in zip(v, rows, columns, strict=True):
        out[row] += each * x[column]
    return out


def _sampled(op: object, x: Array, y: Array, rows: Array, columns: Array) -> Array:
    found = [
        sum(a * b for a, b in zip(x[i].tolist(), y[j].tolist(), strict=True))
        for i, j in zip(rows, columns, strict=True)
    ]
    return np.array(found, x.dtype if x.dtype.kind == "f" else object)


def _bytes(*types: Type) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in types)


MATMUL, SAMPLED = sparse.SparseMatmul(3), sparse.SampledMatmul()

ROWS = [
    Facts(
        samples=(
            Sample(MATMUL, (real(4), index(2, 0, -1, 2), index(0, 3, 0, 1), real(4, 2))),
            Sample(MATMUL, (real(1), index(1), index(-1), real(4, 1))),
            Sample(MATMUL, (real(0), integers(0), integers(0), real(4, 2))),
            Sample(MATMUL, (real(2), index(0, 1), index(0, 1), real(4, 0))),
            Sample(MATMUL, (real(LONG, low=0.0), integers(LONG, low=0, high=3), integers(LONG, low=0, high=4),
                            real(4, 1, low=0.0))),
        ),
        refusals=(
            refuse(ShapeError, "negative size -1", sparse.SparseMatmul(-1), ty(2), PLACES, PLACES, ty(3, 1)),
            refuse(ShapeError, "than can be addressed", sparse.SparseMatmul(HUGE), ty(2), PLACES, PLACES, ty(3, HUGE)),
            refuse(ShapeError, "a value for each place", MATMUL, ty(3), PLACES, PLACES, ty(3, 1)),
            refuse(ShapeError, "and a matrix", MATMUL, ty(2), PLACES, PLACES, ty(3)),
            refuse(DTypeError, "rows and columns must be integers", MATMUL, ty(2), PLACES, ty(2), ty(3, 1)),
            refuse(ShapeError, "vectors of one length", MATMUL, ty(2), PLACES, ty(3, dtype=t.int64), ty(3, 1)),
            refuse(DTypeError, "numbers of one dtype", MATMUL, ty(2), PLACES, PLACES, ty(3, 1, dtype=t.float64)),
            refuse(IndexRange, "index 3 is out of range", MATMUL, real(1), index(3), index(0), real(2, 1)),
            refuse(IndexRange, "index 2 is out of range", MATMUL, real(1), index(0), index(2), real(2, 1)),
        ),
        reference=_product,
        dtypes=NUMBERS,
        spacings=SUMS,
        differentiable=(0, 3),
        flops=lambda op, v, rows, columns, x: 2 * math.prod((*v.shape, x.shape[1])),
        moves=lambda op, v, rows, columns, x: _bytes(v, rows, columns, x)
        + (op.height + v.shape[0]) * x.shape[1] * x.dtype.itemsize,
        without=WITHOUT,
    ),
    Facts(
        samples=(
            Sample(SAMPLED, (real(3, 2), real(4, 2), index(2, 0, -1, 2), index(0, 3, 0, 1))),
            Sample(SAMPLED, (real(3, 1), real(4, 1), index(1), index(-1))),
            Sample(SAMPLED, (real(3, 2), real(4, 2), integers(0), integers(0))),
            Sample(SAMPLED, (real(3, 0), real(4, 0), index(0, 1), index(0, 1))),
            Sample(SAMPLED, (real(2, LONG, low=0.0), real(2, LONG, low=0.0), index(0, 1), index(1, 1))),
        ),
        refusals=(
            refuse(ShapeError, "as many columns", SAMPLED, ty(3, 2), ty(3, 1), PLACES, PLACES),
            refuse(ShapeError, "as many columns", SAMPLED, ty(3), ty(3), PLACES, PLACES),
            refuse(DTypeError, "numbers of one dtype", SAMPLED, ty(3, 2), ty(3, 2, dtype=t.int8), PLACES, PLACES),
            refuse(IndexRange, "index 3 is out of range", SAMPLED, real(3, 1), real(3, 1), index(3), index(0)),
        ),
        reference=_sampled,
        dtypes=NUMBERS,
        spacings=SUMS,
        differentiable=(0, 1),
        flops=lambda op, x, y, rows, columns: 2 * math.prod((*rows.shape, x.shape[1])),
        moves=lambda op, x, y, rows, columns: _bytes(x, y, rows, columns)
        + rows.shape[0] * (2 * x.shape[1] + 1) * x.dtype.itemsize,
        without=WITHOUT,
    ),
]  # fmt: skip
