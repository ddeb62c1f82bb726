"""Uniform random numbers by the library: NumPy's bits, whoever makes which of them, and wherever a replica begins."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from telegrad.ir import types as t
from telegrad.ops.random import KEY, RandomUniform
from telegrad_server.executors.array_module import NumpyModule
from telegrad_server.executors.library import Library
from telegrad_server.executors.random_numbers import UNIT, uniform_calls

Kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_long, ctypes.c_long)


@pytest.mark.parametrize("offset", [0, 1, 6, 2**34 + 3, 2**63 - 10**6])
@pytest.mark.parametrize("shape", [(), (7,), (3, UNIT + 5)])
@pytest.mark.parametrize("threads", [1, 3])
def test_uniform_numbers_have_numpys_bits(library: Library, offset: int, shape: tuple[int, ...], threads: int) -> None:
    key = np.array([3, 2**32 - 1, 5, 7], np.uint32)
    op = RandomUniform(shape, stream=2**32 - 5, offset=offset)
    (call,) = uniform_calls(op, library, [(KEY, (1,))], [op.infer(KEY)])
    found = np.full(shape, 77, np.float32)
    call.point(call.pointers[0][1], key.ctypes.data)
    call.point(call.pointers[1][1], found.ctypes.data)

    for k in range(threads):
        begin, end = call.units * k // threads, call.units * (k + 1) // threads
        Kernel(call.kernel)(ctypes.addressof(call.arguments), begin, end)

    np.testing.assert_array_equal(found, op.eval(NumpyModule(), key))


def test_float64_is_left_to_numpy(library: Library) -> None:
    op = RandomUniform((8,), t.float64)

    assert not uniform_calls(op, library, [(KEY, (1,))], [op.infer(KEY)])
