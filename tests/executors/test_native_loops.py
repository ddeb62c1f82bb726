"""Scans whose trips are kernels alone: as right as trip by trip in NumPy, the same bits on any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from telegrad import ops
from telegrad.ir import Function, Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ops.control import Gradient
from telegrad.ops.loops import INDEX, Scan
from telegrad.ops.recurrent import affine, gru_step, lstm_step, rnn_step
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.compiler.plan import Plan
from telegrad_server.executors.array import ArrayExecutor, numpy_executor
from telegrad_server.executors.native_loops import NativeScan

from tests.compiler.graphs import same_bits

Array = npt.NDArray[Any]
TRIPS, ROWS, SIZE = 120, 18, 20


def native(threads: int) -> ArrayExecutor:
    """An executor whose kernels run on so many threads."""
    found = numpy_executor(kernels="auto")
    if found.native is None or found.native.library is None:
        pytest.skip("no C compiler")
    found.native.library.use_threads(threads)
    return found


def scans(executor: ArrayExecutor, plan: Plan) -> int:
    """How many scans of the plan run without Python."""
    return sum(isinstance(call[1], NativeScan) for call in executor.prepared(plan)[1].calls)


Step = Callable[[Sequence[Value], Value, Value], Sequence[Value]]
CELLS: dict[str, tuple[int, int, Step]] = {
    # carries, gates, the next carries from the last, the input's part and the weight
    "lstm": (2, 4, lambda now, x, w: lstm_step(x + affine(now[0], w, None), now[1])),
    "gru": (1, 3, lambda now, x, w: [gru_step(x, affine(now[0], w, None), now[0])]),
    "rnn": (1, 1, lambda now, x, w: [rnn_step(x, affine(now[0], w, None), "tanh")]),
}


def recurrent(name: str, dtype: t.DType, *, rows: int = ROWS, reverse: bool = False) -> tuple[Graph, list[Array]]:
    """A recurrent layer and the gradients of everything, and operands for it."""
    carries, gates, step = CELLS[name]
    shapes = [(rows, SIZE)] * carries + [(TRIPS, rows, gates * SIZE), (gates * SIZE, SIZE)]
    rng = np.random.default_rng(0)
    arrays = [(rng.standard_normal(shape) * 0.5).astype(np.float32) for shape in shapes]
    inputs = [new_input(Type(shape, dtype)) for shape in shapes]
    number, *now = (new_input(INDEX), *[new_input(Type(shapes[k], dtype)) for k in range(carries)])
    part, weight = new_input(Type(shapes[carries][1:], dtype)), new_input(Type(shapes[-1], dtype))
    after = step(now, part, weight)
    region = Graph.of([number, *now, part, weight], [*after, after[0]])
    outs = Scan(TRIPS, carries, 1, reverse).results(*inputs, regions=(region,))
    loss = ops.sum(ops.square(outs[-1])) + ops.sum(outs[0])
    return Graph.of(inputs, [*outs, *Gradient(1).results(loss, loss.literal(1.0, dtype), *inputs)]), arrays


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_recurrent_layers_run_without_python_as_near_to_float64_as_numpy(name: str, reverse: bool) -> None:
    graph, arrays = recurrent(name, t.float32, reverse=reverse)
    wide, _ = recurrent(name, t.float64, reverse=reverse)
    exact = numpy_executor().run(compile_function(Function(wide)), [a.astype(np.float64) for a in arrays])
    usual = numpy_executor().run(compile_function(Function(graph)), arrays)
    plan = compile_function(Function(graph), kernels="c")

    assert scans(native(1), plan) == 2
    found = [native(threads).run(plan, arrays) for threads in (1, 2, 3)]

    for want, mine, plain in zip(exact, found[0], usual, strict=True):
        top = np.abs(want).max()
        assert np.abs(mine - want).max() <= max(4 * np.abs(plain - want).max(), 1e-6 * top)
    assert all(same_bits(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_rows_have_the_same_bits_in_batches_of_any_size() -> None:
    carries = CELLS["lstm"][0]
    graph, arrays = recurrent("lstm", t.float32, rows=48)
    parts, _ = recurrent("lstm", t.float32, rows=24)
    whole = native(2).run(compile_function(Function(graph), kernels="c"), arrays)
    plan = compile_function(Function(parts), kernels="c")

    for begin in (0, 24):
        rows = slice(begin, begin + 24)
        some = [*[a[rows] for a in arrays[:carries]], np.ascontiguousarray(arrays[carries][:, rows]), arrays[-1]]
        found = native(2).run(plan, some)

        assert all(same_bits(a, b[rows]) for a, b in zip(found[:carries], whole[:carries], strict=True))
        assert same_bits(found[carries], whole[carries][:, rows])
        assert same_bits(found[carries + 3], whole[carries + 3][:, rows])  # of what the inputs contribute


def loop(body: Callable[..., Sequence[Value]], *, trips: int, reverse: bool = False) -> Graph:
    """A scan with two carries of [64, 32] and one of xs."""
    shape = Type((64, 32), t.float32)
    inputs = [new_input(shape), new_input(shape), new_input(Type((trips, 64, 32), t.float32))]
    fresh = [new_input(INDEX), *[new_input(shape) for _ in range(3)]]
    region = Graph.of(fresh, body(*fresh))
    return Graph.of(inputs, Scan(trips, 2, 1, reverse).results(*inputs, regions=(region,)))


def _of_many_sizes(a: Value, b: Value, x: Value) -> Sequence[Value]:
    """Values of 7, 32, 25 and 1 elements a row, of which none can be overwritten by the next."""
    part = a[:, 12:19] * x[:, :7]
    whole = ops.concat([part + 1, b[:, 7:] * part[:, :1]], axis=1)
    a = (whole - ops.max(whole, axis=1, keepdims=True)) * 0.25 + x
    return [a, ops.concat([whole[:, 7:] * 0.25, part * 0.5], axis=1) + x, part]


BODIES: dict[str, tuple[Callable[..., Sequence[Value]], int]] = {
    # the second number: how many of one scan run without Python
    "operands are stacked": (lambda i, a, b, x: [a + x, b * x, a, x, b], 1),
    "one result is stacked twice": (lambda i, a, b, x: (lambda y: [y, b - y, y, y])(a * 0.5 + x), 1),
    "two carries are one": (lambda i, a, b, x: (lambda y: [y, y, b * y])(a + b), 1),
    "a carry is the other's last": (lambda i, a, b, x: [a + x, a, b], 0),
    "the trip's number counts": (lambda i, a, b, x: [a + ops.astype(i, t.float32), b + x, a * b], 0),
    "rows meet": (lambda i, a, b, x: [a - ops.sum(b * x, axis=0), b * x, a], 1),
    "sizes differ": (lambda i, a, b, x: _of_many_sizes(a, b, x), 1),
    "nothing is stacked": (lambda i, a, b, x: [b + x, a * 0.5], 1),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("trips", [0, 1, 2, 67])
@pytest.mark.parametrize("name", BODIES)
def test_carries_and_results_are_those_of_numpy(name: str, trips: int, reverse: bool) -> None:
    body, count = BODIES[name]
    graph = loop(body, trips=trips, reverse=reverse)
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]
    plan = compile_function(Function(graph), kernels="c")

    usual = numpy_executor().run(compile_function(Function(graph)), arrays)
    found = native(2).run(plan, arrays)

    if trips > 60:  # else it is not worth kernels
        assert scans(native(2), plan) == count
    assert all(map(same_bits, found, usual))


def test_a_scan_runs_again_on_other_operands() -> None:
    graph = loop(BODIES["operands are stacked"][0], trips=67)
    plan, executor = compile_function(Function(graph), kernels="c"), native(2)
    rng = np.random.default_rng(2)
    for _ in range(3):
        arrays = [rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]

        found = executor.run(plan, arrays)

        assert all(map(same_bits, found, numpy_executor().run(compile_function(Function(graph)), arrays)))
