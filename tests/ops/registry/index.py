"""Facts of selecting by index and putting back. References walk through the index, one place after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from telegrad import ops
from telegrad.errors import AxisError, DTypeError, GraphError, IndexRange, ShapeError
from telegrad.ir import types as t
from telegrad.ops import index as ix

from tests.ops.checks import Array
from tests.ops.operands import integers, number, real, values
from tests.ops.registry.facts import (
    ANY,
    INTEGERS,
    LONG,
    NEVER_SCALAR,
    NO_AXES,
    NO_BROADCAST,
    NO_KEEPDIMS,
    NO_MATRICES,
    NO_SUMS,
    NO_TIES,
    NUMBERS,
    ONE_OPERAND,
    SPACINGS,
    Facts,
    Sample,
    nothing,
    per_operand,
    refuse,
    ty,
)

HUGE = 2**40
ROWS_OF = {**NO_AXES, **NO_MATRICES, **NO_BROADCAST}
BOOLEANS = ty(2, dtype=t.bool_)


def index(*numbers: Any) -> Any:
    return values(*numbers, dtype=np.int64)


def _gather(op: object, x: Array, i: Array) -> Array:
    out = np.zeros((*i.shape, *x.shape[1:]), x.dtype)
    for at in np.ndindex(i.shape):
        out[at] = x[i[at]]
    return out


def _scatter_add(op: ix.ScatterAdd, x: Array, i: Array) -> Array:
    out = np.zeros((op.rows, *x.shape[i.ndim :]), x.dtype if x.dtype.kind == "f" else object)
    for at in np.ndindex(i.shape):
        out[i[at]] += x[at]
    return out


def _scatter_set(op: object, x: Array, i: Array, y: Array) -> Array:
    out = x.copy()
    for at in np.ndindex(i.shape):
        out[i[at]] = y[at]
    return out


def _take_along(op: ix.TakeAlong, x: Array, i: Array) -> Array:
    out = np.zeros(i.shape, x.dtype)
    for at in np.ndindex(i.shape):
        out[at] = x[(*at[: op.axis], i[at], *at[op.axis + 1 :])]
    return out


def _add_along(op: ix.AddAlong, x: Array, i: Array) -> Array:
    shape = [op.size if a == op.axis else n for a, n in enumerate(x.shape)]
    out = np.zeros(shape, x.dtype if x.dtype.kind == "f" else object)
    for at in np.ndindex(i.shape):
        out[(*at[: op.axis], i[at], *at[op.axis + 1 :])] += x[at]
    return out


def _argsort(op: ix.Argsort, x: Array) -> Array:
    """Python's sort, which is stable; NaN counts as larger than all, and last in both directions."""
    lines = np.moveaxis(x, op.axis, -1)
    out = np.zeros(lines.shape, np.int64)
    for at in np.ndindex(lines.shape[:-1]):
        line = lines[at].tolist()
        numbers = [k for k, v in enumerate(line) if v == v]
        numbers.sort(key=lambda k: line[k], reverse=op.descending)
        if op.descending:  # reverse=True keeps the order of equals
            numbers = sorted(numbers, key=lambda k: -line[k])
        out[at] = numbers + [k for k, v in enumerate(line) if v != v]
    return np.moveaxis(out, -1, op.axis)


FEW = index([3, 0, 0], [-1, 1, 2])
SUMS = {**SPACINGS, t.float32: 64}

