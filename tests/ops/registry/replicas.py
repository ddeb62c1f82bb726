"""Facts of what differs between replicas, on one. On several: `tests.replicas` and `tests.client.test_replicas`."""

from __future__ import annotations

from telegrad.errors import DTypeError, GraphError
from telegrad.ir import types as t
from telegrad.ops.replicas import AllReduce

from tests.ops.operands import integers, real
from tests.ops.registry.facts import FLOATS, MOVES, NO_AXES, NO_MATRICES, Facts, Sample, nothing, refuse, ty

MEAN, SUM = AllReduce("mean"), AllReduce("sum")

ROWS = [
    Facts(
        samples=(
            Sample(MEAN, (real(2, 3),)),
            Sample(MEAN, (real(),)),
            Sample(SUM, (real(3),)),
            Sample(SUM, (real(0),)),
            Sample(SUM, (integers(3),)),
            Sample(AllReduce("sum", "sum"), (real(3, 2),)),
            Sample(AllReduce("mean", "sum"), (real(4),)),
        ),
        refusals=(
            refuse(GraphError, "must be 'mean' or 'sum', not 'max'", AllReduce("max"), ty(2)),
            refuse(GraphError, "must be 'mean' or 'sum', not 'none'", AllReduce("sum", "none"), ty(2)),
            refuse(DTypeError, "has no mean over replicas", MEAN, ty(2, dtype=t.int64)),
            refuse(DTypeError, "cannot be summed over replicas", SUM, ty(2, dtype=t.bool_)),
            refuse(GraphError, "all_reduce does not take 2 operands", SUM, ty(2), ty(2)),
        ),
        reference=lambda op, x: x,
        dtypes=FLOATS,
        differentiable=(0,),
        flops=nothing,
        moves=nothing,
        without={**MOVES, **NO_AXES, **NO_MATRICES},
    ),
]
