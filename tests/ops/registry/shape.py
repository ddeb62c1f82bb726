"""Facts of the ops that move elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from telegrad import ops
from telegrad.errors import AxisError, DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Op
from telegrad.ops import shape as s

from tests.ops.operands import integers, real
from tests.ops.registry.facts import (
    ALL,
    ANY,
    MOVES,
    NO_AXES,
    NO_MATRICES,
    NO_SUMS,
    Facts,
    Reference,
    Refusal,
    Sample,
    nothing,
    refuse,
    ty,
)


def move(
    *samples: Sample,
    reference: Reference,
    refusals: tuple[Refusal, ...],
    without: dict[str, str],
    dtypes: tuple[t.DType, ...] = ANY,
    moves: Callable[..., int] | None = nothing,
) -> Facts:
    """An op without arithmetic. ``moves`` is None where it is no view."""
    return Facts(
        samples=samples,
        refusals=refusals,
        reference=reference,
        dtypes=dtypes,
        differentiable=ALL,
        flops=nothing,
        moves=moves,
        without={**MOVES, **without},
    )


def _two_operands(op: Op) -> Refusal:
    return refuse(GraphError, f"{op.name} does not take 2 operands", op, ty(2, 3), ty(2, 3))


def _triangle(op: Any, function: Any, numpy: Any) -> Facts:
    return move(
        *[Sample(op(k), (real(3, 4),)) for k in (-1, 0, 2)],
        Sample(op(), (real(2, 2, 2),)), Sample(op(), (real(2, 0, 3),)), Sample(op(-5), (real(3, 3),)),
        reference=lambda op, x: numpy(x, op.k),
        refusals=(
            refuse(ShapeError, "takes a matrix or a stack of them", op(), ty(2)),
            refuse(ShapeError, "takes a matrix or a stack of them", op(), ty()),
            _two_operands(op()),
        ),
        without={**NO_AXES, "scalar": "it takes matrices"},
        moves=None,
    )  # fmt: skip


ROWS = [
    move(
        Sample(s.Reshape((3, 2)), (real(2, 3),)), Sample(s.Reshape((0, 5)), (real(2, 0),)),
        Sample(s.Reshape(()), (real(1, 1),)), Sample(s.Reshape((1, 1)), (real(),)),
        Sample(s.Reshape((2, 2, 3)), (real(4, 3),)),
        reference=lambda op, x: x.reshape(op.shape),
        refusals=(
            refuse(ShapeError, "reshape: axis 0 has negative size -2", s.Reshape((-2, 3)), ty(6)),
            refuse(ShapeError, "33 axes; at most 32", s.Reshape((1,) * 33), ty(1)),
            refuse(ShapeError, "6 elements do not make 4", s.Reshape((4,)), ty(2, 3)),
        ),
        without={**NO_AXES, **NO_MATRICES},
    ),
    Facts(
        samples=(
            Sample(s.BroadcastTo((2, 3, 2)), (real(3, 1),)), Sample(s.BroadcastTo((2, 0)), (real(1),)),
            Sample(s.BroadcastTo((3,)), (real(),)), Sample(s.BroadcastTo(()), (real(),)),
            Sample(s.BroadcastTo((2, 3)), (real(2, 3),)), Sample(s.BroadcastTo((2, 0)), (real(0),)),
        ),
        refusals=(
            refuse(ShapeError, "axis 1 has negative size -1", s.BroadcastTo((2, -1)), ty(1)),
            *[
                refuse(ShapeError, "more elements than can be addressed", s.BroadcastTo(sizes), ty(1))
                for sizes in ((2**4, 2**60 + 2), (4, 2**60 + 2), (0, 2**62))
            ],
            refuse(ShapeError, "does not broadcast", s.BroadcastTo((3,)), ty(2, 3)),
        ),
        reference=lambda op, x: np.broadcast_to(x, op.shape),
        dtypes=ANY,
        differentiable=(0,),
        flops=nothing,
        moves=nothing,
        without={**NO_AXES, **NO_MATRICES, **NO_SUMS, "ties": "elements are not compared with each other"},
    ),
    move(
        Sample(s.Permute((2, 0, 1)), (real(2, 3, 2),)), Sample(s.Permute(()), (real(),)),
        Sample(s.Permute((1, 0)), (real(2, 2),)), Sample(s.Permute((1, 0)), (real(0, 3),)),
        Sample(s.Permute((0, 2, 1)), (real(2, 3, 2),), lambda x: ops.permute_dims(x, (0, -1, -2))),
        reference=lambda op, x: np.transpose(x, op.axes),
        refusals=(
            refuse(AxisError, "is no order of 2 axes", s.Permute((0, 0)), ty(2, 3)),
            refuse(AxisError, "is no order of 2 axes", s.Permute((0, -1)), ty(2, 3)),
            refuse(AxisError, "is no order of 2 axes", s.Permute((0,)), ty(2, 3)),
        ),
        without={},
    ),
    move(
        Sample(s.Concat(1), (real(2, 1), real(2, 3), real(2, 2))), Sample(s.Concat(1), (real(2, 1), real(2, 0))),
        Sample(s.Concat(0), (real(2),)),
        Sample(s.Concat(0), (real(2, 2), real(2, 2))), Sample(s.Concat(1), (real(0, 1), real(0, 2))),
        Sample(s.Concat(1), (real(2, 1), real(2, 3)), lambda *xs: ops.concat(xs, axis=-1)),
        reference=lambda op, *xs: np.concatenate(xs, op.axis),
        refusals=(
            refuse(AxisError, "concat: axis -1", s.Concat(-1), ty(2), ty(3)),
            refuse(AxisError, "axis 0 is out of range for 0 axes", s.Concat(0), ty()),
            refuse(ShapeError, "sizes must be equal except along axis 0", s.Concat(0), ty(2, 3), ty(2, 4)),
            refuse(ShapeError, "at least one value", s.Concat(0)),
            refuse(DTypeError, "dtypes must be equal", s.Concat(0), ty(2), ty(2, dtype=t.float64)),
        ),
        without={"scalar": "it needs an axis"},
        moves=None,
    ),
    move(
        *[Sample(s.Flip(axes), (real(2, 3),)) for axes in ((), (1,), (0, 1))], Sample(s.Flip((0,)), (real(0, 2),)),
        Sample(s.Flip(()), (real(),)), Sample(s.Flip((1, 2)), (real(2, 2, 2),), lambda x: ops.flip(x, axis=(-1, -2))),
        reference=lambda op, x: np.flip(x, op.axes),
        refusals=(
            refuse(AxisError, "must be sorted", s.Flip((1, 0)), ty(2, 3)),
            refuse(AxisError, "axis 2 is out of range", s.Flip((2,)), ty(2, 3)),
            _two_operands(s.Flip(())),
        ),
        without={},
    ),
    move(
        Sample(s.Pad((1, 0), (0, 2)), (real(2, 2),)), Sample(s.Pad((1, 0), (0, 2), 1.5), (real(2, 2),)),
        Sample(s.Pad((2,), (0,)), (real(0),)),
        Sample(s.Pad((), (), 3.0), (real(),)), Sample(s.Pad((0, 0, 1), (0, 0, 0), -1.0), (real(2, 3, 1),)),
        Sample(s.Pad((1,), (2,), 7), (integers(3),)),
        reference=lambda op, x: np.pad(x, tuple(zip(op.before, op.after, strict=True)), constant_values=op.value)
        if x.ndim
        else x,
        refusals=(
            refuse(ShapeError, "must be 2 numbers", s.Pad((1,), (1,)), ty(2, 3)),
            refuse(ShapeError, "not below 0", s.Pad((-1,), (1,)), ty(2)),
            refuse(ShapeError, "more elements than can be addressed", s.Pad((2**61,), (0,)), ty(1)),
            refuse(DTypeError, "1.5 does not fit int64", s.Pad((1,), (1,), 1.5), ty(2, dtype=t.int64)),
        ),
        without=NO_AXES,
        moves=None,
    ),
    _triangle(s.Tril, ops.tril, np.tril),
    _triangle(s.Triu, ops.triu, np.triu),
]  # fmt: skip
