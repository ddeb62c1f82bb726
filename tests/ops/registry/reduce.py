"""Facts of the ops that combine elements along axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from telegrad import ops
from telegrad.errors import AxisError, DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import DType
from telegrad.ops import reduce as r

from tests.ops.checks import Array
from tests.ops.operands import Operand, apart, booleans, integers, real, values
from tests.ops.registry.facts import (
    ANY,
    LONG,
    NEVER_SCALAR,
    NO_KEEPDIMS,
    NO_MATRICES,
    NO_SUMS,
    NUMBERS,
    ONE_OPERAND,
    SPACINGS,
    Facts,
    Refusal,
    Sample,
    per_operand,
    refuse,
    ty,
)

ZEROS = values([0.0, 2.0, -1.5], [0.0, 0.0, 3.0], [1.0, 2.0, 0.5])  # one zero in a line, two, none
TIED = values([3.0, 1.0, 3.0], [2.0, 2.0, 2.0])
SHAPE = (2, 3, 2)
LINE = {t.float64: 64, t.float32: 256, t.float16: 2, t.bfloat16: 2}
"""For products of many: an error for each factor, rounded once to 16 bits."""


def near_one(*shape: int) -> Operand:
    return real(*shape, low=0.99, high=1.01)


def reduction(
    op: Callable[..., Any],
    function: Callable[..., Any],
    numpy: Callable[..., Any],
    *more: Sample,
    dtypes: tuple[DType, ...],
    draw: Callable[..., Operand] = real,
    has_gradient: bool = False,
    refuses: tuple[Refusal, ...] = (),
    without: Mapping[str, str],
    spacings: Mapping[DType, float] = SPACINGS,
    slope_tolerance: float = 1e-8,
) -> Facts:
    """An op over ``axes``, with ``keepdims``."""
    kept = [Sample(op(axes, keep), (draw(*SHAPE),)) for axes in ((1,), (0, 2), (0, 1, 2), ()) for keep in (False, True)]
    axes_of = dtypes[0]
    return Facts(
        samples=(
            *kept,
            Sample(op(()), (draw(),)),
            Sample(op((1,)), (draw(0, 2),)),
            *(
                Sample(op((0, 2), keep), (draw(*SHAPE),), lambda x, k=keep: function(x, axis=(-1, -3), keepdims=k))
                for keep in (False, True)
            ),
            *more,
        ),
        refusals=(
            refuse(AxisError, "axis 2 is out of range for 2 axes", op((2,)), ty(2, 3, dtype=axes_of)),
            refuse(AxisError, "name one axis twice", op((0, 0)), ty(2, 3, dtype=axes_of)),
            refuse(AxisError, "must be sorted and counted from", op((1, 0)), ty(2, 3, dtype=axes_of)),
            refuse(AxisError, "must be sorted and counted from", op((-1,)), ty(2, 3, dtype=axes_of)),
            refuse(GraphError, "does not take 2 operands", op((0,)), ty(2), ty(2)),
            *refuses,
        ),
        reference=lambda op, x: numpy(x, axis=op.axes, keepdims=op.keepdims),
        dtypes=dtypes,
        spacings=spacings,
        differentiable=(0,) if has_gradient else (),
        slope_tolerance=slope_tolerance,
        flops=per_operand,
        without={**NO_MATRICES, **ONE_OPERAND, **without},
    )


def _no_booleans(op: Any) -> Refusal:
    return refuse(DTypeError, "takes numbers; use astype", op, ty(2, dtype=t.bool_))


def _extremum(op: Any, function: Any, numpy: Any) -> Facts:
    return reduction(
        op, function, numpy,
        Sample(op((1,)), (TIED,), is_smooth=False),
        Sample(op((1,)), (values([np.nan, 1.0], [2.0, -np.inf]),), is_smooth=False),
        Sample(op((1,)), (integers(2, 3),)),
        dtypes=ANY, draw=apart, has_gradient=True, without=NO_SUMS,
        refuses=(refuse(ShapeError, "no elements along axes", op((0,)), ty(0, 3)),),
    )  # fmt: skip


def _verdict(op: Any, function: Any, numpy: Any) -> Facts:
    return reduction(
        op, function, numpy, Sample(op((0,)), (booleans(0, 2),)), Sample(op((0,)), (booleans(9),)),
        dtypes=(t.bool_,), draw=booleans, without={**NO_SUMS, "ties": "elements are not compared with each other"},
        refuses=(refuse(DTypeError, "takes booleans", op((0,)), ty(2)),),
    )  # fmt: skip


def _position(op: Any, function: Any, numpy: Any) -> Facts:
    return Facts(
        samples=(
            Sample(op(1), (integers(3, 8),)),
            Sample(op(0), (real(3, 2),)),
            Sample(op(1), (real(0, 2),)),
            Sample(op(2), (real(2, 3, 4),), lambda x: function(x, axis=-1)),
            Sample(op(1), (TIED,)),
            Sample(op(0), (values(1.0, np.nan, 3.0, np.nan),)),
        ),
        refusals=(
            refuse(AxisError, f"{op.name}: axis -1 is out of range for 2 axes", op(-1), ty(2, 3)),
            refuse(AxisError, "axis 0 is out of range for 0 axes", op(0), ty()),
            refuse(ShapeError, "no elements along axis 0", op(0), ty(0, 3)),
        ),
        reference=lambda op, x: numpy(x, axis=op.axis),
        dtypes=ANY,
        differentiable=(),
        flops=per_operand,
        without={
            **NO_MATRICES,
            **ONE_OPERAND,
            **NO_SUMS,
            **NEVER_SCALAR,
            "keepdims": "the function restores the axis with a reshape",
        },
    )


def _running(op: Any, function: Any, step: Callable[[Any, Any], Any], draw: Callable[..., Operand]) -> Facts:
    def reference(op: Any, x: Array) -> Array:
        lines = np.moveaxis(np.array(x, object if x.dtype.kind in "iu" else x.dtype), op.axis, 0).copy()
        for i in range(1, len(lines)):
            lines[i] = step(lines[i - 1], lines[i])
        return np.moveaxis(lines, 0, op.axis)

    return Facts(
        samples=(
            Sample(op(1), (real(2, 5),)),
            Sample(op(0), (real(2, 5),)),
            Sample(op(1), (real(2, 3, 2),), lambda x: function(x, axis=-2)),
            Sample(op(1), (real(2, 0),)),
            Sample(op(0), (real(0, 2),)),
            Sample(op(1), (ZEROS,)),
            Sample(op(0), (real(1),)),
            Sample(op(0), (draw(LONG),)),
        ),
        refusals=(
            refuse(AxisError, f"{op.name}: axis 2", op(2), ty(2, 3)),
            refuse(AxisError, f"{op.name}: axis -1", op(-1), ty(2, 3)),
            _no_booleans(op(0)),
            refuse(GraphError, "does not take 2 operands", op(0), ty(2), ty(2)),
        ),
        reference=reference,
        dtypes=NUMBERS,
        spacings=LINE,
        differentiable=(0,),
        slope_tolerance=1e-7,
        flops=per_operand,
        without={**NO_MATRICES, **ONE_OPERAND, **NEVER_SCALAR, **NO_KEEPDIMS},
    )


def _exact(numpy: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's function, of integers in Python's, which do not wrap."""
    return lambda x, **how: numpy(x.astype(object) if x.dtype.kind in "iu" else x, **how)


