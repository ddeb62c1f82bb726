"""Facts of the ops about the graph itself that run. Those that passes replace are in `ELSEWHERE`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from telegrad.errors import GraphError
from telegrad.ops import control, parts

from tests.ops.operands import booleans, integers, real
from tests.ops.registry.facts import ANY, MOVES, NO_AXES, NO_MATRICES, Facts, Refusal, Sample, nothing, refuse, ty

SAME = {**MOVES, **NO_AXES, **NO_MATRICES}


def _identity(op: Any, *, has_gradient: bool) -> Facts:
    return Facts(
        samples=tuple(Sample(op, (x,)) for x in (real(3), real(2, 3), integers(3), booleans(2), real(), real(0))),
        refusals=tuple(
            refuse(GraphError, f"{op.name} does not take {n} operands", op, *[ty(2)] * n) for n in (0, 2, 3)
        ),
        reference=lambda op, x: x,
        dtypes=ANY,
        differentiable=(0,) if has_gradient else (),
        flops=nothing,
        moves=nothing,
        without=SAME,
    )


def _beside() -> Facts:
    op = parts.MoveBeside()
    return Facts(
        samples=(
            Sample(op, (real(3), real(2))),
            Sample(op, (real(2, 3), real(2, 3))),
            Sample(op, (integers(3), real(1))),
            Sample(op, (real(), real(0))),
            Sample(op, (real(0), real())),
        ),
        refusals=tuple(
            refuse(GraphError, f"{op.name} does not take {n} operands", op, *[ty(2)] * n) for n in (0, 1, 3)
        ),
        reference=lambda op, x, beside: x,
        dtypes=ANY,
        differentiable=(0,),
        flops=nothing,
        moves=nothing,
        without=SAME,
    )


def _numbered(op: type[Any], most: int, why: str) -> Facts:
    facts = _identity(op(1), has_gradient=True)
    more = tuple(Sample(op(n), (real(2),)) for n in (0, most - 1))
    return replace(
        facts,
        samples=(*[s for s in facts.samples if s.arrays[0].dtype.kind != "i"], *more),
        refusals=(*facts.refusals, *[refuse(GraphError, why, op(n), ty(2)) for n in (-1, most)]),
    )


def _barrier() -> Facts:
    op = control.Barrier

    def wrong(count: int, *operands: Any) -> Refusal:
        return refuse(GraphError, f"count {count} does not fit {len(operands)} operands", op(count), *operands)

    return Facts(
        samples=(
            Sample(op(2), (real(3), real(2), real(1))),
            Sample(op(1), (real(3),)),
            Sample(op(2), (real(2), integers(2))),
            Sample(op(2), (real(), real(0))),
            Sample(op(2), (real(2, 2), real(2, 2), real(3), real(3))),
        ),
        refusals=(wrong(0, ty(2)), wrong(3, ty(2), ty(2)), wrong(1)),
        reference=lambda op, *x: list(x[: op.count]),
        dtypes=ANY,
        differentiable=lambda op: range(op.count),
        flops=nothing,
        moves=nothing,
        without=SAME,
    )


ROWS = [
    _identity(control.StopGradient(), has_gradient=False),
    _identity(control.Alias(), has_gradient=True),
    _barrier(),
    _numbered(parts.MoveTo, parts.MAX_WORKERS, "workers are numbered from 0"),
    _numbered(parts.MicroBatch, parts.MAX_MICRO_BATCHES, "micro-batches are numbered from 0"),
    _beside(),
]

ELSEWHERE = {
    "input": "every graph of these tests begins with inputs",
    "gradient": "test_control and test_autodiff",
    "checkpoint": "test_control",
    "dropped_attention": "test_dropped_attention",
    "custom_vjp": "test_control",
    "scan": "test_loops",
    "switch": "test_loops",
    "while": "test_loops",
    "replica_index": "tests.client.test_replicas: no operand and, on one replica, one value",
    "replica_weight": "tests.client.test_replicas: the same",
}
"""Ops that facts cannot describe, and where they are tested."""
