"""Facts of the place of the largest element of each window."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from telegrad.errors import ShapeError
from telegrad.ir.types import Type
from telegrad.ops.pooling import WindowArgmax

from tests.ops.checks import Array
from tests.ops.operands import integers, real, values
from tests.ops.registry.convolution import count
from tests.ops.registry.facts import (
    ANY,
    NO_AXES,
    NO_MATRICES,
    NO_SUMS,
    ONE_OPERAND,
    Facts,
    Sample,
    refuse,
    ty,
)


def reference(op: WindowArgmax, x: Array) -> Array:
    """By the definition, element by element."""
    size = x.shape[2:]
    axes = list(zip(size, op.kernel, op.stride, op.before, op.after, op.dilation, strict=True))
    counts = [count(*axis) for axis in axes]
    out = np.zeros((*x.shape[:2], *counts), np.int64)
    for lead in np.ndindex(x.shape[:2]):
        for position in product(*map(range, counts)):
            best: tuple[bool, float] | None = None
            for tap in product(*map(range, op.kernel)):
                at = [p * st - b + k * d for p, k, (_, _, st, b, _, d) in zip(position, tap, axes, strict=True)]
                if not all(0 <= a < n for a, n in zip(at, size, strict=True)):
                    continue
                v = x[(*lead, *at)].item()
                rank = (v != v, 0.0 if v != v else v)
                if best is None or rank > best:
                    best, out[(*lead, *position)] = rank, int(np.ravel_multi_index(at, size))
    return out


def _flops(op: WindowArgmax, x: Type) -> int:
    axes = zip(x.shape[2:], op.kernel, op.stride, op.before, op.after, op.dilation, strict=True)
    return math.prod((*x.shape[:2], *[count(*axis) for axis in axes], *op.kernel))


ONE = WindowArgmax((2,), (1,), (0,), (0,), (1,))

ROWS = [
    Facts(
        samples=(
            Sample(ONE, (values([[1.0, 3.0, 3.0, np.nan, 2.0]]),)),
            Sample(WindowArgmax((3,), (2,), (1,), (1,), (1,)), (values([[-np.inf, -np.inf, -np.inf, 0.0, -1.0]]),)),
            Sample(WindowArgmax((2, 3), (2, 1), (1, 1), (0, 1), (1, 1)), (integers(2, 1, 3, 4),)),
            Sample(WindowArgmax((2, 2), (1, 1), (0, 0), (0, 0), (2, 1)), (real(2, 2, 4, 3),)),
            Sample(WindowArgmax((2, 1, 2), (1, 1, 2), (0, 0, 0), (0, 0, 0), (1, 1, 1)), (real(0, 2, 3, 2, 2),)),
        ),
        refusals=(
            refuse(ShapeError, "takes a tensor of 3 to 5 axes", ONE, ty(2, 3)),
            refuse(ShapeError, "a window of 2 is larger than the 1 padded elements", ONE, ty(1, 1, 1)),
            refuse(ShapeError, "must have 2 numbers each", ONE, ty(1, 1, 4, 4)),
            refuse(ShapeError, "a window lies outside", WindowArgmax((2,), (1,), (2,), (2,), (1,)), ty(1, 1, 4)),
        ),
        reference=reference,
        dtypes=ANY,
        differentiable=(),
        flops=_flops,
        without={**NO_AXES, **NO_MATRICES, **NO_SUMS, **ONE_OPERAND, "scalar": "it takes tensors of 3 to 5 axes"},
    )
]
