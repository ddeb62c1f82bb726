"""Products of matrices by the library: what NumPy gives in float64, in any layout, whatever lies around them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.graph import Function
from telegrad.ops.linalg import Matmul
from telegrad_server.compiler.plan import make_plan
from telegrad_server.compiler.trips import UNIT_ROWS
from telegrad_server.executors.array import ArrayExecutor, numpy_executor
from telegrad_server.executors.compiling import found_compiler
from telegrad_server.executors.driver import KernelCall
from telegrad_server.executors.library import Call, Library
from telegrad_server.executors.products import matmul_calls, packed_calls

from tests.compiler.graphs import Array, interpret, same_bits

pytestmark = pytest.mark.skipif(found_compiler() is None, reason="there is no C compiler")

Make = Callable[[Value, Value], Value]


@pytest.fixture(scope="module")
def executor() -> ArrayExecutor:
    return numpy_executor(kernels="auto", is_poisoned=True)


def graph_of(make: Make, *shapes: tuple[int, ...]) -> Graph:
    inputs = [new_input(Type(shape, t.float32)) for shape in shapes]
    return Graph.of(inputs, [make(*inputs)])


def products(executor: ArrayExecutor, graph: Graph, arrays: list[Array]) -> list[Array]:
    plan = make_plan(Function(graph), uses_library=True)
    _, program, _ = executor.prepared(plan)
    assert "tg_run" in [getattr(function, "__name__", "") for _, function, *_ in program.calls]
    return executor.run(plan, arrays)


def check(executor: ArrayExecutor, graph: Graph) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=x.shape).astype(np.float32) for x in graph.input_types]

    (found,) = products(executor, graph, arrays)
    (wanted,) = interpret(graph, arrays)

    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(wanted).max(initial=0))))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((1, 1), (1, 1)),
        ((7, 5), (5, 3)),
        ((65, 130), (130, 257)),
        ((33, 0), (0, 9)),
        ((4, 9, 17), (17, 33)),
        ((4, 1, 17), (17, 33)),
        ((4, 9, 17), (1, 17, 33)),
        ((4, 9, 17), (4, 17, 33)),
        ((9, 17), (4, 17, 33)),
        ((2, 1, 9, 17), (3, 17, 33)),
        ((1, 3, 1, 17), (2, 1, 17, 5)),
    ],
    ids=str,
)
def test_stacks_of_any_shapes(x: tuple[int, ...], y: tuple[int, ...], executor: ArrayExecutor) -> None:
    check(executor, graph_of(ops.matmul, x, y))


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y: ops.matmul(ops.matrix_transpose(x), y),
        lambda x, y: ops.matmul(y[:, ::2], ops.matrix_transpose(x[:, 3:, :])),
        lambda x, y: ops.matmul(ops.flip(ops.matrix_transpose(x), axis=2), y[:, :, ::2]),
        lambda x, y: ops.matmul(ops.permute_dims(x, (1, 2, 0)), ops.permute_dims(y, (1, 0, 2))),
        lambda x, y: ops.matmul(ops.permute_dims(x, (1, 2, 0)), ops.reshape(y[:, 0, :], (6, 20))),
        lambda x, y: ops.matmul(ops.broadcast_to(x[:1, :1, :], (6, 8, 20)), ops.matrix_transpose(y)),
    ],
    ids=["transposed", "both", "flipped", "permuted", "strided rows", "broadcast"],
)
def test_operands_are_read_where_they_lie(make: Make, executor: ArrayExecutor) -> None:
    check(executor, graph_of(make, (6, 20, 20), (6, 20, 20)))


def test_rows_have_the_same_bits_however_many_there_are(executor: ArrayExecutor) -> None:
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in ((64, 300), (300, 70)))

    (whole,) = products(executor, graph_of(ops.matmul, (64, 300), (300, 70)), [x, y])
    parts = [
        products(executor, graph_of(ops.matmul, (16, 300), (300, 70)), [x[i : i + 16], y])[0] for i in range(0, 64, 16)
    ]

    assert whole.tobytes() == np.concatenate(parts).tobytes()


def test_infinities_and_nan_come_through(executor: ArrayExecutor) -> None:
    x, y = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32)
    x[0, 1], x[1, 2], y[2, 3] = np.nan, np.inf, 0.0

    (found,) = products(executor, graph_of(ops.matmul, (3, 4), (4, 5)), [x, y])

    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, x @ y)


def test_other_dtypes_stay_with_numpy(executor: ArrayExecutor) -> None:
    x = new_input(Type((8, 8), t.float64))
    plan = make_plan(Function(Graph.of([x], [ops.matmul(x, x)])), uses_library=True)

    _, program, _ = executor.prepared(plan)

    assert [function.__name__ for _, function, *_ in program.calls] == ["matmul"]


def test_a_plan_that_is_not_for_the_library_has_numpys_bits(executor: ArrayExecutor) -> None:
    graph = graph_of(ops.matmul, (40, 300), (300, 70))
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in ((40, 300), (300, 70)))

    (found,) = executor.run(make_plan(Function(graph)), [x, y])

    assert found.tobytes() == numpy_executor().run(make_plan(Function(graph)), [x, y])[0].tobytes()


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 1, 1), (1, 33, 5), (16, 512, 128), (7, 300, 100), (33, 70, 513), (5, 9, 0)]
)
def test_a_right_operand_that_is_packed_once_gives_the_same_bits(
    library: Library, m: int, n: int, k: int, is_transposed: bool
) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(m, k)).astype(np.float32)
    y = rng.normal(size=(n, k) if is_transposed else (k, n)).astype(np.float32)
    types = [Type((m, k), t.float32), Type((k, n), t.float32)]
    layouts = [(types[0], (k, 1)), (types[1], (1, k) if is_transposed else (n, 1))]
    out = Type((m, n), t.float32)

    def run(calls: list[KernelCall], *, is_by_rows: bool = False) -> Array:
        found = np.full((m, n), np.nan, np.float32)
        for call in calls:
            for number, place in call.pointers:
                call.point(place, (x, y, found)[number].ctypes.data)
            own = call.call()
            if is_by_rows and not call.is_once:
                own = Call(call.by_rows, own.arguments, -(-m // UNIT_ROWS), False)
            library.run((Call * 1)(own), 1)
        return found

    usual = run(matmul_calls(Matmul(), library, layouts, [out]))

    np.testing.assert_allclose(usual, x @ (y.T if is_transposed else y), rtol=1e-4, atol=1e-4)
    for is_by_rows in (False, True):
        packed = packed_calls(library, layouts, [out])
        assert [call.is_once for call in packed] == [True, False]
        assert same_bits(run(packed, is_by_rows=is_by_rows), usual)
    assert same_bits(run(matmul_calls(Matmul(), library, layouts, [out]), is_by_rows=True), usual)
