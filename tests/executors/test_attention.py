"""Attention forward and backward: memory that is linear in the number of queries, and the library's kernels."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from telegrad import ops
from telegrad.autodiff import gradient
from telegrad.ir import Function, Graph, new_input
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.ops.attention import Attention, AttentionGradient, scaled_dot_product_attention
from telegrad.wire.arrays import type_of
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.compiler.plan import Plan, make_plan
from telegrad_server.executors.array import ArrayExecutor, numpy_executor

from tests.compiler.graphs import same_bits

Array = npt.NDArray[Any]


@pytest.mark.slow
def test_a_step_of_long_attention_has_no_matrix_of_all_weights() -> None:
    length = 4096
    shape = (1, 2, length, 16)
    q, k, v, g = inputs = [new_input(Type(shape, t.float32)) for _ in range(4)]
    out = scaled_dot_product_attention(q, k, v, is_causal=True)
    plan = compile_function(Function(Graph.of(inputs, gradient([out], [g], [q, k, v]))))
    arrays = [np.random.default_rng(0).normal(size=shape).astype(np.float32) for _ in range(4)]
    executor = numpy_executor()

    tracemalloc.start()
    executor.run(plan, arrays)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < length * length * 4 * 2 / 3  # of two heads


# ---- kernels


def native(threads: int = 1) -> ArrayExecutor:
    """An executor whose kernels run on so many threads."""
    found = numpy_executor(kernels="auto")
    if found.native is None or found.native.library is None:
        pytest.skip("no C compiler")
    found.native.library.use_threads(threads)
    return found


SHAPES: dict[str, tuple[tuple[int, ...], int, int, int, int, bool, bool]] = {
    # leading axes, queries, keys, E, D, is_causal, has a bias
    "one": ((1,), 1, 1, 1, 1, False, False),
    "odd": ((2, 3), 33, 65, 7, 5, False, True),
    "gpt": ((4, 4), 128, 128, 32, 32, True, False),
    "more keys": ((1,), 70, 200, 16, 48, True, False),
    "more queries": ((2,), 200, 70, 16, 48, True, True),
    "chunks": ((2,), 70, 1100, 20, 33, False, False),
    "long": ((1, 2), 600, 600, 64, 64, True, False),
    "no width": ((3,), 5, 6, 0, 2, False, False),
    "no keys": ((2,), 31, 0, 3, 3, False, False),
    "a row": ((2,), 1, 600, 64, 16, True, True),
    "vectors": ((17,), 33, 100, 16, 16, False, True),
}


@pytest.mark.parametrize("name", SHAPES)
def test_kernels_are_as_near_to_float64_as_numpy_whoever_runs_them(name: str) -> None:
    lead, rows, columns, width, wide, is_causal, has_bias = SHAPES[name]
    rng = np.random.default_rng(0)
    shapes = [(rows, width), (columns, width), (columns, wide), *([(rows, columns)] if has_bias else [])]
    q, k, v, *bias = (rng.standard_normal((*lead, *shape)).astype(np.float32) for shape in shapes)
    for b in bias:
        b[..., 0, :], b[..., -1, :3] = -np.inf, -np.inf
    g = rng.standard_normal((*lead, rows, wide)).astype(np.float32)
    forward, backward = Attention(0.3, is_causal), AttentionGradient(0.3, is_causal)
    exact = run(numpy_executor(), forward, [x.astype(np.float64) for x in (q, k, v, *bias)])
    row = (exact[0] * g).sum(-1)
    more = [exact[1].astype(np.float32), row.astype(np.float32)]
    exact += run(numpy_executor(), backward, [x.astype(np.float64) for x in (g, q, k, v, *more, *bias)])

    usual = run(numpy_executor(), forward, [q, k, v, *bias])
    usual += run(numpy_executor(), backward, [g, q, k, v, *more, *bias])
    found = [
        run(native(threads), forward, [q, k, v, *bias]) + run(native(threads), backward, [g, q, k, v, *more, *bias])
        for threads in (1, 2, 3)
    ]

    for want, mine, plain in zip(exact, found[0], usual, strict=True):
        assert np.array_equal(np.isinf(want), np.isinf(mine))
        finite = np.isfinite(want)
        top = np.abs(want[finite]).max(initial=1e-3)
        bound = max(4 * np.abs(plain[finite] - want[finite]).max(initial=0.0), 2e-6 * top)
        assert np.abs(mine[finite] - want[finite]).max(initial=0.0) <= bound
    assert all(same_bits(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_a_matrix_has_the_same_bits_among_few_and_among_many() -> None:
    rng = np.random.default_rng(1)
    q, k, v, g = (rng.standard_normal((20, 150, 24)).astype(np.float32) for _ in range(4))
    sums = [rng.standard_normal((20, 150)).astype(np.float32) for _ in range(2)]
    op = AttentionGradient(0.2, is_causal=True)

    whole = run(native(2), op, [g, q, k, v, *sums])  # a matrix for each thread
    parts = [run(native(2), op, [x[i : i + 10] for x in (g, q, k, v, *sums)]) for i in (0, 10)]  # cut by rows

    for a, b, c in zip(whole, *parts, strict=True):
        assert same_bits(a, np.concatenate([b, c]))


def test_operands_may_be_views_of_one_projection() -> None:
    joint = new_input(Type((2, 40, 3, 4, 16), t.float32))
    q, k, v = (ops.permute_dims(joint[:, :, i], (0, 2, 1, 3)) for i in range(3))
    graph = Graph.of([joint], Attention(0.25, is_causal=True).results(q, k, v))
    array = np.random.default_rng(2).standard_normal((2, 40, 3, 4, 16)).astype(np.float32)
    apart = [np.ascontiguousarray(array[:, :, i].transpose(0, 2, 1, 3)) for i in range(3)]

    found = native().run(make_plan(Function(graph), uses_library=True), [array])

    assert all(map(same_bits, found, run(native(), Attention(0.25, is_causal=True), apart)))


def test_nan_and_infinity_stay_in_their_rows_and_spread_as_in_numpy() -> None:
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal((1, 70, 16)).astype(np.float32) for _ in range(3))
    q[0, 3, 2], q[0, 5, 1], k[0, 40, 0], v[0, 50, 7] = np.nan, np.inf, np.nan, np.inf

    usual = run(numpy_executor(), Attention(0.3), [q, k, v])
    found = run(native(), Attention(0.3), [q, k, v])

    for a, b in zip(found, usual, strict=True):
        assert np.array_equal(np.isnan(a), np.isnan(b)) and np.array_equal(np.isinf(a), np.isinf(b))


def test_what_no_kernel_takes_is_numpys() -> None:
    calls = [
        native().native.calls(plan, plan.steps[-1])  # type: ignore[union-attr]
        for plan in (plan_of(t.float64, is_turned=False), plan_of(t.float32, is_turned=True))
    ]

    assert calls == [[], []]


def plan_of(dtype: t.DType, *, is_turned: bool) -> Plan:
    """Attention whose queries may lie transposed."""
    q, k, v = inputs = [new_input(Type((2, 8, 8), dtype)) for _ in range(3)]
    return make_plan(
        Function(Graph.of(inputs, Attention(1.0).results(ops.matrix_transpose(q) if is_turned else q, k, v))),
        uses_library=True,
    )


def run(executor: ArrayExecutor, op: Attention | AttentionGradient, arrays: Sequence[Array]) -> list[Array]:
    """The results of an op."""
    inputs = [new_input(type_of(a)) for a in arrays]
    plan = make_plan(Function(Graph.of(inputs, op.results(*inputs))), uses_library=True)
    assert executor.native is None or executor.native.calls(plan, plan.steps[0])
    return list(executor.run(plan, arrays))
