"""Ops on single numbers by the library: NumPy's bits, in one call with the kernels around them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.graph import Function
from telegrad_server.compiler.plan import make_plan
from telegrad_server.executors.array import ArrayExecutor, numpy_executor
from telegrad_server.executors.compiling import found_compiler

from tests.compiler.graphs import interpret

pytestmark = pytest.mark.skipif(found_compiler() is None, reason="there is no C compiler")

VALUES = (0.0, -0.0, 1.0, -1.5, 0.9, 3.0, 1e300, 1e-310, np.inf, -np.inf, np.nan)
EXACT: dict[str, Callable[[Value, Value], Value]] = {
    "add": ops.add,
    "subtract": ops.subtract,
    "multiply": ops.multiply,
    "divide": ops.divide,
    "negative": lambda x, y: ops.negative(x),
    "sqrt": lambda x, y: ops.sqrt(x),
    "float32": lambda x, y: ops.astype(x, t.float32),
}


@pytest.fixture(scope="module")
def executor() -> ArrayExecutor:
    return numpy_executor(kernels="auto", is_poisoned=True)


def found_and_wanted(
    executor: ArrayExecutor, make: Callable[[Value, Value], Value], shape: tuple[int, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    x, y = new_input(Type(shape, t.float64)), new_input(Type(shape, t.float64))
    graph = Graph.of([x, y], [make(x, y)])
    plan = make_plan(Function(graph), uses_library=True)
    _, program, _ = executor.prepared(plan)
    assert [function.__name__ for _, function, *_ in program.calls] == ["tg_run"]
    pairs = [[np.full(shape, a), np.full(shape, b)] for a in VALUES for b in VALUES]
    return [(executor.run(plan, pair)[0], interpret(graph, pair)[0]) for pair in pairs]


@pytest.mark.parametrize("name", list(EXACT))
@pytest.mark.parametrize("shape", [(), (1, 1)], ids=str)
def test_an_op_on_one_number_has_numpys_bits(name: str, shape: tuple[int, ...], executor: ArrayExecutor) -> None:
    for found, wanted in found_and_wanted(executor, EXACT[name], shape):
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        np.testing.assert_array_equal(found, wanted)
        assert np.signbit(found[~np.isnan(found)]).tolist() == np.signbit(wanted[~np.isnan(wanted)]).tolist()


def test_a_power_is_numpys_within_an_ulp(executor: ArrayExecutor) -> None:
    for found, wanted in found_and_wanted(executor, ops.pow, ()):
        np.testing.assert_allclose(found, wanted, rtol=2.3e-16, atol=0)


def test_more_numbers_than_one_stay_with_numpy(executor: ArrayExecutor) -> None:
    x = new_input(Type((2,), t.float64))
    _, program, _ = executor.prepared(make_plan(Function(Graph.of([x], [ops.sqrt(x)])), uses_library=True))

    assert [function.__name__ for _, function, *_ in program.calls] == ["sqrt"]
