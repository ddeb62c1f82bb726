"""What has kernels, and from which run on: by size and count, never by time."""

from __future__ import annotations

import pytest
from telegrad import ops
from telegrad.ir import Function, Graph, Type, new_input
from telegrad.ir import types as t
from telegrad.wire.codec import encode_function, function_id
from telegrad_server.compiler.plan import Plan
from telegrad_server.config import Config
from telegrad_server.functions import Functions, Known, functions_for, read_function


def known(side: int) -> Known:
    """A function of so many rows and columns."""
    x = new_input(Type((side, side), t.float32))
    data = encode_function(Function(Graph.of([x], [ops.tanh(x) * 2 + x])))
    return read_function(function_id(data), data)


@pytest.fixture
def functions() -> Functions:
    return functions_for(Config(), kernels="c", keeps_bytes=False)


def is_fused(plan: Plan) -> bool:
    return any(step.op.name == "fused" for step in plan.steps)


def test_a_recorded_graph_has_kernels_from_its_third_run_on(functions: Functions) -> None:
    graph = known(300)

    plans = [functions.plan_of_graph(graph) for _ in range(4)]

    assert [is_fused(plan) for plan in plans] == [False, False, True, True]
    assert plans[0] is plans[1] and plans[2] is plans[3]


def test_a_small_recorded_graph_never_has_kernels(functions: Functions) -> None:
    graph = known(3)

    plans = [functions.plan_of_graph(graph) for _ in range(4)]

    assert len(set(plans)) == 1 and not is_fused(plans[0])


def test_a_declared_function_has_kernels_at_once(functions: Functions) -> None:
    assert is_fused(functions.plan_of(known(300)))


def test_an_executor_without_kernels_gets_none() -> None:
    graph = known(300)
    functions = functions_for(Config(), kernels="none", keeps_bytes=False)

    plans = [functions.plan_of_graph(graph) for _ in range(4)]

    assert len(set(plans)) == 1 and not is_fused(plans[0])
