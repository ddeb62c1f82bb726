"""Copies by the library: NumPy's bits for every dtype and layout, whoever does which part."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from telegrad.ir.op import Op
from telegrad.ir.types import BY_NAME
from telegrad.ops.shape import Concat, Pad, Reshape
from telegrad.ops.slices import Unslice
from telegrad.wire.arrays import numpy_dtype, type_of
from telegrad_server.executors.array_module import NumpyModule
from telegrad_server.executors.driver import KernelCall
from telegrad_server.executors.library import Library
from telegrad_server.executors.native import MAKERS

Array = Any
Kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_long, ctypes.c_long)


def calls_for(library: Library, op: Op, arrays: Sequence[Array]) -> list[KernelCall]:
    out = op.infer(*[type_of(x) for x in arrays])
    laid = [(type_of(x), tuple([stride // x.itemsize for stride in x.strides])) for x in arrays]
    return MAKERS[type(op)](op, library, laid, [out])


def check(library: Library, op: Op, *arrays: Array) -> None:
    """Kernels make what the op's own rule makes, on one thread and on three."""
    calls = calls_for(library, op, arrays)
    assert calls
    expected = op.eval(NumpyModule(), *arrays)
    for threads in (1, 3):
        found = np.full(expected.shape, 77, expected.dtype)
        for call in calls:
            for number, place in call.pointers:
                call.point(place, [*arrays, found][number].ctypes.data)
            for k in range(threads):
                begin, end = call.units * k // threads, call.units * (k + 1) // threads
                Kernel(call.kernel)(ctypes.addressof(call.arguments), begin, end)
        np.testing.assert_array_equal(found, expected)


def drawn(shape: tuple[int, ...], dtype: str = "float32", *, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(1, 100, shape).astype(numpy_dtype(BY_NAME[dtype]))


DTYPES = ["float32", "float64", "bfloat16", "bool", "int64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_reshapes_of_permuted_arrays(library: Library, dtype: str) -> None:
    x = drawn((5, 4, 70, 9), dtype)

    check(library, Reshape((5, 70, 36)), x.transpose(0, 2, 1, 3))
    check(library, Reshape((9 * 4, 350)), x.transpose(3, 1, 2, 0))
    check(library, Reshape((5 * 4 * 35, 9)), x[:, :, ::-2])


def test_reshapes_of_broadcast_and_of_many_axes(library: Library) -> None:
    check(library, Reshape((60, 7)), np.broadcast_to(drawn((6, 1, 7)), (6, 10, 7)))
    check(library, Reshape((2**7,)), drawn((2,) * 7).transpose(6, 5, 4, 3, 2, 1, 0))


def test_what_lies_too_oddly_is_left_to_numpy(library: Library) -> None:
    x = drawn((2,) * 10).transpose(9, 8, 7, 6, 5, 4, 3, 2, 1, 0)

    assert not calls_for(library, Reshape((2**10,)), [x])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_arrays_of_any_layout_are_joined(library: Library, dtype: str, axis: int) -> None:
    shapes = [tuple(size if a == axis else n for a, n in enumerate((6, 10, 40))) for size in (3, 0, 100)]
    x, empty, y = (drawn(shape, dtype, seed=k) for k, shape in enumerate(shapes))
    turned = np.ascontiguousarray(y.transpose(2, 0, 1)).transpose(1, 2, 0)

    check(library, Concat(axis), x, empty, turned)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_are_put_among_zeros(library: Library, dtype: str) -> None:
    x = drawn((6, 10, 40), dtype)

    check(library, Unslice((0, 3, 0), (6, 13, 40), (1, 1, 1), (6, 20, 40)), x)
    check(library, Unslice((1, 0, 5), (13, 20, 125), (2, 2, 3), (13, 20, 126)), x)
    check(library, Pad((0, 2, 1), (3, 0, 1)), x.transpose(1, 0, 2))


def test_padding_with_another_number_is_left_to_numpy(library: Library) -> None:
    for value in (1.5, -0.0):
        assert not calls_for(library, Pad((0, 2), (3, 0), value), [drawn((4, 5))])
