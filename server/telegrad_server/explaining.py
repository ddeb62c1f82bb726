"""What running a plan would take, step by step, before anything is run.

Costs are those that the rules of the ops give for types; what is live is counted as the plan's arena is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from telegrad.ir.value import Node, Origin
from telegrad.ops.elementwise import Constant
from telegrad.ops.loops import Scan, While
from telegrad.wire import messages as m

from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.plan import Place, Plan, Step
from telegrad_server.executors import Executor

TOLD_STEPS = 10_000
"""Of so many steps the client is told; the sums are of all."""


class _Told(NamedTuple):
    """A step, and whether it is the one of the whole plan at which most memory is live."""

    step: m.ExplainedStep
    is_peak: bool


def explained(plan: Plan, executor: Executor) -> m.Explained:
    """What running the plan on this executor would take."""
    steps: list[m.ExplainedStep] = []
    moved = count = 0
    peak = -1
    for told in _steps(plan, executor, depth=0, trips=1):
        if count < TOLD_STEPS:
            steps.append(told.step)
            peak = count if told.is_peak else peak
        count += 1
        moved += told.step.moved_bytes
    return m.Explained(
        sequence=0,
        flops=plan.flops,
        moved_bytes=moved,
        arena_bytes=plan.arena_bytes,
        peak_bytes=plan.peak_bytes,
        all_steps=count,
        steps=tuple(steps),
        peak_step=peak,
    )


def _steps(plan: Plan, executor: Executor, *, depth: int, trips: int) -> Iterator[_Told]:
    """The steps in order, each loop's own after it."""
    live = _live_bytes(plan)
    peak = max(range(len(live)), key=live.__getitem__, default=-1)
    for k, (step, kernel) in enumerate(zip(plan.steps, executor.kernels_of(plan), strict=True)):
        yield _Told(_step(plan, step, kernel, live[k], depth=depth, trips=trips), depth == 0 and k == peak)
        inner = trips
        match step.op:
            case Scan(length):
                inner *= length
            case While(max_trips):
                inner *= max_trips
            case _:
                pass
        for own in step.plans:
            yield from _steps(own, executor, depth=depth + 1, trips=inner)


def _step(plan: Plan, step: Step, kernel: str, live: int, *, depth: int, trips: int) -> m.ExplainedStep:
    flops = moved = 0
    if kernel not in ("view", "constant", "loop"):
        flops, moved = step.op.cost(*[plan.slots[i].type for i in step.inputs])
    ops, nodes = (step.op.name,), (-1 if step.origin is None else step.origin.node,)
    is_backward = step.origin is not None and step.origin.is_backward
    if isinstance(step.op, Fused):
        body = [node for node in step.op.body.body if not isinstance(node.op, Constant)]
        ops, nodes = tuple([node.op.name for node in body]), tuple(_numbers(body))
        is_backward = any(isinstance(node.origin, Origin) and node.origin.is_backward for node in body)
    return m.ExplainedStep(ops, nodes, is_backward, kernel, flops * trips, moved * trips, live, depth)


def _numbers(nodes: Sequence[Node]) -> Iterator[int]:
    for node in nodes:
        yield node.origin.node if isinstance(node.origin, Origin) else -1


def _live_bytes(plan: Plan) -> list[int]:
    """For each step the bytes of the arena that are in use while it runs, and what it works in beside."""
    found: list[int] = []
    live = 0
    for step in plan.steps:
        for i in step.outputs:
            if plan.slots[i].place is Place.ARENA and not (step.over >= 0 and i == step.outputs[0]):
                live += plan.slots[i].type.nbytes
        working = step.op.working_bytes(*[plan.slots[i].type for i in step.inputs])
        found.append(live + working + sum([own.peak_bytes for own in step.plans]))
        live -= sum([plan.slots[i].type.nbytes for i in step.frees])
    return found
