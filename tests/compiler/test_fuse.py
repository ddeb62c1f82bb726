"""Fusion: which ops share a kernel, and that kernels compute what NumPy does, NaN, infinities and zeros included."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.graph import Function
from telegrad.ir.text import from_text, to_text
from telegrad.ops.control import Gradient
from telegrad.ops.cross_entropy import SoftmaxCrossEntropy
from telegrad.ops.norm import Standardize
from telegrad_server.compiler.c_words import UNLIKE_NUMPY
from telegrad_server.compiler.fuse import fuse, is_worth_fusing
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.loops import in_regions
from telegrad_server.compiler.pipeline import compile_function, optimise
from telegrad_server.compiler.plan import make_plan
from telegrad_server.executors.array import ArrayExecutor, numpy_executor
from telegrad_server.executors.compiling import found_compiler

from tests.compiler.graphs import NARROW, WIDE, Array, RandomGraph, arrays_for, interpret, same_bits

needs_compiler = pytest.mark.skipif(found_compiler() is None, reason="there is no C compiler")
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38, -88.0, 89.0, 1.5, -0.7], np.float32)


@pytest.fixture(scope="module")
def executor() -> ArrayExecutor:
    return numpy_executor(kernels="auto", is_poisoned=True)


def run(executor: ArrayExecutor, graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    return executor.run(make_plan(Function(graph)), list(arrays))


def fused_ops(graph: Graph) -> list[str]:
    return [node.op.attributes()["ops"] for node in graph.nodes if isinstance(node.op, Fused)]


def given(graph: Graph, *, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=x.shape).astype(np.float32) for x in graph.input_types]


def check(executor: ArrayExecutor, graph: Graph, arrays: Sequence[Array], *, tolerance: float = 1e-5) -> None:
    """Fused and run by kernels the graph gives what it gives node by node, and twice the same bits."""
    before = optimise(graph)
    after = in_regions(fuse(before), fuse)
    assert fused_ops(after)

    found, again = run(executor, after, arrays), run(executor, after, arrays)

    for x, y, z in zip(found, interpret(before, arrays), again, strict=True):
        assert same_bits(x, z)
        with np.errstate(all="ignore"):
            scale = float(np.max(np.abs(y.astype(float)), initial=0.0, where=np.isfinite(y.astype(float))))
            np.testing.assert_allclose(x.astype(float), y.astype(float), rtol=tolerance, atol=tolerance * scale)


def test_a_chain_of_elementwise_ops_is_one_kernel_and_its_constants_are_in_it() -> None:
    before = from_text(
        """
%0 = input[shape=(4, 8), dtype=float32]() : float32[4,8]
%1 = input[shape=(8,), dtype=float32]() : float32[8]
%2 = add(%0, %1) : float32[4,8]
%3 = constant[value=0.5, dtype=float32]() : float32[]
%4 = multiply(%2, %3) : float32[4,8]
%5 = tanh(%4) : float32[4,8]
-> %5
""".strip()
    )

    after = fuse(before)

    assert (
        to_text(after)
        == """
