"""Plans over images: convolutions and pooling by the library make what NumPy makes, and refuse what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from telegrad import ops
from telegrad.autodiff import gradient
from telegrad.errors import IndexRange
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.graph import Function
from telegrad.ops.convolution import Convolution
from telegrad.ops.pooling import max_pool2d
from telegrad_server.compiler.plan import Plan, make_plan
from telegrad_server.executors.array import ArrayExecutor, numpy_executor
from telegrad_server.executors.compiling import found_compiler
from telegrad_server.executors.native import Native

from tests.compiler.graphs import interpret

pytestmark = pytest.mark.skipif(found_compiler() is None, reason="there is no C compiler")


@pytest.fixture(scope="module")
def executor() -> ArrayExecutor:
    return numpy_executor(kernels="auto", is_poisoned=True)


def by_kernels(executor: ArrayExecutor, plan: Plan) -> set[str]:
    """The names of the ops that kernels do."""
    assert isinstance(executor.native, Native)
    return {step.op.name for step in plan.steps if executor.native.calls(plan, step)}


def test_a_network_with_its_gradients_is_done_by_kernels(executor: ArrayExecutor) -> None:
    x, weight = new_input(Type((3, 2, 9, 8), t.float32)), new_input(Type((5, 2, 3, 3), t.float32))
    y = Convolution((1, 1), (1, 1), (1, 1), (1, 1))(x, weight)
    assert isinstance(y, Value)
    pooled = max_pool2d(y, 2)
    assert isinstance(pooled, Value)
    loss = ops.sum(pooled * ops.sum(y, axis=(0, 2, 3), keepdims=True))
    graph = Graph.of([x, weight], [loss, *gradient([loss], [ops.ones_like(loss)], [x, weight])])
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=i.shape).astype(np.float32) for i in graph.input_types]
    plan = make_plan(Function(graph), uses_library=True)

    found = executor.run(plan, arrays)

    for one, wanted in zip(found, interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-5, atol=1e-5 * float(np.abs(wanted).max()))
    wanted_names = {
        "convolution",
        "convolution_input",
        "convolution_weight",
        "window_argmax",
        "take_along",
        "add_along",
    }
    assert wanted_names <= by_kernels(executor, plan)


def test_an_operand_that_lies_otherwise_is_left_to_numpy(executor: ArrayExecutor) -> None:
    x, weight = new_input(Type((3, 9, 8, 2), t.float32)), new_input(Type((5, 2, 3, 3), t.float32))
    y = Convolution((1, 1), (1, 1), (1, 1), (1, 1))(ops.permute_dims(x, (0, 3, 1, 2)), weight)
    assert isinstance(y, Value)
    graph = Graph.of([x, weight], [y])
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=i.shape).astype(np.float32) for i in graph.input_types]

    (found,) = executor.run(make_plan(Function(graph), uses_library=True), arrays)

    np.testing.assert_allclose(found, interpret(graph, arrays)[0], rtol=1e-5, atol=1e-5)


def test_numbers_of_elements_that_users_give_are_checked(executor: ArrayExecutor) -> None:
    x, index = new_input(Type((2, 3), t.float32)), new_input(Type((2, 4), t.int64))
    plan = make_plan(Function(Graph.of([x, index], [ops.take_along_axis(x, index, axis=1)])), uses_library=True)

    with pytest.raises(IndexRange):
        executor.run(plan, [np.ones((2, 3), np.float32), np.full((2, 4), 3)])
