"""Facts of softmax cross-entropy."""

from __future__ import annotations

import math

import numpy as np
from telegrad.errors import AxisError, DTypeError, IndexRange, ShapeError
from telegrad.ir import types as t
from telegrad.ops.cross_entropy import SoftmaxCrossEntropy

from tests.ops.checks import Array
from tests.ops.operands import integers, number, real, values
from tests.ops.registry.facts import (
    FLOATS,
    LONG,
    NO_BROADCAST,
    NO_KEEPDIMS,
    NO_MATRICES,
    SPACINGS,
    Facts,
    Sample,
    refuse,
    ty,
)


def _reference(op: SoftmaxCrossEntropy, x: Array, labels: Array) -> list[Array]:
    total = np.log(np.exp(x).sum(op.axis))
    picked = np.zeros(labels.shape)
    for at in np.ndindex(labels.shape):
        picked[at] = x[(*at[: op.axis], labels[at], *at[op.axis :])]
    return [total - picked, total]


def classes(*shape: int, high: int) -> object:
    return integers(*shape, low=0, high=high)


OP = SoftmaxCrossEntropy
WRONG = values(0, 3, dtype=np.int64)

ROWS = [
    Facts(
        samples=(
            Sample(OP(1), (real(3, 4), integers(3, low=0, high=4))),
            Sample(OP(1), (real(2, 3, 2), integers(2, 2, low=0, high=3))),
            Sample(OP(0), (real(3), number(2, dtype=np.uint8))),
            Sample(OP(1), (real(0, 3), integers(0))),
            Sample(OP(1), (values([1.0, 1.0], [2.0, -2.0]), integers(2, low=0, high=2))),
            Sample(OP(1), (real(2, LONG), integers(2, low=0, high=9))),
        ),
        refusals=(
            refuse(AxisError, "axis 2", OP(2), ty(2, 3), ty(2, dtype=t.int64)),
            refuse(ShapeError, "without axis 1", OP(1), ty(2, 3), ty(3, dtype=t.int64)),
            refuse(ShapeError, "no classes", OP(1), ty(2, 0), ty(2, dtype=t.int64)),
            refuse(DTypeError, "integer labels", OP(1), ty(2, 3), ty(2)),
            refuse(IndexRange, "index 3 is out of range", OP(1), real(2, 3), WRONG),
        ),
        reference=_reference,
        dtypes=FLOATS,
        spacings={**SPACINGS, t.float64: 32, t.float32: 32},
        differentiable=(0,),
        flops=lambda op, x, labels: 5 * math.prod(x.shape),
        without={**NO_KEEPDIMS, **NO_MATRICES, **NO_BROADCAST, "negative axes": "functions make it, from the front"},
    )
]