%0 = input[shape=(4, 8), dtype=float32]() : float32[4,8]
%1 = input[shape=(8,), dtype=float32]() : float32[8]
%2 = fused[ops='add constant multiply tanh'](%0, %1) : float32[4,8]
-> %2
""".strip()
    )


def test_softmax_is_one_kernel_with_what_comes_before_and_after() -> None:
    x = new_input(Type((16, 32), t.float32))
    graph = Graph.of([x], [ops.square(ops.softmax(x * 2))])

    after = fuse(optimise(graph))

    assert fused_ops(after) == ["constant multiply max subtract exp sum divide square"]


def test_what_other_ops_need_ends_a_group_and_begins_another() -> None:
    x = new_input(Type((16, 16), t.float32))
    graph = Graph.of([x], [ops.exp(ops.matmul(ops.exp(x) + x, x)) * x])

    assert fused_ops(fuse(graph)) == ["exp add", "exp multiply"]


def test_two_plain_sums_of_other_dtypes_stay_with_numpy() -> None:
    x = new_input(Type((16, 16), t.float64))
    graph = Graph.of([x], [ops.sum(ops.exp(x) + x, axis=-1)])

    assert not fused_ops(fuse(graph))


def test_only_functions_with_much_elementwise_work_get_kernels() -> None:
    def function(rows: int) -> Function:
        x = new_input(Type((rows, 64), t.float32))
        return Function(Graph.of([x], [ops.tanh(x) + x]))

    small, large = function(8), function(1024)

    assert not is_worth_fusing(small.graph) and is_worth_fusing(large.graph)
    assert [s.op.name for s in compile_function(small, kernels="c").steps] == ["tanh", "add"]
    assert [s.op.name for s in compile_function(large, kernels="c").steps] == ["fused"]
    assert [s.op.name for s in compile_function(large).steps] == ["tanh", "add"]


def gradients_of(make: object, *shapes: tuple[int, ...]) -> Graph:
    inputs = [new_input(Type(shape, t.float32)) for shape in shapes]
    out: Value = make(*inputs)  # type: ignore[operator]
    g = new_input(out.type)
    return Graph.of([*inputs, g], [out, *Gradient(1).results(out, g, *inputs)])


@needs_compiler
@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda x, w, b: ops.softmax(x * w) * b, [(6, 5, 33), (33,), (5, 1)]),
        (lambda x, w: ops.log_softmax(x) * w, [(40, 100), (40, 1)]),
        (lambda x, w, b: Standardize((2,), 1e-5).results(x)[0] * w + b, [(9, 4, 128), (128,), (128,)]),
        (lambda x, b: ops.relu(x + b), [(70, 17), (17,)]),
        (lambda x, b: x * 0.5 * (ops.erf(x * 0.7) + 1) + b, [(300, 65), (65,)]),
        (lambda x, c: ops.sigmoid(x) * ops.tanh(c) + c, [(8, 130), (8, 130)]),
        (lambda x, b: ops.mean(ops.square(x + b), axis=(1, 2)), [(5, 6, 7), (6, 1)]),
        (lambda x, y: ops.sum(ops.permute_dims(x, (1, 0)) * y, axis=1), [(12, 21), (21, 12)]),
        (lambda x, y: ops.sqrt(ops.abs(x[:, 3:19]) + 1) / (y[:, ::2] * y[:, ::2] + 1), [(9, 24), (9, 32)]),
    ],
)
def test_kernels_and_their_gradients_agree_with_numpy(
    make: object, shapes: list[tuple[int, ...]], executor: ArrayExecutor
) -> None:
    graph = gradients_of(make, *shapes)

    check(executor, graph, given(graph))


@needs_compiler
def test_a_sum_over_columns_is_not_used_in_the_kernel_that_makes_it(executor: ArrayExecutor) -> None:
    x, y = new_input(Type((16, 16), t.float32)), new_input(Type((16,), t.float32))
    squares = ops.square(x)
    total = ops.sum(squares, axis=0)  # as many as there are rows, so it looks like a value for each row
    graph = Graph.of([x, y], [ops.sum(squares, axis=1) * 2, ops.tanh(total * y), ops.reshape(total, (16, 1)) * x])

    check(executor, graph, given(graph))


@needs_compiler
@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (2, 3, 5, 7, 3), (6, 40, 33), (4, 1, 8, 8)])
def test_statistics_of_channels_are_summed_up_where_they_are_made(
    shape: tuple[int, ...], executor: ArrayExecutor
) -> None:
    x, y = new_input(Type(shape, t.float32)), new_input(Type(shape, t.float32))
    axes = (0, *range(2, len(shape)))
    shifted = x - ops.mean(x, axis=axes, keepdims=True)
    graph = Graph.of([x, y], [ops.sum(ops.square(shifted), axis=axes), ops.sum(shifted * y, axis=axes, keepdims=True)])

    check(executor, graph, given(graph))
    after = fuse(optimise(graph))
    assert fused_ops(after)[0].startswith("sum")
    if shape[1] > 1:
        full = [node for node in after.nodes if isinstance(node.op, Fused) and node.types[0].size == x.size]
        assert full == [], "no kernel writes what is only summed up"


@needs_compiler
def test_cross_entropy_agrees_and_refuses_a_label_that_is_no_class(executor: ArrayExecutor) -> None:
    x, labels = new_input(Type((50, 10), t.float32)), new_input(Type((50,), t.int64))
    loss = ops.sum(SoftmaxCrossEntropy(1).results(x, labels)[0])
    graph = Graph.of([x, labels], [loss, *Gradient(1).results(loss, loss.literal(1, t.float32), x)])
    rng = np.random.default_rng(0)
    logits, right = rng.normal(size=(50, 10)).astype(np.float32), rng.integers(0, 10, 50)

    check(executor, graph, [logits, right])
    with pytest.raises(IndexError, match="10 is out of range"):
        run(executor, fuse(optimise(graph)), [logits, right + 1])


@needs_compiler
def test_special_numbers_come_out_as_from_numpy(executor: ArrayExecutor) -> None:
    x, y = new_input(Type((12, 12), t.float32)), new_input(Type((12, 12), t.float32))
    results = [
        x + y, x - y, x * y, x / y, ops.maximum(x, y), ops.minimum(x, y), ops.where(x < y, x, -y), ops.relu(x),
        ops.sqrt(x), ops.abs(x), ops.sign(x), ops.square(x), ops.reciprocal(x),
        ops.astype(ops.equal(x, y), t.float32),
        ops.astype(ops.isnan(x) | ops.isinf(y), t.float32), ops.astype(ops.isfinite(x), t.float32),
    ]  # fmt: skip
    never = ops.less(x, x)  # puts all in one kernel
    graph = Graph.of([x, y], [ops.where(never, x, found) for found in results])
    arrays = [np.repeat(SPECIAL, 12).reshape(12, 12), np.tile(SPECIAL, 12).reshape(12, 12)]
    after = fuse(graph)
    assert len(fused_ops(after)) == 1

    for got, want in zip(run(executor, after, arrays), interpret(graph, arrays), strict=True):
        assert same_bits(got, want)


@needs_compiler
@pytest.mark.parametrize("word", sorted(UNLIKE_NUMPY - {"logaddexp"}))
def test_functions_are_within_two_units_of_the_last_place(word: str, executor: ArrayExecutor) -> None:
    x = new_input(Type((1 << 16,), t.float32))
    graph = Graph.of([x], [getattr(ops, word)(x)])
    wide = Graph.of([v := new_input(Type((1 << 16,), t.float64))], [getattr(ops, word)(v)])
    rng = np.random.default_rng(0)
    for values in (rng.normal(0, 1, 1 << 16), rng.normal(0, 40, 1 << 16), np.exp(rng.normal(0, 30, 1 << 16))):
        given = np.clip(np.abs(values) if word in ("log", "log1p") else values, -3e38, 3e38).astype(np.float32)
        (got,) = run(executor, fuse(graph), [given])
        (want,) = interpret(wide, [given.astype(np.float64)])

        with np.errstate(all="ignore"):
            rounded = want.astype(np.float32)
            unit = np.spacing(np.maximum(np.abs(rounded), np.float32(1.2e-38))).astype(np.float64)
        is_finite = np.isfinite(rounded)
        np.testing.assert_array_equal(got[~is_finite], rounded[~is_finite])
        assert np.max(np.abs(got[is_finite] - want[is_finite]) / unit[is_finite]) <= 2


@needs_compiler
@pytest.mark.parametrize("word", sorted(UNLIKE_NUMPY - {"logaddexp"}))
def test_functions_of_special_numbers(word: str, executor: ArrayExecutor) -> None:
    x = new_input(Type(SPECIAL.shape, t.float32))
    graph = Graph.of([x], [getattr(ops, word)(x)])

    (got,), (want,) = run(executor, fuse(graph), [SPECIAL]), interpret(graph, [SPECIAL])

    is_exact = ~np.isfinite(want) | (want == 0)
    assert same_bits(np.where(is_exact, got, 0), np.where(is_exact, want, 0))
    np.testing.assert_allclose(got, want, rtol=1e-6)


@needs_compiler
def test_logarithms_of_sums_are_accurate_and_special_numbers_come_out_as_from_numpy(executor: ArrayExecutor) -> None:
    x, y = new_input(Type((1 << 16,), t.float32)), new_input(Type((1 << 16,), t.float32))
    graph = Graph.of([x, y], [ops.logaddexp(x, y), ops.log1p(x)])
    rng = np.random.default_rng(0)
    one, other = (rng.normal(0, 20, 1 << 16).astype(np.float32) for _ in range(2))
    one[:1000] = other[:1000]
    one[2000:5000] = rng.uniform(-1, 1, 3000) ** 5
    pairs = [(a, b) for a in SPECIAL for b in SPECIAL]
    one[-len(pairs) :], other[-len(pairs) :] = np.transpose(pairs)

    sums, logarithms = run(executor, fuse(graph), [one, other])

    with np.errstate(all="ignore"):
        want = np.logaddexp(one.astype(float), other.astype(float))
        size = np.maximum(np.maximum(np.abs(one), np.abs(other)), 1)
        np.testing.assert_allclose(sums / size, want / size, rtol=2e-7, atol=2e-7)
        np.testing.assert_allclose(logarithms, np.log1p(one.astype(float)), rtol=2.5e-7)
        np.testing.assert_array_equal(np.signbit(logarithms[one == 0]), np.signbit(one[one == 0]))
        assert same_bits(np.isnan(sums), np.isnan(np.logaddexp(one, other)))


@needs_compiler
def test_nan_and_infinity_pass_through_rows(executor: ArrayExecutor) -> None:
    x = new_input(Type((5, 40), t.float32))
    graph = Graph.of([x], [ops.softmax(x), ops.max(x, axis=1), ops.sum(x, axis=1), ops.sum(x, axis=0)])
    rows = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    rows[1, 3], rows[2, 39], rows[3, 0], rows[4] = np.nan, np.inf, -np.inf, -0.0

    check(executor, graph, [rows])
    assert not np.signbit(run(executor, fuse(graph), [rows])[2][4])  # as NumPy's sum of negative zeros


@needs_compiler
def test_bits_do_not_depend_on_what_else_is_in_a_kernel(executor: ArrayExecutor) -> None:
    x = new_input(Type((64, 96), t.float32))
    y = ops.exp(x)
    alone = Graph.of([x], [ops.sum(y, axis=1), ops.sum(y, axis=0)])
    together = Graph.of([x], [ops.sum(y, axis=1), ops.sum(y, axis=0), ops.tanh(y) * y, ops.softmax(y)])
    arrays = given(alone)

    few, many = run(executor, fuse(alone), arrays), run(executor, fuse(together), arrays)

    assert same_bits(few[0], many[0]) and same_bits(few[1], many[1])


@needs_compiler
@pytest.mark.parametrize("sizes", [NARROW, WIDE])
@pytest.mark.parametrize("seed", range(2))
def test_random_graphs(seed: int, sizes: tuple[int, int], executor: ArrayExecutor) -> None:
    graph = RandomGraph(seed, sizes=sizes).build(60)

    check(executor, graph, arrays_for(graph, seed), tolerance=2e-4)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("sizes", [NARROW, WIDE])
@pytest.mark.parametrize("seed", range(10, 25))
def test_many_random_graphs(seed: int, sizes: tuple[int, int], executor: ArrayExecutor) -> None:
    test_random_graphs(seed, sizes, executor)


def test_without_a_compiler_a_group_is_run_by_its_ops() -> None:
    graph = gradients_of(lambda x: ops.softmax(x * 2), (6, 33))
    arrays = given(graph)
    before = optimise(graph)

    found = run(numpy_executor(), fuse(before), arrays)

    for x, y in zip(found, interpret(before, arrays), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


@needs_compiler
def test_a_plan_with_kernels_goes_when_nobody_has_it() -> None:
    executor = numpy_executor(kernels="auto")
    x = new_input(Type((256, 256), t.float32))
    plan = make_plan(Function(fuse(optimise(Graph.of([x], [ops.tanh(x + 1) * x])))))
    executor.run(plan, [np.ones((256, 256), np.float32)])
    assert any(isinstance(step.op, Fused) for step in plan.steps)

    gone = weakref.ref(plan)
    del plan
    gc.collect()

    assert gone() is None
    assert executor.cached_bytes == 0


def activated(bend: Callable[[Value], Value]) -> Graph:
    """The gradients of two products with something between them, for both weights."""
    x, w = new_input(Type((64, 32), t.float32)), new_input(Type((32, 96), t.float32))
    v, g = new_input(Type((96, 8), t.float32)), new_input(Type((8, 8), t.float32))
    z = ops.matmul(x, w)
    out = ops.matmul(z * 0.5 * (1 + bend(0.8 * (z + 0.04 * z * z * z))), v)
    return Graph.of([x, w, v, g], [out, *Gradient(1).results(out, ops.matmul(out, g), w, v)])


def test_a_gradient_computes_again_what_is_cheap_and_reads_the_rest() -> None:
    after = fuse(optimise(activated(ops.tanh)))

    forward, backward = [node for node in after.nodes if isinstance(node.op, Fused)]
    assert "tanh" in forward.op.attributes()["ops"] and "tanh" not in backward.op.attributes()["ops"]
    assert len(forward.types) == 2  # what the product takes, and the tanh
    assert len(backward.inputs) == 3  # these two, and the gradient of the second product


@needs_compiler
def test_what_is_computed_again_has_the_bits_of_what_was_read(executor: ArrayExecutor) -> None:
    before = optimise(activated(ops.abs))  # all of it has NumPy's bits
    after, arrays = fuse(before), given(before)

    found = run(executor, after, arrays)

    forward, backward = [node for node in after.nodes if isinstance(node.op, Fused)]
    assert len(forward.types) == 1 and len(backward.inputs) == 2
    for x, y in zip(found, interpret(before, arrays), strict=True):
        assert same_bits(x, y)


def test_numbers_that_an_optimiser_makes_first_do_not_part_its_update() -> None:
    x, m, g = (new_input(Type((32, 64), t.float32)) for _ in range(3))
    steps = new_input(Type((), t.float64))
    rate = ops.astype(1 / (1 - ops.exp((steps + 1) * -0.1)), t.float32)
    moment = m * 0.9 + g * 0.1

    assert len(fused_ops(fuse(optimise(Graph.of([x, m, g, steps], [x - moment * rate, moment]))))) == 1


def test_a_long_op_that_stands_alone_has_a_kernel() -> None:
    x, y = new_input(Type((256, 256), t.float32)), new_input(Type((256,), t.float32))
    short = new_input(Type((16, 256), t.float32))

    assert fused_ops(fuse(optimise(Graph.of([x, y, short], [ops.matmul(x + y, x), ops.matmul(short + y, x)])))) == [
        "add"
    ]
