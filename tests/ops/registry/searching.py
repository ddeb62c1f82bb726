"""Facts of finding a place in a sorted line."""

from __future__ import annotations

import math
import operator as py

import numpy as np
from telegrad.errors import DTypeError, ShapeError
from telegrad.ir import types as t
from telegrad.ops.searching import Searchsorted

from tests.ops.checks import Array
from tests.ops.operands import integers, number, real, values
from tests.ops.registry.facts import NO_AXES, NO_BROADCAST, NO_MATRICES, NO_SUMS, NUMBERS, Facts, Sample, refuse, ty


def _reference(op: Searchsorted, line: Array, x: Array) -> Array:
    """Counting, NaN being larger than all numbers."""

    def place(v: float) -> tuple[bool, float]:
        return (v != v, 0 if v != v else v)

    stands_before = py.le if op.right else py.lt
    found = [sum(stands_before(place(a), place(v)) for a in line.tolist()) for v in x.reshape(-1).tolist()]
    return np.array(found, np.int64).reshape(x.shape)


LINE = values(-1.0, 0.0, 0.0, 2.0, np.inf, np.nan)

ROWS = [
    Facts(
        samples=(
            *(
                Sample(Searchsorted(right), (LINE, values([-2.0, 0.0, 1.0], [np.inf, np.nan, 2.0])))
                for right in (False, True)
            ),
            Sample(Searchsorted(), (values(1.0, 2.0, 3.0), real(2, 3))),
            Sample(Searchsorted(), (real(0), real(2, 2))),
            Sample(Searchsorted(), (integers(0), number(3))),
            Sample(Searchsorted(True), (values(1.0, 2.0), real(0))),
        ),
        refusals=(
            refuse(ShapeError, "must have one axis", Searchsorted(), ty(2, 2), ty(2)),
            refuse(DTypeError, "takes numbers of one dtype", Searchsorted(), ty(2), ty(2, dtype=t.float64)),
            refuse(DTypeError, "takes numbers of one dtype", Searchsorted(), *[ty(2, dtype=t.bool_)] * 2),
        ),
        reference=_reference,
        dtypes=NUMBERS,
        differentiable=(),
        flops=lambda op, line, x: math.prod(x.shape) * max(1, math.ceil(math.log2(math.prod(line.shape) + 1))),
        without={**NO_AXES, **NO_MATRICES, **NO_SUMS, **NO_BROADCAST},
    )
]
