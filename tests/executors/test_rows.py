"""Rows picked and added up by the library: NumPy's bits, for any number of threads, and its errors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from telegrad import ops
from telegrad.errors import IndexRange
from telegrad.ir import Type, new_input
from telegrad.ir import types as t
from telegrad.ir.graph import Function, Graph
from telegrad.ops.index import Gather, ScatterAdd
from telegrad.wire.arrays import numpy_dtype, type_of
from telegrad_server.compiler.plan import make_plan
from telegrad_server.executors.array import numpy_executor
from telegrad_server.executors.array_module import NumpyModule
from telegrad_server.executors.library import Library
from telegrad_server.executors.rows import add_calls, pick_calls

Array = Any
Kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_long, ctypes.c_long)


def result(library: Library, op: Gather | ScatterAdd, x: Array, index: Array, *, threads: int) -> Array:
    """What the kernel of an op makes on so many threads."""
    out: Type = op.infer(type_of(x), type_of(index))
    laid = [(type_of(a), tuple([s // a.itemsize for s in a.strides])) for a in (x, index)]
    (call,) = (pick_calls if isinstance(op, Gather) else add_calls)(op, library, laid, [out])
    found = np.full(out.shape, 77, numpy_dtype(out.dtype))
    places: Sequence[Array] = (x, index, found)
    for number, place in call.pointers:
        call.point(place, places[number].ctypes.data)
    for k in range(threads):
        begin, end = call.units * k // threads, call.units * (k + 1) // threads
        Kernel(call.kernel)(ctypes.addressof(call.arguments), begin, end)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", "int64", "float16"])
@pytest.mark.parametrize("rest", [(), (7,), (3, 40)])
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_of_any_dtype_are_picked(library: Library, dtype: str, rest: tuple[int, ...], threads: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 100, (50, *rest)).astype(dtype)
    index = rng.integers(-50, 50, (6, 300))

    found = result(library, Gather(), x, index, threads=threads)

    np.testing.assert_array_equal(found, x[index])


def test_rows_are_picked_from_every_other_row(library: Library) -> None:
    x = np.arange(400, dtype=np.float32).reshape(40, 10)[::2]
    index = np.array([3, -1, 0], np.int32)

    found = result(library, Gather(), x, index, threads=2)

    np.testing.assert_array_equal(found, x[index])


@pytest.mark.parametrize("rows", [1, 5, 700])
@pytest.mark.parametrize("rest", [(), (3, 40)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_rows_are_added_in_the_order_of_their_numbers(
    library: Library, rows: int, rest: tuple[int, ...], threads: int
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 500, *rest)).astype(np.float32)
    x[0, 0] = -0.0
    index = rng.integers(-rows, rows, (4, 500))

    found = result(library, ScatterAdd(rows), x, index, threads=threads)

    expected = NumpyModule().scatter_add(x, index, rows)
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


def test_rows_that_are_one_row_many_times_are_added(library: Library) -> None:
    x = np.broadcast_to(np.arange(128, dtype=np.float32).reshape(8, 1, 16), (8, 20, 16))
    index = np.random.default_rng(0).integers(0, 30, (8, 20))

    found = result(library, ScatterAdd(30), x, index, threads=2)

    np.testing.assert_array_equal(found, NumpyModule().scatter_add(x, index, 30))


@pytest.mark.parametrize("wrong", [30, -31])
def test_a_number_out_of_range_is_an_error_before_a_kernel_runs(library: Library, wrong: int) -> None:
    x, index = new_input(Type((30, 16), t.float32)), new_input(Type((9,), t.int64))
    graph = Graph.of([x, index], [ops.scatter_add(ops.take(x, index, axis=0), index, rows=30)])
    executor = numpy_executor(kernels="auto")
    plan = make_plan(Function(graph), uses_library=True)
    numbers = np.arange(9)
    executor.run(plan, [np.ones((30, 16), np.float32), numbers])

    numbers[4] = wrong
    with pytest.raises(IndexRange) as caught:
        executor.run(plan, [np.ones((30, 16), np.float32), numbers])

    assert caught.value.details["op"] == "gather"
