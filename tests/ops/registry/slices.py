"""Facts of slices with explicit bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
from telegrad.errors import DTypeError, ShapeError
from telegrad.ir import types as t
from telegrad.ops import slices as s

from tests.ops.checks import Array
from tests.ops.operands import real
from tests.ops.registry.facts import (
    ANY,
    NO_AXES,
    NO_SUMS,
    Facts,
    Sample,
    nothing,
    refuse,
    ty,
)
from tests.ops.registry.shape import move


def _places(op: Any) -> tuple[list[int], ...]:
    """The indices that the bounds select along each axis."""
    return tuple(list(range(*bounds)) for bounds in zip(op.start, op.stop, op.step, strict=True))


def _taken(op: Any, x: Array) -> Array:
    return x[np.ix_(*_places(op))] if x.ndim else x


def _put(op: Any, x: Array, y: Array) -> Array:
    out = x.copy()
    if x.ndim:
        places = _places(op)
        out[np.ix_(*places)] = np.broadcast_to(y, tuple(map(len, places)))
        return out
    return y.copy()


SOME = s.SliceSet((3, 1), (0, 3), (-2, 1))
BEYOND = s.Slice((-(2**63),), (2**63 - 1,), (1,))

ROWS = [
    move(
        Sample(s.Slice((4, 0), (-2, 3), (-2, 1)), (real(5, 4),)),
        Sample(s.Slice((0, 3), (0, 4), (1, 1)), (real(2, 4),)),
        Sample(s.Slice((-3,), (-5,), (1,)), (real(4),)), Sample(s.Slice((), (), ()), (real(),)),
        Sample(s.Slice((0, 0), (0, 2), (1, 1)), (real(0, 2),)), Sample(s.Slice((1, 0), (3, 3), (1, 2)), (real(3, 3),)),
        reference=_taken,
        refusals=(
            refuse(ShapeError, "axis 0 of size 3 has no 0:4:1", s.Slice((0,), (4,), (1,)), ty(3)),
            refuse(ShapeError, "the step of axis 0 is 0", s.Slice((0,), (3,), (0,)), ty(3)),
            refuse(ShapeError, "has no -1:2:1", s.Slice((-1,), (2,), (1,)), ty(3)),
            refuse(ShapeError, "axis 0 of size 3 has no", BEYOND, ty(3)),
            refuse(ShapeError, "must be given for each of 2 axes", s.Slice((0,), (1,), (1,)), ty(3, 3)),
        ),
        without=NO_AXES,
    ),
    move(
        Sample(s.Unslice((4, 1), (0, 3), (-2, 1), (5, 4)), (real(2, 2),)),
        Sample(s.Unslice((1,), (1,), (1,), (3,)), (real(0),)), Sample(s.Unslice((), (), (), ()), (real(),)),
        Sample(s.Unslice((0, 0), (2, 3), (1, 1), (2, 3)), (real(2, 3),)),
        Sample(s.Unslice((0,), (6,), (3,), (7,)), (real(2),)),
        reference=lambda op, x: _put(op, np.zeros(op.shape, x.dtype), x),
        refusals=(
            refuse(ShapeError, "negative size -3", s.Unslice((0,), (0,), (1,), (-3,)), ty(0)),
            refuse(ShapeError, "more elements than can be addressed", s.Unslice((0,), (1,), (1,), (2**62,)), ty(1)),
            refuse(ShapeError, r"select \[2\] of \[3\]", s.Unslice((0,), (2,), (1,), (3,)), ty(3)),
        ),
        without=NO_AXES,
        moves=None,
    ),
    Facts(
        samples=(
            Sample(SOME, (real(4, 3), real(2, 2))), Sample(SOME, (real(4, 3), real(2, 1))),
            Sample(SOME, (real(4, 3), real())), Sample(s.SliceSet((), (), ()), (real(), real())),
            Sample(s.SliceSet((0, 0), (0, 2), (1, 1)), (real(0, 2), real(0, 2))),
            Sample(s.SliceSet((0, 0), (2, 2), (1, 1)), (real(2, 2), real(2, 2))),
        ),
        refusals=(
            refuse(ShapeError, "axis -1 has sizes", s.SliceSet((0,), (2,), (1,)), ty(3), ty(3)),
            refuse(ShapeError, "does not broadcast", s.SliceSet((0,), (1,), (1,)), ty(3), ty(3)),
            refuse(DTypeError, "dtypes must be equal", s.SliceSet((0,), (1,), (1,)), ty(3), ty(1, dtype=t.int64)),
        ),
        reference=_put,
        dtypes=ANY,
        differentiable=(0, 1),
        flops=nothing,
        moves=lambda op, x, y: x.nbytes + y.nbytes,
        without={**NO_AXES, **NO_SUMS, "ties": "elements are not compared with each other"},
    ),
]  # fmt: skip
