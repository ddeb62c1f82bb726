"""Planned NumPy: the bits of the plainest interpreter, its memory, its errors."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from telegrad import linalg, ops
from telegrad.errors import DataCorrupt, ExecutionError, IndexRange, OutOfDeviceMemory
from telegrad.ir import Function, Graph, Origin, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.value import origin
from telegrad.ops.control import Checkpoint, Gradient
from telegrad_server.compiler.pipeline import OPTIMISATIONS, compile_function, optimise
from telegrad_server.compiler.plan import Plan, make_plan
from telegrad_server.executors.array import ArrayExecutor, numpy_executor
from telegrad_server.executors.array_module import NumpyModule

from tests.compiler.graphs import NARROW, WIDE, RandomGraph, arrays_for, interpret, same_bits

Array = npt.NDArray[Any]
VECTOR = Type((4,), t.float32)
LARGE = Type((256, 256), t.float32)


@pytest.fixture
def executor() -> ArrayExecutor:
    return numpy_executor()


def plan_of(inputs: list[Value], outputs: list[Value], **options: Any) -> Plan:
    return compile_function(Function(Graph.of(inputs, outputs), **options))


def given(type: Type, seed: int = 0) -> Array:
    array = np.random.default_rng(seed).normal(size=type.shape).astype(np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("sizes", [NARROW, WIDE])
@pytest.mark.parametrize("is_poisoned", [False, True])
@pytest.mark.parametrize("is_optimised", [False, True])
def test_random_plans_give_the_interpreters_bits(
    sizes: tuple[int, int], *, is_poisoned: bool, is_optimised: bool
) -> None:
    executor = numpy_executor(is_poisoned=is_poisoned)
    for seed in range(40):
        g = RandomGraph(seed, sizes=sizes).build(60)
        low = optimise(g, without=[step.name for step in OPTIMISATIONS])
        plan = make_plan(Function(optimise(g) if is_optimised else low))
        arrays = arrays_for(g, seed)
        want = interpret(low, arrays)
        for _ in range(2):  # the second run finds the first one's arena
            for a, b in zip(want, executor.run(plan, arrays), strict=True):
                assert same_bits(a, b), f"seed {seed}"


def test_results_are_whole_read_only_and_in_c_order(executor: ArrayExecutor) -> None:
    for seed in range(40):
        g = RandomGraph(seed).build(40)
        plan = compile_function(Function(g))
        for array, type in zip(executor.run(plan, arrays_for(g, seed)), plan.output_types, strict=True):
            assert executor.type_of(array) == type
            assert array.flags.c_contiguous
            assert not array.flags.writeable
            base = array if array.base is None else array.base
            assert getattr(base, "nbytes", 0) <= type.nbytes + 64 or type.nbytes == 0


def test_results_never_change_afterwards(executor: ArrayExecutor) -> None:
    x = new_input(LARGE)
    plan = plan_of([x], [x * 2.0, ops.tanh(x)])
    kept = [(seed, executor.run(plan, [given(LARGE, seed)])) for seed in range(6)]

    for seed, (double, _) in kept:
        np.testing.assert_array_equal(double, given(LARGE, seed) * 2)


def test_a_result_that_somebody_holds_is_not_written_over(executor: ArrayExecutor) -> None:
    x = new_input(LARGE)
    plan = plan_of([x], [x + 1.0])

    views = [executor.run(plan, [given(LARGE, seed)])[0][1:, ::2] for seed in range(4)]
    bytes_held = executor.to_host(executor.run(plan, [given(LARGE, 9)])[0])
    for _ in range(4):
        executor.run(plan, [given(LARGE, 5)])

    for seed, view in enumerate(views):
        np.testing.assert_array_equal(view, (given(LARGE, seed) + 1)[1:, ::2])
    assert bytes(bytes_held) == (given(LARGE, 9) + 1).tobytes()


def test_a_training_step_finds_its_memory_again(executor: ArrayExecutor) -> None:
    w = new_input(LARGE)
    plan = compile_function(Function(Graph.of([w], [w - w * 0.1]), ((0, 0),)))
    value = given(LARGE)
    seen: set[int] = set()
    for _ in range(10):
        (value,) = executor.run(plan, [value])
        seen.add(value.ctypes.data)

    assert len(seen) == 2  # the version that is read and the one that is written


def test_a_training_step_finds_its_memory_again_beside_checkpoints(executor: ArrayExecutor) -> None:
    w = new_input(LARGE)
    plan = compile_function(Function(Graph.of([w], [w - w * 0.1]), ((0, 0),)))
    value = given(LARGE)
    seen: set[int] = set()
    for _ in range(4):
        read = executor.to_host(value)
        before = bytes(read)
        for _ in range(5):
            (value,) = executor.run(plan, [value])
            seen.add(value.ctypes.data)
        assert bytes(read) == before
        del read

    assert len(seen) == 3  # and the version that is being written to the disk
    assert executor.cached_bytes >= 2 * LARGE.nbytes


def test_small_plans_of_all_kinds_of_outputs(executor: ArrayExecutor) -> None:
    x = new_input(Type((2, 3), t.float32))
    seven = x.literal(7.0, t.float32)
    outputs = [x, x, ops.matrix_transpose(x), x[0], ops.reshape(x, (6,)), seven, ops.broadcast_to(seven, (2,))]
    array = np.arange(6, dtype=np.float32).reshape(2, 3)

    found = executor.run(plan_of([x], outputs), [array])

    want = [array, array, array.T, array[0], array.reshape(6), np.float32(7), np.full(2, 7, np.float32)]
    for a, b in zip(want, found, strict=True):
        assert same_bits(np.asarray(a), b)
    assert found[0] is array


def test_zero_sizes_run(executor: ArrayExecutor) -> None:
    x = new_input(Type((0, 3), t.float32))
    y = ops.matmul(ops.matrix_transpose(x), x)
    plan = plan_of([x], [y, ops.sum(x, axis=0), x * 2.0, *Gradient(1).results(ops.sum(y), ops.sum(y), x)])

    found = executor.run(plan, [np.zeros((0, 3), np.float32)])

    assert [a.shape for a in found] == [(3, 3), (3,), (0, 3), (0, 3)]
    assert not found[0].any()


def test_a_checkpoint_computes_the_same_bits_with_less(executor: ArrayExecutor) -> None:
    def built(*, is_checkpointed: bool) -> Plan:
        x = new_input(LARGE)
        y = x
        for _ in range(4):
            inner = new_input(x.type)
            region = Graph.of([inner], [ops.tanh(ops.matmul(ops.tanh(inner), ops.sin(inner)) * 0.01)])
            y = Checkpoint()(y, regions=(region,)) if is_checkpointed else region.inline([y])[0]
        one = ops.broadcast_to(x.literal(1.0, t.float32), x.shape)
        return plan_of([x], [y, *Gradient(1).results(y, one, x)])

    plain, checkpointed = built(is_checkpointed=False), built(is_checkpointed=True)

    for a, b in zip(executor.run(plain, [given(LARGE)]), executor.run(checkpointed, [given(LARGE)]), strict=True):
        assert same_bits(a, b)
    assert checkpointed.peak_bytes < plain.peak_bytes


def test_16_bit_sums_are_rounded_once(executor: ArrayExecutor) -> None:
    for dtype in (t.float16, t.bfloat16):
        x = new_input(Type((4096,), dtype))
        plan = plan_of([x], [ops.sum(x), ops.cumulative_sum(x, axis=0)[4095]])
        ones = executor.module.full((4096,), 1, dtype)

        assert [float(a) for a in executor.run(plan, [ones])] == [4096, 4096]


# ---- errors


def failing(text: str) -> tuple[Plan, list[Array]]:
    x, i = new_input(Type((3, 2), t.float32)), new_input(Type((2,), t.int64))
    with origin(Origin(17)):
        y = ops.take(x * 2.0, i, axis=0)
    outputs = [y] if text == "forward" else list(Gradient(1).results(ops.sum(y), ops.sum(y), x))
    return plan_of([x, i], outputs), [np.ones((3, 2), np.float32), np.array([0, 3])]


@pytest.mark.parametrize("side", ["forward", "backward"])
def test_an_index_out_of_range_names_op_node_and_types_and_harms_nothing(executor: ArrayExecutor, side: str) -> None:
    plan, arrays = failing(side)
    good = [arrays[0], np.array([-1, 2])]
    before = executor.run(plan, good)

    with pytest.raises(IndexRange, match="index 3 is out of range for an axis of size 3") as caught:
        executor.run(plan, arrays)

    details = caught.value.details
    assert (details["node"], details["is_backward"]) == (17, False)
    assert str(details["types"]) in str(caught.value)
    for a, b in zip(before, executor.run(plan, good), strict=True):
        assert same_bits(a, b)


def test_an_error_of_the_backward_says_so(executor: ArrayExecutor) -> None:
    x, i = new_input(Type((3,), t.float32)), new_input(Type((2,), t.int64))
    with origin(Origin(5)):
        y = ops.scatter_add(ops.take(x, i * 0, axis=0), i, rows=3)
    (g,) = Gradient(1).results(y, y, x)
    with pytest.raises(IndexRange) as caught:
        executor.run(plan_of([x, i], [g]), [np.ones(3, np.float32), np.array([0, 7])])

    assert caught.value.details["node"] == 5


def test_what_numpy_cannot_do_is_an_execution_error(executor: ArrayExecutor) -> None:
    x = new_input(Type((2,), t.int32))
    plan = plan_of([x], [ops.pow(x, x)])

    with pytest.raises(ExecutionError, match=r"power\(int32\[2\], int32\[2\]\)") as caught:
        executor.run(plan, [np.array([2, -1], np.int32)])

    assert caught.value.reason == "OP_FAILED"
    assert executor.run(plan, [np.array([2, 3], np.int32)])[0].tolist() == [4, 27]


def test_no_room_is_out_of_device_memory(executor: ArrayExecutor) -> None:
    x = new_input(Type((), t.float32))
    wide = ops.broadcast_to(x, (2**20, 2**21))
    plan = make_plan(Function(Graph.of([x], [ops.sum(ops.exp(wide))])))

    with pytest.raises(OutOfDeviceMemory) as caught:
        executor.run(plan, [np.float32(1)])

    assert isinstance(caught.value, MemoryError)
    assert caught.value.reason == "DEVICE_OOM"
    assert int(str(caught.value.details["bytes"])) > 2**42


def test_more_than_the_machine_has_is_refused_before_it_begins() -> None:
    executor = ArrayExecutor(
        NumpyModule(), name="numpy", reason="", fingerprint="", capacity_bytes=2 * LARGE.nbytes - 1
    )
    x = new_input(LARGE)

    assert executor.run(plan_of([x], [ops.sum(ops.exp(x))]), [given(LARGE)])
    with pytest.raises(OutOfDeviceMemory, match=str(2 * LARGE.nbytes)):
        executor.run(plan_of([x], [ops.sin(ops.exp(x)), ops.exp(x)]), [given(LARGE)])


def test_no_room_for_a_result_is_out_of_device_memory(executor: ArrayExecutor) -> None:
    x = new_input(Type((), t.float32))
    plan = make_plan(Function(Graph.of([x], [ops.exp(ops.broadcast_to(x, (2**20, 2**21)))])))

    with pytest.raises(OutOfDeviceMemory):
        executor.run(plan, [np.float32(1)])


def test_the_wrong_number_of_operands_is_our_own_mistake(executor: ArrayExecutor) -> None:
    x = new_input(VECTOR)

    with pytest.raises(ValueError, match="zip"):
        executor.run(plan_of([x], [x + 1]), [])


def test_special_numbers_raise_no_warning(executor: ArrayExecutor) -> None:
    x = new_input(VECTOR)
    outputs = [x / 0.0, ops.log(x), ops.sqrt(x), ops.exp(x * 1e9), ops.astype(x, t.int8), ops.pow(x, x), x % 0.0]

    executor.run(plan_of([x], outputs), [np.array([-1, 0, np.inf, np.nan], np.float32)])


# ---- memory of plans


def test_a_plans_memory_goes_with_it(executor: ArrayExecutor) -> None:
    x = new_input(LARGE)
    plan = plan_of([x], [ops.sum(ops.exp(x))])
    executor.run(plan, [given(LARGE)])
    assert executor.cached_bytes >= LARGE.nbytes

    gone = weakref.ref(plan)
    del plan
    gc.collect()

    assert gone() is None
    assert executor.cached_bytes == 0


def test_the_plan_used_least_recently_is_unloaded_first() -> None:
    executor = numpy_executor(cached_bytes=3 * LARGE.nbytes)
    x = new_input(LARGE)
    plans = [plan_of([x], [ops.sum(op(x))]) for op in (ops.exp, ops.sin, ops.cos, ops.tanh)]
    wanted = [executor.run(plan, [given(LARGE)])[0] for plan in plans[:3]]
    executor.run(plans[0], [given(LARGE)])

    executor.run(plans[3], [given(LARGE)])

    assert executor.cached_bytes <= 3 * LARGE.nbytes
    assert executor.is_loaded(plans[0])
    assert not executor.is_loaded(plans[1])
    for plan, want in zip(plans[:3], wanted, strict=True):
        assert same_bits(want, executor.run(plan, [given(LARGE)])[0])


def test_plans_run_interleaved(executor: ArrayExecutor) -> None:
    x = new_input(VECTOR)
    plans = [plan_of([x], [ops.sum(ops.exp(x * float(k)))]) for k in range(5)]
    array = np.ones(4, np.float32)

    for _ in range(3):
        for k, plan in enumerate(plans):
            np.testing.assert_allclose(executor.run(plan, [array])[0], 4 * np.exp(k), rtol=1e-6)


# ---- host


@pytest.mark.parametrize("dtype", t.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_bytes_go_in_and_come_out(executor: ArrayExecutor, dtype: t.DType, shape: tuple[int, ...]) -> None:
    type = Type(shape, dtype)
    data = bytes(k % 2 for k in range(type.nbytes))

    array = executor.from_host(type, data)

    assert executor.type_of(array) == type
    assert executor.nbytes(array) == type.nbytes
    assert bytes(executor.to_host(array)) == data
    assert not array.flags.writeable


def test_an_upload_is_filled_piece_by_piece(executor: ArrayExecutor) -> None:
    type = Type((2, 2), t.int32)
    data = np.arange(4, dtype="<i4").tobytes()

    buffer, view = executor.receive(type)
    for k in range(0, 16, 4):
        view[k : k + 4] = data[k : k + 4]

    assert executor.received(buffer).tolist() == [[0, 1], [2, 3]]


def test_bytes_of_the_wrong_number_are_refused(executor: ArrayExecutor) -> None:
    with pytest.raises(DataCorrupt):
        executor.from_host(VECTOR, b"1234")


def test_booleans_from_the_wire_are_zero_or_one(executor: ArrayExecutor) -> None:
    array = executor.from_host(Type((3,), t.bool_), bytes([0, 1, 255]))

    assert bytes(executor.to_host(array)) == bytes([0, 1, 1])


# ---- threads


def test_large_products_use_all_threads_and_small_ones_one_and_others_find_what_they_set() -> None:
    executor = numpy_executor()
    blas = executor.module.blas
    if blas is None:  # NumPy was built with another library, which keeps its own setting
        return
    x, w = new_input(LARGE), new_input(Type((1024, 1024), t.float32))
    plan = plan_of([x, w], [ops.matmul(x, x), ops.matmul(w, w)])
    used: list[int] = []
    use_threads = blas.use_threads
    blas.use_threads = lambda n: (used.append(n), use_threads(n))  # type: ignore[assignment]
    try:
        executor.run(plan, [given(LARGE), given(Type((1024, 1024), t.float32))])
        with blas.one_thread():
            executor.run(plan, [given(LARGE), given(Type((1024, 1024), t.float32))])
            inside = list(used)
    finally:
        blas.use_threads = use_threads

    assert used[:4] == [1, blas.threads, 1, blas.threads]
    assert inside[4:] == [1, 1, blas.threads, 1, 1]


@pytest.mark.parametrize(("rows", "lent"), [(64, [1]), (1700, [1, 2, 1])])
def test_only_very_large_decompositions_use_all_threads(rows: int, lent: list[int]) -> None:
    executor = numpy_executor()
    blas = executor.module.blas
    if blas is None:
        return
    type = Type((rows, rows), t.float32)
    x = new_input(type)
    plan = plan_of([x], [linalg.inv(x)])
    used: list[int] = []
    use_threads, threads = blas.use_threads, blas.threads
    blas.use_threads, blas.threads = used.append, 2
    try:
        executor.run(plan, [np.eye(rows, dtype=np.float32)])
    finally:
        blas.use_threads, blas.threads = use_threads, threads

    assert used[:-1] == lent, "the last call puts back what others had set"


def test_threads_are_given_back_by_a_decomposition_that_fails(executor: ArrayExecutor) -> None:
    blas = executor.module.blas
    if blas is None:
        return
    x = new_input(Type((2, 2), t.float32))
    used: list[int] = []
    use_threads = blas.use_threads
    blas.use_threads = lambda n: (used.append(n), use_threads(n))  # type: ignore[assignment]

    try:
        with pytest.raises(ExecutionError, match=r"inv\(float32\[2,2\]\): a matrix is singular"):
            executor.run(plan_of([x], [linalg.inv(x)]), [np.ones((2, 2), np.float32)])
    finally:
        blas.use_threads = use_threads

    assert used[0] == 1 and used[-1] == blas.threads
