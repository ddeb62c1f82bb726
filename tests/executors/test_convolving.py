"""The library's convolutions: right to rounding in any geometry; the same bits for any threads and other samples."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
import pytest
from telegrad.ir.types import Type, float32, float64
from telegrad.ops.convolution import Convolution, ConvolutionInput, ConvolutionWeight
from telegrad_server.executors import convolution as oracle
from telegrad_server.executors.convolving import MOST_TAPS, convolving
from telegrad_server.executors.library import Library

Array = Any
Kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_long, ctypes.c_long)


class Case(NamedTuple):
    x: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    before: tuple[int, ...] = (0, 0)
    after: tuple[int, ...] | None = None
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1

    @property
    def geometry(self) -> dict[str, Any]:
        after = self.before if self.after is None else self.after
        return {
            "stride": self.stride,
            "before": self.before,
            "after": after,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def arrays(self) -> tuple[Array, Array, Array]:
        """x, weight and y, float32."""
        types = Type(self.x, float32), Type(self.weight, float32)
        shapes = self.x, self.weight, Convolution(**self.geometry).infer(*types).shape
        rng = np.random.default_rng(0)
        return tuple([rng.standard_normal(shape).astype(np.float32) for shape in shapes])


CASES = {
    "3x3": Case((2, 3, 5, 5), (4, 3, 3, 3), before=(1, 1)),
    "3x3 without padding": Case((2, 3, 8, 9), (4, 3, 3, 3)),
    "3x3, stride 2": Case((3, 4, 9, 7), (10, 4, 3, 3), before=(1, 1), stride=(2, 2)),
    "1x1": Case((3, 40, 9, 7), (10, 40, 1, 1)),
    "1x1, stride 2": Case((3, 4, 9, 7), (10, 4, 1, 1), stride=(2, 2)),
    "1x1, padded": Case((2, 3, 4, 4), (5, 3, 1, 1), before=(1, 2)),
    "5x5 in groups": Case((2, 6, 20, 40), (30, 2, 5, 5), before=(2, 2), groups=3),
    "5x5, depthwise": Case((2, 7, 20, 40), (7, 1, 5, 5), before=(2, 2), groups=7),
    "7x7, stride 2, of an image": Case((1, 3, 61, 60), (33, 3, 7, 7), before=(3, 3), stride=(2, 2)),
    "uneven": Case((2, 8, 12, 11), (6, 4, 3, 2), (2, 3), (1, 0), (0, 2), (2, 1), 2),
    "stride beyond the window": Case((2, 5, 9, 10), (7, 5, 2, 2), stride=(3, 4)),
    "dilated": Case((2, 5, 20, 21), (7, 5, 3, 3), before=(4, 2), dilation=(4, 3)),
    "several blocks of rows": Case((2, 64, 40, 40), (20, 64, 3, 3), before=(1, 1)),
    "several blocks of channels": Case((2, 130, 10, 10), (140, 130, 3, 3), before=(1, 1)),
    "small images": Case((9, 20, 4, 4), (40, 20, 3, 3), before=(1, 1)),
    "lines of half a vector": Case((3, 9, 8, 8), (21, 9, 3, 3), before=(1, 1)),
    "lines of less than half a vector": Case((2, 30, 7, 7), (12, 30, 3, 3), before=(1, 1)),
    "lines of a vector and a quarter": Case((2, 10, 9, 20), (9, 10, 3, 3), before=(1, 1)),
    "short lines, stride 2, many channels": Case((2, 140, 8, 8), (19, 140, 3, 3), before=(1, 1), stride=(2, 2)),
    "short lines, few channels": Case((2, 5, 8, 8), (7, 5, 3, 3), before=(1, 1)),
    "one axis": Case((3, 5, 50), (7, 5, 5), (2,), (2,), None, (1,)),
    "padding beyond the input": Case((2, 2, 3, 3), (3, 2, 2, 2), before=(5, 4)),
}


def run(library: Library, made: Any, left: Array, right: Array, out: Array, threads: int) -> Array:
    """The result, cut as a pool of ``threads`` cuts it."""
    name, arguments = made
    arguments.left, arguments.right, arguments.out = [array.ctypes.data for array in (left, right, out)]
    units = library.count(f"{name}_units", ctypes.addressof(arguments))
    kernel = Kernel(library.address(name))
    for t in range(threads):
        kernel(ctypes.addressof(arguments), units * t // threads, units * (t + 1) // threads)
    return out


def results(library: Library, case: Case, x: Array, weight: Array, y: Array, threads: int = 1) -> list[Array]:
    """The convolution of x and weight, and those of y to the input and to the weight."""
    ops = (
        (Convolution(**case.geometry), x, weight, y),
        (ConvolutionInput(**case.geometry, size=x.shape[2:]), y, weight, x),
        (ConvolutionWeight(**case.geometry, kernel=weight.shape[2:]), x, y, weight),
    )
    found: list[Array] = []
    for op, left, right, like in ops:
        made = convolving(op, [Type(left.shape, float32), Type(right.shape, float32)])
        assert made is not None
        found.append(run(library, made, left, right, np.full_like(like, np.nan), threads))
    return found


@pytest.mark.parametrize("name", CASES)
def test_convolutions_are_those_of_float64_to_rounding(library: Library, name: str) -> None:
    case = CASES[name]
    x, weight, y = case.arrays()
    wide = [array.astype(np.float64) for array in (x, weight, y)]
    exact = (
        oracle.convolution(np, wide[0], wide[1], **case.geometry),
        oracle.convolution_input(np, wide[2], wide[1], size=x.shape[2:], **case.geometry),
        oracle.convolution_weight(np, wide[0], wide[2], kernel=weight.shape[2:], **case.geometry),
    )

    found = results(library, case, x, weight, y)

    for one, wanted in zip(found, exact, strict=True):
        np.testing.assert_allclose(one, wanted, rtol=0, atol=3e-6 * abs(wanted).max())


@pytest.mark.parametrize("name", CASES)
def test_bits_depend_neither_on_threads_nor_on_other_samples(library: Library, name: str) -> None:
    case = CASES[name]
    x, weight, y = case.arrays()

    whole = results(library, case, x, weight, y)

    for threads in (2, 3, 5):
        for one, wanted in zip(results(library, case, x, weight, y, threads), whole, strict=True):
            np.testing.assert_array_equal(one, wanted)
    alone = results(library, case, x[-1:].copy(), weight, y[-1:].copy())
    for one, wanted in zip(alone[:2], whole[:2], strict=True):
        np.testing.assert_array_equal(one, wanted[-1:])


def test_nan_stays_within_the_windows_that_have_it(library: Library) -> None:
    case = CASES["3x3"]
    x, weight, y = case.arrays()
    x[1, 2, 0, 4] = np.nan

    out, _, to_weight = results(library, case, x, weight, y)

    wanted = oracle.convolution(np, x, weight, **case.geometry)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(wanted))
    np.testing.assert_array_equal(
        np.isnan(to_weight), np.isnan(oracle.convolution_weight(np, x, y, kernel=(3, 3), **case.geometry))
    )


def test_what_has_no_kernel_is_left_to_numpy() -> None:
    geometry = {"stride": (1,), "before": (0,), "after": (0,), "dilation": (1,)}
    long = MOST_TAPS + 1

    assert convolving(Convolution(**geometry), [Type((1, 1, 5), float64), Type((1, 1, 2), float64)]) is None
    assert convolving(Convolution(**geometry), [Type((1, 1, long), float32), Type((1, 1, long), float32)]) is None
    assert convolving(Convolution(**geometry), [Type((0, 1, 5), float32), Type((1, 1, 2), float32)]) is None
    deep = {name: 3 * value for name, value in geometry.items()}
    assert convolving(Convolution(**deep), [Type((1, 1, 5, 5, 5), float32), Type((1, 1, 2, 2, 2), float32)]) is None
