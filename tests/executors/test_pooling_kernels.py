"""The library's pooling and sums for each channel: what NumPy finds, and the same bits for any number of threads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from telegrad.ir.types import Type, float32
from telegrad.ops.index import AddAlong, TakeAlong
from telegrad.ops.pooling import WindowArgmax
from telegrad.ops.reduce import Sum
from telegrad.wire.arrays import type_of
from telegrad_server.compiler.layout import contiguous_strides
from telegrad_server.executors import convolution as oracle
from telegrad_server.executors.driver import KernelCall
from telegrad_server.executors.library import Library
from telegrad_server.executors.pooling import along_calls, sum_calls, window_calls

Array = Any
Kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_long, ctypes.c_long)
Maker = Callable[..., list[KernelCall]]


def result(library: Library, make: Maker, op: Any, *arrays: Array) -> Array:
    """What the kernel of an op makes, which is the same for one, two and three threads."""
    types = [type_of(array) for array in arrays]
    out: Type = op.infer(*types)
    (call,) = make(op, library, [(t, contiguous_strides(t.shape)) for t in types], [out])
    found: list[Array] = []
    for threads in (1, 2, 3):
        found.append(np.full(out.shape, 77, np.int64 if out.dtype is not float32 else np.float32))
        places: Sequence[Array] = (*arrays, found[-1])
        for number, place in call.pointers:
            call.point(place, places[number].ctypes.data)
        for t in range(threads):
            begin, end = call.units * t // threads, call.units * (t + 1) // threads
            Kernel(call.kernel)(ctypes.addressof(call.arguments), begin, end)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    return found[0]


PAIRS = WindowArgmax((2, 2), (2, 2), (0, 0), (0, 0), (1, 1))
SIZES = [(8, 6), (7, 9), (4, 600), (4, 4), (6, 4), (8, 8), (14, 8), (6, 8), (16, 16), (9, 17), (2, 34), (5, 35), (2, 2)]

WINDOWS = {
    **{f"2x2 over {height}x{width}": ((2, 3, height, width), PAIRS) for height, width in SIZES},
    "3x3, stride 2, padded": ((2, 3, 9, 10), WindowArgmax((3, 3), (2, 2), (1, 1), (1, 1), (1, 1))),
    "dilated": ((2, 3, 12, 11), WindowArgmax((3, 2), (1, 3), (1, 0), (0, 2), (2, 3))),
    "one axis": ((2, 3, 11), WindowArgmax((3,), (2,), (1,), (0,), (1,))),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_the_first_largest_element_of_each_window_is_found(library: Library, name: str) -> None:
    shape, op = WINDOWS[name]
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, shape).astype(np.float32)  # many are equal
    x[rng.random(shape) < 0.1] = np.nan
    x[rng.random(shape) < 0.1] = -np.inf

    found = result(library, window_calls, op, x)

    how = {name: getattr(op, name) for name in ("kernel", "stride", "before", "after", "dilation")}
    np.testing.assert_array_equal(found, oracle.window_argmax(np, x, **how))


def test_elements_are_taken_and_added_along_rows(library: Library) -> None:
    rng = np.random.default_rng(0)
    x, index = rng.standard_normal((2, 3, 20)).astype(np.float32), rng.integers(0, 20, (2, 3, 50))

    taken = result(library, along_calls, TakeAlong(2), x, index)
    added = result(library, along_calls, AddAlong(2, 20), taken, index)

    np.testing.assert_array_equal(taken, np.take_along_axis(x, index, 2))
    counts = np.stack([np.bincount(row, minlength=20) for row in index.reshape(6, 50)]).reshape(x.shape)
    np.testing.assert_allclose(added, counts * x, rtol=2e-6)


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 4, 1), (2, 3, 33, 40), (9, 17, 16, 16)])
def test_each_channel_is_summed(library: Library, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    axes = (0, *range(2, len(shape)))

    found = result(library, sum_calls, Sum(axes), x)

    exact, total = x.sum(axes, np.float64), abs(x).sum(axes, np.float64)
    assert (abs(found - exact) <= total * 2.0**-24 * 70).all()
    assert result(library, sum_calls, Sum(axes, keepdims=True), x).shape == (1, shape[1], *(1,) * (len(shape) - 2))


def test_sums_over_other_axes_have_no_kernel_here(library: Library) -> None:
    t = Type((2, 3, 4), float32)

    for axes in ((0,), (2,), (1,), (0, 1, 2), (0, 1)):
        out = Sum(axes).infer(t)
        assert isinstance(out, Type)
        assert sum_calls(Sum(axes), library, [(t, contiguous_strides(t.shape))], [out]) == []
