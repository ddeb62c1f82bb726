"""Facts of softmax and its logarithm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from telegrad import ops
from telegrad.errors import AxisError, DTypeError, GraphError
from telegrad.ir import types as t
from telegrad.ops import probability as p

from tests.ops.checks import Array
from tests.ops.operands import real, values
from tests.ops.registry.facts import (
    FLOATS,
    LONG,
    NEVER_SCALAR,
    NO_KEEPDIMS,
    NO_MATRICES,
    ONE_OPERAND,
    SPACINGS,
    Facts,
    Sample,
    refuse,
    ty,
)


def softmax(x: Array, axis: int) -> Array:
    """By the definition, for numbers that do not overflow."""
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


def _normalized(op: Any, function: Any, reference: Callable[[Array, int], Array]) -> Facts:
    return Facts(
        samples=(
            Sample(op(1), (real(2, 3),)),
            Sample(op(0), (real(2, 3),)),
            Sample(op(1), (real(2, 3, 2),), lambda x: function(x, axis=-2)),
            Sample(op(1), (real(2, 0),)),
            Sample(op(0), (real(0),)),
            Sample(op(0), (values(1.0, 1.0, -2.0),)),
            Sample(op(0), (real(LONG),)),
        ),
        refusals=(
            refuse(AxisError, f"{op.name}: axis -1", op(-1), ty(2)),
            refuse(AxisError, f"{op.name}: axis 0", op(0), ty()),
            refuse(DTypeError, "takes a floating-point dtype", op(0), ty(2, dtype=t.int64)),
            refuse(GraphError, "does not take 2 operands", op(0), ty(2), ty(2)),
        ),
        reference=lambda op, x: reference(x, op.axis),
        dtypes=FLOATS,
        spacings={**SPACINGS, t.float64: 16, t.float32: 16},
        differentiable=(0,),
        flops=lambda op, x: 5 * math.prod(x.shape),
        without={**NO_KEEPDIMS, **NO_MATRICES, **ONE_OPERAND, **NEVER_SCALAR},
    )


ROWS = [
    _normalized(p.Softmax, ops.softmax, softmax),
    _normalized(p.LogSoftmax, ops.log_softmax, lambda x, axis: np.log(softmax(x, axis))),
]
