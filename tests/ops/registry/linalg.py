"""Facts of the product of matrices. The reference multiplies in NumPy's own loops, without BLAS."""

from __future__ import annotations

import math

import numpy as np
from telegrad.errors import DTypeError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.ops import linalg

from tests.ops.checks import Array
from tests.ops.operands import integers, real
from tests.ops.registry.facts import LONG, NO_AXES, NUMBERS, SPACINGS, Facts, Sample, refuse, ty

HUGE = 2**40


def product(op: object, x: Array, y: Array) -> Array:
    """The sums of products, one after the other; of integers in Python's, which do not wrap."""
    if x.dtype.kind in "iu":
        x, y = x.astype(object), y.astype(object)
    lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = (np.broadcast_to(v, (*lead, *v.shape[-2:])) for v in (x, y))
    out = np.zeros((*lead, x.shape[-2], y.shape[-1]), x.dtype)
    for k in range(x.shape[-1]):
        out = out + x[..., :, k, None] * y[..., None, k, :]
    return out


def _flops(op: object, x: Type, y: Type) -> int:
    """2 m n k for each pair of matrices."""
    return 2 * math.prod(np.broadcast_shapes(x.shape[:-2], y.shape[:-2])) * x.shape[-2] * x.shape[-1] * y.shape[-1]


SHAPES = (
    ((2, 3), (3, 2)),
    ((2, 2, 3), (3, 2)),
    ((2, 3), (2, 3, 1)),
    ((2, 1, 1, 3), (2, 3, 2)),
    ((3, 3), (3, 3)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((0, 2, 3), (3, 1)),
)
OP = linalg.Matmul()

ROWS = [
    Facts(
        samples=(
            *(Sample(OP, (real(*a), real(*b))) for a, b in SHAPES),
            Sample(OP, (integers(2, 3), integers(3, 2))),
            Sample(OP, (real(2, LONG, low=0.0), real(LONG, 2, low=0.0))),
        ),
        refusals=(
            refuse(ShapeError, "must be equal", OP, ty(2, 3), ty(2, 3)),
            refuse(ShapeError, "must be equal", OP, ty(3), ty(3)),
            refuse(ShapeError, r"axis -1 has sizes \(2, 4\)", OP, ty(2, 2, 3), ty(4, 3, 2)),
            refuse(ShapeError, "more elements than can be addressed", OP, ty(HUGE, 1), ty(1, HUGE)),
            refuse(DTypeError, "one numeric dtype", OP, ty(2, 2), ty(2, 2, dtype=t.float64)),
        ),
        reference=product,
        dtypes=NUMBERS,
        spacings={**SPACINGS, t.float64: 64, t.float32: 64},
        differentiable=(0, 1),
        flops=_flops,
        without={**NO_AXES, "scalar": "it takes matrices"},
    )
]