ROWS = [
    reduction(
        r.Sum, ops.sum, _exact(np.sum),
        Sample(r.Sum((0,)), (real(LONG, low=0.0),)), Sample(r.Sum((0,)), (real(LONG, 2, low=0.0),)),
        Sample(r.Sum((1,)), (real(2, 0),)), Sample(r.Sum((0,)), (TIED,)), Sample(r.Sum((0,)), (integers(4),)),
        dtypes=NUMBERS, has_gradient=True, refuses=(_no_booleans(r.Sum((0,))),), without={},
        spacings={**SPACINGS, t.float32: 16},
    ),
    reduction(
        r.Prod, ops.prod, _exact(np.prod),
        Sample(r.Prod((0,)), (near_one(LONG),)), Sample(r.Prod((1,)), (ZEROS,)), Sample(r.Prod((0,)), (real(5),)),
        Sample(r.Prod((1,)), (real(2, 0),)),
        dtypes=NUMBERS, has_gradient=True, refuses=(_no_booleans(r.Prod((0,))),), without={}, spacings=LINE,
        slope_tolerance=1e-7,
    ),
    _extremum(r.Max, ops.max, np.max),
    _extremum(r.Min, ops.min, np.min),
    _verdict(r.AllTrue, ops.all, np.all),
    _verdict(r.AnyTrue, ops.any, np.any),
    _position(r.Argmax, ops.argmax, np.argmax),
    _position(r.Argmin, ops.argmin, np.argmin),
    _running(r.CumulativeSum, ops.cumulative_sum, np.add, lambda *s: real(*s, low=0.0)),
    _running(r.CumulativeProd, ops.cumulative_prod, np.multiply, near_one),
]  # fmt: skip
