"""The driver: consecutive kernels are one call, and know where operands, results and views of them are."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.graph import Function
from telegrad_server.compiler.fuse import fuse
from telegrad_server.compiler.pipeline import optimise
from telegrad_server.compiler.plan import Plan, make_plan
from telegrad_server.executors.array import ArrayExecutor, numpy_executor
from telegrad_server.executors.compiling import found_compiler
from telegrad_server.executors.driver import HEAD_BYTES

from tests.compiler.graphs import Array, interpret

pytestmark = pytest.mark.skipif(found_compiler() is None, reason="there is no C compiler")

X = Type((64, 96), t.float32)


@pytest.fixture
def executor() -> ArrayExecutor:
    return numpy_executor(kernels="auto")


def planned(inputs: Sequence[Value], outputs: Sequence[Value]) -> tuple[Plan, Graph]:
    graph = optimise(Graph.of(inputs, outputs))
    return make_plan(Function(fuse(graph))), graph


def names_of_calls(executor: ArrayExecutor, plan: Plan) -> list[str]:
    """What Python calls in a run."""
    _, program, _ = executor.prepared(plan)
    return [getattr(function, "__name__", "?") for _, function, *_ in program.calls]


def arrays_for(graph: Graph, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=x.shape).astype(np.float32) for x in graph.input_types]


def check(executor: ArrayExecutor, plan: Plan, graph: Graph) -> None:
    """The plan gives what its graph gives node by node, for operands that lie elsewhere each time."""
    for seed in range(3):
        arrays = arrays_for(graph, seed)
        found = executor.run(plan, arrays)
        for x, y in zip(found, interpret(graph, arrays), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_consecutive_kernels_are_one_call(executor: ArrayExecutor) -> None:
    x = new_input(X)
    rows = ops.exp(x) / ops.sum(ops.exp(x), axis=0)  # a sum over rows, and then a kernel that needs all of it
    plan, graph = planned([x], [ops.tanh(rows * 2), rows])

    assert sum(step.op.name == "fused" for step in plan.steps) > 1
    assert names_of_calls(executor, plan) == ["tg_run"]
    check(executor, plan, graph)


def test_what_numpy_does_stands_between_two_calls(executor: ArrayExecutor) -> None:
    x, y = new_input(X), new_input(Type((96, 8), t.float32))
    plan, graph = planned([x, y], [ops.tanh(ops.cumulative_sum(ops.exp(x) + x, axis=0) * 2)])

    assert [name == "tg_run" for name in names_of_calls(executor, plan)] == [True, False, True]
    check(executor, plan, graph)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[3:40:2, 5:],
        lambda x: ops.flip(x, axis=0),
        lambda x: ops.permute_dims(x, (1, 0)),
        lambda x: ops.permute_dims(ops.flip(x[8:, ::3], axis=1), (1, 0)),
        lambda x: ops.reshape(x, (32, 192))[:, 7],
    ],
    ids=["slice", "flip", "permute", "several", "column"],
)
def test_a_view_that_kernels_alone_read_costs_python_nothing(view: object, executor: ArrayExecutor) -> None:
    x = new_input(X)
    assert callable(view)
    plan, graph = planned([x], [ops.tanh(view(x) * 2)])

    assert names_of_calls(executor, plan) == ["tg_run"]
    check(executor, plan, graph)


def test_a_view_that_numpy_reads_too_is_there_for_both(executor: ArrayExecutor) -> None:
    x = new_input(X)
    view = x[1:, 3:]
    plan, graph = planned([x], [ops.tanh(view * 2), ops.cumulative_sum(view, axis=1)])

    assert names_of_calls(executor, plan).count("tg_run") == 1
    check(executor, plan, graph)


def test_a_view_of_a_result_is_read_where_the_result_lies(executor: ArrayExecutor) -> None:
    x = new_input(X)
    made = ops.exp(x) * x
    plan, graph = planned(
        [x], [made, ops.tanh(ops.cumulative_sum(ops.flip(made, axis=0), axis=0)), ops.tanh(made[2:] + 1)]
    )

    check(executor, plan, graph)


def test_operands_without_elements_and_of_one_are_fine(executor: ArrayExecutor) -> None:
    x, y = new_input(Type((0, 5), t.float32)), new_input(Type((), t.float32))
    plan, graph = planned([x, y], [ops.tanh(x * y + 1), ops.tanh(y * y + 1)])

    check(executor, plan, graph)


def test_an_array_has_the_address_of_its_elements_where_kernels_look_for_it() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

    for array in (
        whole,
        whole[1:, ::2],
        whole.T,
        np.array(1.0),
        np.empty((0, 3)),
        np.broadcast_to(whole, (5, 2, 3, 4)),
    ):
        found = ctypes.c_void_p.from_address(id(array) + HEAD_BYTES).value
        assert found == array.ctypes.data


def test_blas_is_left_alone_where_kernels_do_all_products(executor: ArrayExecutor) -> None:
    for dtype, uses_blas in ((t.float32, False), (t.float64, True)):
        x = new_input(Type((8, 8), dtype))
        plan = make_plan(Function(Graph.of([x], [x @ x])), uses_library=True)
        assert executor.prepared(plan)[1].uses_blas is uses_blas
