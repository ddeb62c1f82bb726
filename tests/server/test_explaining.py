"""What a plan would take, as the server says it: costs of loops, kernels, groups, and the most live bytes."""

from __future__ import annotations

import pytest
from telegrad import ops
from telegrad.ir import Function, Graph, Origin, Type, new_input
from telegrad.ir import types as t
from telegrad.ir.value import origin
from telegrad.ops.control import Gradient
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.executors.array import numpy_executor
from telegrad_server.explaining import TOLD_STEPS, explained

WIDE = Type((256, 512), t.float32)


def test_groups_are_printed_and_name_their_ops_and_nodes() -> None:
    executor = numpy_executor(kernels="auto")
    if executor.native is None:
        pytest.skip("no C compiler")
    x, w = new_input(WIDE), new_input(Type((512, 128), t.float32))
    with origin(Origin(7)):
        y = ops.matmul(x, w)
    with origin(Origin(8)):
        y = ops.exp(y) * 2 + 1
    plan = compile_function(Function(Graph.of([x, w], [y])), kernels="c")

    found = explained(plan, executor)

    kinds = {step.ops[0]: step.kernel for step in found.steps}
    assert kinds["matmul"] == "library"
    (group,) = [step for step in found.steps if step.kernel == "printed"]
    assert {"exp", "multiply", "add"} <= set(group.ops)
    assert 8 in group.nodes
    assert found.flops > 2 * 256 * 512 * 128 - 1


def test_the_peak_is_where_the_arena_is_fullest() -> None:
    x = new_input(Type((100,), t.float32))
    with origin(Origin(1)):
        small = x + 1
    with origin(Origin(2)):
        wide = ops.matmul(ops.expand_dims(small, axis=1), ops.expand_dims(small, axis=0))
    plan = compile_function(Function(Graph.of([x], [ops.sum(wide)])))

    found = explained(plan, numpy_executor())

    peak = found.steps[found.peak_step]
    assert peak.ops in (("matmul",), ("sum",))
    assert peak.live_bytes >= 100 * 100 * 4
    assert max(step.live_bytes for step in found.steps) <= plan.peak_bytes


def test_a_gradient_is_said_to_be_one() -> None:
    x = new_input(WIDE)
    with origin(Origin(3)):
        y = ops.sum(ops.tanh(x))
    (g,) = Gradient(1).results(y, y.literal(1, y.dtype), x)
    plan = compile_function(Function(Graph.of([x], [g])))

    found = explained(plan, numpy_executor())

    assert any(step.is_backward and step.nodes == (3,) for step in found.steps)


def test_of_a_very_long_plan_the_first_steps_are_told() -> None:
    x = new_input(Type((2, 2), t.float32))
    y = x
    for _ in range(TOLD_STEPS + 5):
        y = ops.matmul(y, x)
    plan = compile_function(Function(Graph.of([x], [y])))

    found = explained(plan, numpy_executor())

    assert found.all_steps == TOLD_STEPS + 5
    assert len(found.steps) == TOLD_STEPS
    assert found.moved_bytes == (TOLD_STEPS + 5) * 3 * 16
