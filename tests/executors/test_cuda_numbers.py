"""Generated CUDA, run on the host: it computes what NumPy does, whichever thread comes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.graph import Function
from telegrad.ops import random as draws
from telegrad.ops.control import Gradient
from telegrad.ops.cross_entropy import SoftmaxCrossEntropy
from telegrad.ops.norm import Standardize
from telegrad.wire.arrays import numpy_dtype
from telegrad_server.compiler.cuda_words import CUDA
from telegrad_server.compiler.fuse import fuse
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.loops import in_regions
from telegrad_server.compiler.pipeline import optimise
from telegrad_server.compiler.plan import make_plan
from telegrad_server.executors.array import ArrayExecutor, numpy_executor
from telegrad_server.executors.array_module import NumpyModule
from telegrad_server.executors.cuda_kernels import CudaKernels

from tests.compiler.graphs import NARROW, WIDE, Array, RandomGraph, arrays_for, interpret, same_bits
from tests.executors.cuda_alike import HostDevice, host_compiler
from tests.executors.cuda_corpus import step_plans

pytestmark = pytest.mark.skipif(host_compiler() is None, reason="there is no C++ compiler")
KEY = np.array([5, 6, 7, 8], np.uint32)


def executor_on(device: HostDevice) -> ArrayExecutor:
    return ArrayExecutor(
        NumpyModule(), name="numpy", reason="", fingerprint="", cuda=CudaKernels(device), is_poisoned=True
    )


def given(graph: Graph, *, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    made: list[Array] = []
    for x in graph.input_types:
        if x.dtype is t.uint32:
            made.append(KEY)
        elif x.dtype is t.bfloat16:
            made.append(rng.normal(size=x.shape).astype(ml_dtypes.bfloat16))
        else:
            made.append(rng.normal(size=x.shape).astype(np.float16 if x.dtype is t.float16 else np.float32))
    return made


def check(folder: Path, graph: Graph, arrays: Sequence[Array], *, tolerance: float = 1e-5) -> list[Array]:
    """By kernels, forwards and backwards with the same bits, the graph gives what it gives node by node."""
    before = optimise(graph)
    after = in_regions(fuse(before, CUDA), lambda region: fuse(region, CUDA))
    assert any(isinstance(node.op, Fused) for node in after.nodes)
    plan = make_plan(Function(after))
    device = HostDevice(folder)
    executor = executor_on(device)

    found = executor.run(plan, list(arrays))
    assert device.started
    found = [np.array(x) for x in found]
    device.is_backwards = True
    again = executor.run(plan, list(arrays))

    for x, y, z in zip(found, interpret(before, arrays), again, strict=True):
        assert same_bits(x, z)
        with np.errstate(all="ignore"):
            wide, want = x.astype(float), y.astype(float)
            scale = float(np.max(np.abs(want), initial=0.0, where=np.isfinite(want)))
            np.testing.assert_allclose(wide, want, rtol=tolerance, atol=tolerance * scale)
    return found


def gradients_of(make: Callable[..., Value], *types: Type) -> Graph:
    inputs = [new_input(type) for type in types]
    out = make(*inputs)
    g = new_input(out.type)
    wanted = [x for x in inputs if x.dtype.is_float]
    return Graph.of([*inputs, g], [out, *Gradient(1).results(out, g, *wanted)])


def floats(*shapes: tuple[int, ...], dtype: t.DType = t.float32) -> list[Type]:
    return [Type(shape, dtype) for shape in shapes]


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda x, w, b: ops.softmax(x * w) * b, [(6, 5, 33), (33,), (5, 1)]),
        (lambda x, w: ops.log_softmax(x) * w, [(40, 100), (40, 1)]),
        (lambda x, w, b: Standardize((2,), 1e-5).results(x)[0] * w + b, [(9, 4, 128), (128,), (128,)]),
        (lambda x, w, b: Standardize((1,), 1e-5).results(x)[0] * w + b, [(70, 768), (768,), (768,)]),
        (lambda x: ops.softmax(x * 2), [(3, 5000)]),
        (lambda x: ops.softmax(x * 2), [(2, 16383)]),
        (lambda x, b: ops.relu(x + b), [(70, 17), (17,)]),
        (lambda x, b: ops.relu(x + b) * x, [(300, 64), (64,)]),
        (lambda x, b: x * 0.5 * (ops.erf(x * 0.7) + 1) + b, [(300, 65), (65,)]),
        (lambda x, c: ops.sigmoid(x) * ops.tanh(c) + c, [(8, 130), (8, 130)]),
        (lambda x, b: ops.mean(ops.square(x + b), axis=(1, 2)), [(5, 6, 7), (6, 1)]),
        (lambda x, y: ops.sum(ops.permute_dims(x, (1, 0)) * y, axis=1), [(12, 21), (21, 12)]),
        (lambda x, y: ops.sqrt(ops.abs(x[:, 3:19]) + 1) / (y[:, ::2] * y[:, ::2] + 1), [(9, 24), (9, 32)]),
        (lambda x, y: ops.flip(x * 2, axis=1) * ops.exp(y), [(9, 24), (24,)]),
        (lambda x, s: x * ops.tanh(s) + 1, [(4, 8, 3, 8), (8, 1, 1)]),
    ],
)
@pytest.mark.slow
def test_kernels_and_their_gradients_agree_with_numpy(
    make: Callable[..., Value], shapes: list[tuple[int, ...]], tmp_path: Path
) -> None:
    graph = gradients_of(make, *floats(*shapes))

    check(tmp_path, graph, given(graph))


@pytest.mark.parametrize("dtype", [t.bfloat16, t.float16])
def test_16_bit_floats_have_the_bits_of_numpy_where_no_function_is_called(dtype: t.DType, tmp_path: Path) -> None:
    x, y, b = [new_input(type) for type in floats((64, 40), (64, 40), (40,), dtype=dtype)]
    results = [
        ops.relu(x * y + b) / (y * y + 1),
        ops.where(x < y, x * 0.3, b),
        ops.sqrt(ops.abs(x)) - ops.astype(x < 0, dtype),
    ]
    graph = Graph.of([x, y, b], results)
    arrays = given(graph)

    for got, want in zip(check(tmp_path, graph, arrays), interpret(graph, arrays), strict=True):
        assert same_bits(got, want)


@pytest.mark.parametrize("dtype", [t.bfloat16, t.float16])
@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda x, w: ops.softmax(x * w), [(33, 96), (96,)]),
        (lambda x, w: Standardize((1,), 1e-5).results(x)[0] * w, [(40, 64), (64,)]),
        (lambda x, b: ops.astype(ops.tanh(ops.astype(x + b, t.float32) * 2), x.dtype) * b, [(50, 24), (24,)]),
    ],
)
@pytest.mark.slow
def test_16_bit_rows_and_their_gradients(
    make: Callable[..., Value], shapes: list[tuple[int, ...]], dtype: t.DType, tmp_path: Path
) -> None:
    graph = gradients_of(make, *floats(*shapes, dtype=dtype))

    check(tmp_path, graph, given(graph), tolerance=3e-2 if dtype is t.bfloat16 else 4e-3)


def test_cross_entropy_and_its_gradient(tmp_path: Path) -> None:
    x, labels = new_input(Type((50, 10), t.float32)), new_input(Type((50,), t.int64))
    loss = ops.sum(SoftmaxCrossEntropy(1).results(x, labels)[0])
    graph = Graph.of([x, labels], [loss, *Gradient(1).results(loss, loss.literal(1, t.float32), x)])
    rng = np.random.default_rng(0)

    check(tmp_path, graph, [rng.normal(size=(50, 10)).astype(np.float32), rng.integers(0, 10, 50)])


@pytest.mark.parametrize("shape", [(64, 40), (1001,), (33, 7)])
@pytest.mark.parametrize("offset", [0, 12, 13])
@pytest.mark.slow
def test_random_numbers_are_drawn_in_the_kernel_with_numpys_bits(
    shape: tuple[int, ...], offset: int, tmp_path: Path
) -> None:
    key, x = new_input(draws.KEY), new_input(Type(shape, t.float32))
    drawn = draws.RandomUniform(shape, t.float32, 3, offset)(key)
    graph = Graph.of([key, x], [ops.where(ops.less(drawn, 0.25), 0, x * 1.5), drawn * 1])
    arrays = given(graph)

    found = check(tmp_path, graph, arrays)

    assert fuse(optimise(graph), CUDA).nodes[-1].op.name == "fused"
    for got, want in zip(found, interpret(graph, arrays), strict=True):
        assert same_bits(got, want)


def test_sums_over_columns_of_many_rows_have_two_stages(tmp_path: Path) -> None:
    graph = gradients_of(lambda x, b: ops.tanh(x + b), *floats((3000, 20), (20,)))

    check(tmp_path, graph, given(graph))


def test_nan_and_infinity_pass_through_rows(tmp_path: Path) -> None:
    x = new_input(Type((5, 40), t.float32))
    graph = Graph.of([x], [ops.softmax(x), ops.max(x, axis=1), ops.sum(x, axis=1), ops.sum(x, axis=0)])
    rows = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    rows[1, 3], rows[2, 39], rows[3, 0], rows[4] = np.nan, np.inf, -np.inf, -0.0

    found = check(tmp_path, graph, [rows])

    assert not np.signbit(found[2][4])


def test_an_operand_that_begins_anywhere_is_copied_first(tmp_path: Path) -> None:
    x = new_input(Type((8, 64), t.float32))
    graph = Graph.of([x], [ops.tanh(x) * x])
    anywhere = np.frombuffer(bytearray(8 * 64 * 4 + 8), np.float32)[1:-1].reshape(8, 64)

    check(tmp_path, graph, [anywhere])


@pytest.mark.parametrize("sizes", [NARROW, WIDE])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_random_graphs(seed: int, sizes: tuple[int, int], tmp_path: Path) -> None:
    graph = RandomGraph(seed, sizes=sizes).build(60)

    check(tmp_path, graph, arrays_for(graph, seed), tolerance=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [NARROW, WIDE])
@pytest.mark.parametrize("seed", range(10, 25))
def test_many_random_graphs(seed: int, sizes: tuple[int, int], tmp_path: Path) -> None:
    test_random_graphs(seed, sizes, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_training_steps_of_models_agree_with_numpy(tmp_path: Path) -> None:
    for name, plan, plain in step_plans():
        rng = np.random.default_rng(1)
        arrays = [
            KEY if x.dtype is t.uint32
            else np.abs(rng.normal(0, 0.05, x.shape)).astype(numpy_dtype(x.dtype)) if x.dtype.is_float
            else np.zeros(x.shape, numpy_dtype(x.dtype))
            for x in [plan.slots[i].type for i in plan.inputs]
        ]  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        device = HostDevice(folder)

        found, wanted = executor_on(device).run(plan, arrays), numpy_executor().run(plain, arrays)

        assert device.started > 10, name
        for x, y in zip(found, wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-4, err_msg=name)
