"""The CuPy executor against the NumPy one: `pytest -m gpu` on a machine with a CUDA device and CuPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from telegrad import ops
from telegrad.errors import IndexRange, OutOfDeviceMemory
from telegrad.ir import Function, Graph, Type, new_input
from telegrad.ir import types as t
from telegrad.ir.xp import ArrayModule, ScalarModule
from telegrad.ops.control import Gradient
from telegrad.wire.arrays import numpy_dtype
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.compiler.plan import make_plan
from telegrad_server.executors import Executor, pick_executor
from telegrad_server.executors.array import numpy_executor

from tests.compiler.graphs import NARROW, WIDE, RandomGraph, arrays_for

pytestmark = pytest.mark.gpu

Array = npt.NDArray[Any]
KEY = np.array([1, 2, 3, 4], np.uint32)


@pytest.fixture(scope="module")
def gpu() -> Executor:
    return pick_executor("cupy")


@pytest.fixture(scope="module")
def xp(gpu: Any) -> Any:
    return gpu.module


def on_both(gpu: Executor, function: Function, arrays: list[Array]) -> list[tuple[Array, Array]]:
    """The results of a function on NumPy and on the GPU."""
    plan = compile_function(function)
    cpu = numpy_executor()
    uploaded = [gpu.from_host(cpu.type_of(a), cpu.to_host(a)) for a in arrays]
    found = [
        cpu.from_host(type, gpu.to_host(array))
        for type, array in zip(plan.output_types, gpu.run(plan, uploaded), strict=True)
    ]
    return list(zip(cpu.run(plan, arrays), found, strict=True))


def test_auto_picks_the_gpu() -> None:
    executor = pick_executor("auto")

    assert (executor.name, executor.reason) == ("cupy", "")
    assert "cupy" in executor.fingerprint


@pytest.mark.parametrize("name", [n for cls in (ArrayModule, ScalarModule) for n in vars(cls) if not n.startswith("_")])
def test_the_module_has_every_name_of_the_protocol(xp: Any, name: str) -> None:
    assert callable(getattr(xp, name))


@pytest.mark.parametrize("sizes", [NARROW, WIDE])
def test_random_graphs_agree_with_numpy(gpu: Executor, sizes: tuple[int, int]) -> None:
    for seed in range(30):
        g = RandomGraph(seed, sizes=sizes).build(25)
        for want, found in on_both(gpu, Function(g), arrays_for(g, seed)):
            assert (want.shape, want.dtype) == (found.shape, found.dtype)
            if want.dtype.kind == "f":
                kept = np.isfinite(want) & np.isfinite(found) & (abs(want) < 1e6)
                np.testing.assert_allclose(found[kept], want[kept], rtol=2e-2, atol=1e-3, err_msg=f"seed {seed}")


@pytest.mark.parametrize("dtype", t.DTYPES, ids=str)
def test_bytes_go_in_and_come_out(gpu: Executor, dtype: t.DType) -> None:
    type = Type((3, 2), dtype)
    data = bytes(k % 2 for k in range(type.nbytes))

    array = gpu.from_host(type, data)

    assert (gpu.type_of(array), gpu.nbytes(array)) == (type, type.nbytes)
    assert bytes(gpu.to_host(array)) == data


@pytest.mark.parametrize("dtype", [t.float16, t.bfloat16, t.float32, t.float64], ids=str)
@pytest.mark.parametrize("lead", [(), (3,)])
def test_products_of_matrices_in_every_dtype(gpu: Executor, dtype: t.DType, lead: tuple[int, ...]) -> None:
    x, y = new_input(Type((*lead, 16, 32), dtype)), new_input(Type((*lead, 32, 8), dtype))
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=v.shape).astype(numpy_dtype(dtype)) for v in (x, y)]

    ((want, found),) = on_both(gpu, Function(Graph.of([x, y], [ops.matmul(x, y)])), arrays)

    np.testing.assert_allclose(found.astype(np.float64), want.astype(np.float64), rtol=2e-2, atol=2e-2)


def test_scatters_repeat_and_equal_numpys_bits(gpu: Executor) -> None:
    x, i = new_input(Type((5000, 3), t.float32)), new_input(Type((5000,), t.int64))
    y = new_input(Type((40, 3), t.float32))
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=x.shape).astype(np.float32),
        rng.integers(-40, 40, i.shape),
        rng.normal(size=y.shape).astype(np.float32),
    ]
    outputs = [ops.scatter_add(x, i, rows=40), ops.index.ScatterSet()(y, i, x)]

    for want, found in on_both(gpu, Function(Graph.of([x, i, y], outputs)), arrays):
        np.testing.assert_array_equal(found, want)


def test_random_numbers_have_numpys_bits(xp: Any) -> None:
    cpu: Any = numpy_executor().module
    key = xp.lib.asarray(KEY)
    for dtype in (t.uint32, t.uint64):
        found = xp.random_bits(key, 3, 5, (1001,), dtype).get()
        np.testing.assert_array_equal(found, cpu.random_bits(KEY, 3, 5, (1001,), dtype))
    for dtype in (t.float32, t.float64):
        found = xp.random_uniform(key, 3, 5, (1001,), dtype).get()
        np.testing.assert_array_equal(found, cpu.random_uniform(KEY, 3, 5, (1001,), dtype))
        found = xp.random_normal(key, 3, 5, (1001,), dtype).get()
        want = cpu.random_normal(KEY, 3, 5, (1001,), dtype)
        np.testing.assert_allclose(found, want, rtol=1e-5 if dtype is t.float32 else 1e-13, atol=1e-6)


def test_an_index_out_of_range_is_found_and_harms_nothing(gpu: Executor) -> None:
    x, i = new_input(Type((3,), t.float32)), new_input(Type((2,), t.int64))
    plan = compile_function(Function(Graph.of([x, i], [ops.take(x, i, axis=0)])))
    array = gpu.from_host(x.type, np.arange(3, dtype=np.float32).tobytes())
    good, bad = (gpu.from_host(i.type, np.array(k, dtype="<i8").tobytes()) for k in ([0, -1], [0, 3]))

    with pytest.raises(IndexRange):
        gpu.run(plan, [array, bad])

    assert np.frombuffer(gpu.to_host(gpu.run(plan, [array, good])[0]), np.float32).tolist() == [0, 2]


def test_no_room_is_out_of_device_memory(gpu: Executor) -> None:
    x = new_input(Type((), t.float32))
    plan = make_plan(Function(Graph.of([x], [ops.exp(ops.broadcast_to(x, (2**20, 2**21)))])))

    with pytest.raises(OutOfDeviceMemory):
        gpu.run(plan, [gpu.from_host(x.type, bytes(4))])


def test_a_training_step_agrees(gpu: Executor) -> None:
    x, w, v = (
        new_input(Type((32, 16), t.float32)),
        new_input(Type((16, 24), t.float32)),
        new_input(Type((24, 4), t.float32)),
    )
    labels = new_input(Type((32,), t.int64))
    loss = ops.cross_entropy(ops.matmul(ops.relu(ops.matmul(x, w)), v), labels)
    grads = Gradient(1).results(loss, loss.literal(1.0, t.float32), w, v)
    function = Function(Graph.of([x, w, v, labels], [loss, w - grads[0] * 0.1, v - grads[1] * 0.1]), ((1, 1), (2, 2)))
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=p.shape).astype(np.float32) for p in (x, w, v)] + [rng.integers(0, 4, 32)]

    for want, found in on_both(gpu, function, arrays):
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