ROWS = [
    Facts(
        samples=(
            Sample(ix.CheckedIndex(4), (integers(6, low=-4, high=4),)),
            Sample(ix.CheckedIndex(4, False), (integers(6, low=0, high=4),)),
            Sample(ix.CheckedIndex(4), (integers(2, 3, low=-4, high=4),)),
            Sample(ix.CheckedIndex(0), (integers(0),)),
            Sample(ix.CheckedIndex(9), (number(-9),)),
        ),
        refusals=(
            refuse(ShapeError, "no size -1", ix.CheckedIndex(-1), ty(2, dtype=t.int64)),
            refuse(DTypeError, "indices must be integers", ix.CheckedIndex(3), ty(2)),
            refuse(IndexRange, "index 3 is out of range for an axis of size 3", ix.CheckedIndex(3), number(3)),
            refuse(IndexRange, "index -1 is out of range", ix.CheckedIndex(3, False), number(-1)),
        ),
        reference=lambda op, i: i % op.size if op.size else i,
        dtypes=INTEGERS,
        differentiable=(),
        flops=per_operand,
        without={**NO_AXES, **NO_MATRICES, **NO_SUMS, **ONE_OPERAND},
    ),
    Facts(
        samples=(
            Sample(ix.Gather(), (real(4, 2), index([3, 0], [1, 0]))),
            Sample(ix.Gather(), (real(4), number(1, dtype=np.int8))),
            Sample(ix.Gather(), (real(0, 2), integers(0))),
            Sample(ix.Gather(), (real(4, 2), index(-1, -4, 3))),
            Sample(ix.Gather(), (real(3, 2, 2), index([[2]], [[0]]))),
        ),
        refusals=(
            refuse(ShapeError, "than can be addressed", ix.Gather(), ty(2, HUGE), ty(HUGE, dtype=t.int64)),
            refuse(ShapeError, "39 axes", ix.Gather(), t.Type((1,) * 20, t.float32), t.Type((1,) * 20, t.int64)),
            refuse(ShapeError, "no rows", ix.Gather(), ty(), ty(1, dtype=t.int64)),
            refuse(DTypeError, r"indices must be integers, not float32\[2\]", ix.Gather(), ty(2), ty(2)),
            refuse(IndexRange, "index 3 is out of range", ix.Gather(), real(3), index(3)),
        ),
        reference=_gather,
        dtypes=ANY,
        differentiable=(0,),
        flops=nothing,
        moves=lambda op, x, i: i.nbytes + 2 * math.prod((*i.shape, *x.shape[1:])) * x.dtype.itemsize,
        without={**ROWS_OF, **NO_SUMS, **NO_TIES},
    ),
    Facts(
        samples=(
            Sample(ix.ScatterAdd(3), (real(2, 2, 2), index([2, 0], [-1, 2]))),
            Sample(ix.ScatterAdd(2), (real(0, 2), integers(0))),
            Sample(ix.ScatterAdd(2), (real(), number(1))),
            Sample(ix.ScatterAdd(4), (real(3), index(3, 3, -1))),
            Sample(ix.ScatterAdd(2), (real(LONG, low=0.0), integers(LONG, low=0, high=2))),
        ),
        refusals=(
            refuse(ShapeError, "negative size -1", ix.ScatterAdd(-1), ty(2), ty(2, dtype=t.int64)),
            refuse(ShapeError, "must be those of the index", ix.ScatterAdd(3), ty(2, 2), ty(3, dtype=t.int64)),
            refuse(DTypeError, "indices must be integers", ix.ScatterAdd(3), ty(2), ty(2)),
            refuse(DTypeError, "takes numbers; use astype", ix.ScatterAdd(3), BOOLEANS, ty(2, dtype=t.int64)),
            refuse(IndexRange, "index 3 is out of range", ix.ScatterAdd(3), real(1), index(3)),
        ),
        reference=_scatter_add,
        dtypes=NUMBERS,
        spacings=SUMS,
        differentiable=(0,),
        flops=per_operand,
        without={**ROWS_OF, **NO_TIES},
    ),
    Facts(
        samples=(
            Sample(ix.ScatterSet(), (real(4, 2), index([3, 0], [-1, 1]), real(2, 2, 2))),
            Sample(ix.ScatterSet(), (real(3), integers(0), real(0))),
            Sample(ix.ScatterSet(), (real(3), number(-1), real())),
            Sample(ix.ScatterSet(), (real(4), index(2, 2, 2), real(3))),
            Sample(ix.ScatterSet(), (real(2, 0), index(1, 0), real(2, 0))),
        ),
        refusals=(
            refuse(ShapeError, "do not fit the rows", ix.ScatterSet(), ty(3), ty(2, dtype=t.int64), ty(3)),
            refuse(DTypeError, "dtypes must be equal", ix.ScatterSet(), ty(3), *[ty(2, dtype=t.int64)] * 2),
            refuse(DTypeError, "indices must be integers", ix.ScatterSet(), ty(3), ty(2), ty(2)),
            refuse(IndexRange, "index -4 is out of range", ix.ScatterSet(), real(3), index(-4), real(1)),
        ),
        reference=_scatter_set,
        dtypes=ANY,
        differentiable=(0, 2),
        flops=nothing,
        without={**ROWS_OF, **NO_SUMS, **NO_TIES},
    ),
    Facts(
        samples=(
            Sample(ix.TakeAlong(1), (real(2, 4), FEW)),
            Sample(ix.TakeAlong(0), (real(4, 2), index([3, 0], [-1, 1]))),
            Sample(ix.TakeAlong(1), (real(2, 4, 2), integers(2, 3, 2, low=0, high=4)),
                   lambda x, i: ops.take_along_axis(x, i, axis=-2)),
            Sample(ix.TakeAlong(0), (real(3), integers(0))),
            Sample(ix.TakeAlong(1), (real(0, 2), integers(0, 3))),
        ),
        refusals=(
            refuse(AxisError, "axis -1", ix.TakeAlong(-1), ty(2), ty(2, dtype=t.int64)),
            refuse(ShapeError, "except along axis 0", ix.TakeAlong(0), ty(2, 3), ty(2, 2, dtype=t.int64)),
            refuse(DTypeError, "indices must be integers", ix.TakeAlong(0), ty(2), ty(2)),
            refuse(IndexRange, "index 2 is out of range", ix.TakeAlong(0), real(2), index(2)),
        ),
        reference=_take_along,
        dtypes=ANY,
        differentiable=(0,),
        flops=nothing,
        moves=lambda op, x, i: i.nbytes + 2 * math.prod(i.shape) * x.dtype.itemsize,
        without={**NO_KEEPDIMS, **NO_MATRICES, **NO_BROADCAST, **NO_SUMS, **NO_TIES, **NEVER_SCALAR},
    ),
    Facts(
        samples=(
            Sample(ix.AddAlong(1, 4), (real(2, 3), FEW)),
            Sample(ix.AddAlong(1, 4), (real(2, 1), index([3], [-1]))),
            Sample(ix.AddAlong(0, 2), (real(3, 2), index([1, 0], [1, -1], [0, 0]))),
            Sample(ix.AddAlong(0, 2), (real(0), integers(0))),
            Sample(ix.AddAlong(0, 2), (real(LONG, low=0.0), integers(LONG, low=0, high=2))),
        ),
        refusals=(
            refuse(ShapeError, "negative size -1", ix.AddAlong(0, -1), ty(2), ty(2, dtype=t.int64)),
            refuse(AxisError, "axis 1", ix.AddAlong(1, 3), ty(2), ty(2, dtype=t.int64)),
            refuse(ShapeError, "shapes must be equal", ix.AddAlong(0, 3), ty(2), ty(3, dtype=t.int64)),
            refuse(DTypeError, "takes numbers; use astype", ix.AddAlong(0, 3), BOOLEANS, ty(2, dtype=t.int64)),
            refuse(IndexRange, "index 2 is out of range", ix.AddAlong(0, 2), real(1), index(2)),
        ),
        reference=_add_along,
        dtypes=NUMBERS,
        spacings=SUMS,
        differentiable=(0,),
        flops=per_operand,
        without={
            **NO_KEEPDIMS, **NO_MATRICES, **NO_BROADCAST, **NO_TIES, **NEVER_SCALAR,
            "negative axes": "only rules make it, from the front",
        },
    ),
    Facts(
        samples=(
            Sample(ix.Argsort(1), (integers(3, 9),)),
            Sample(ix.Argsort(0, True), (integers(9, 2),)),
            Sample(ix.Argsort(0, True), (real(4, 2),)),
            Sample(ix.Argsort(0), (values(1.0, np.nan, 0.0, np.nan, -np.inf),)),
            Sample(ix.Argsort(0, True), (values(1.0, np.nan, 0.0, np.inf),)),
            Sample(ix.Argsort(1), (real(2, 0),)),
            Sample(ix.Argsort(2), (real(2, 1, 4),), lambda x: ops.argsort(x, axis=-1)),
        ),
        refusals=(
            refuse(AxisError, "argsort: axis 1", ix.Argsort(1), ty(2)),
            refuse(AxisError, "argsort: axis 0", ix.Argsort(0), ty()),
            refuse(GraphError, "does not take 2 operands", ix.Argsort(0), ty(2), ty(2)),
        ),
        reference=_argsort,
        dtypes=ANY,
        differentiable=(),
        flops=lambda op, x: math.prod(x.shape) * max(1, math.ceil(math.log2(x.shape[op.axis] + 1))),
        without={**NO_KEEPDIMS, **NO_MATRICES, **NO_SUMS, **ONE_OPERAND, **NEVER_SCALAR},
    ),
]  # fmt: skip
