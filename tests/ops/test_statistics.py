"""median, quantile, mode and special functions: against NumPy, SciPy's identities and PyTorch, with their gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from telegrad import ops
from telegrad.autodiff import gradient
from telegrad.errors import GraphError, ShapeError
from telegrad.ir import Type, Value, new_input
from telegrad.ir import types as t

from tests.ops.checks import Array, call, check_gradients, generator

X = generator("statistics").normal(size=(3, 4, 5))
AXES: list[Any] = [None, 0, -1, (0, 2), (2, 0, 1)]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_median_and_quantile_are_numpys(axis: Any, keepdims: bool) -> None:
    how = {"axis": axis, "keepdims": keepdims}

    np.testing.assert_allclose(call(lambda x: ops.median(x, **how), X), np.median(X, **how), rtol=1e-14)
    for q in (0.0, 0.3, 0.71, 1.0):
        found = call(lambda x, q=q: ops.quantile(x, q, **how), X)
        np.testing.assert_allclose(found, np.quantile(X, q, **how), rtol=1e-12)


def test_nan_spreads_and_integers_have_a_median() -> None:
    x = np.array([[1.0, np.nan, 3.0], [3.0, 1.0, 2.0]])

    np.testing.assert_array_equal(call(lambda x: ops.median(x, axis=1), x), [np.nan, 2.0])
    assert call(lambda x: ops.median(x), np.array([4, 1, 3, 2])) == 2.5


def test_gradients_of_medians_go_to_the_middle() -> None:
    check_gradients(lambda x: ops.median(x, axis=1), [X], name="median", order=2)
    check_gradients(lambda x: ops.quantile(x, 0.37, axis=(0, 2)), [X], name="quantile", order=2)


def _mode(row: Array) -> tuple[float, int]:
    values, counts = np.unique(row, return_counts=True)
    return values[np.argmax(counts)], counts.max()


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_mode_is_the_smallest_of_the_most_common(axis: int, keepdims: bool) -> None:
    x = generator("mode").integers(0, 3, size=(6, 7, 8))

    value, count = call(lambda x: ops.mode(x, axis=axis, keepdims=keepdims), x)

    lines = np.moveaxis(x, axis, -1)
    wanted = [np.array([_mode(row)[i] for row in lines.reshape(-1, lines.shape[-1])]) for i in (0, 1)]
    wanted = [w.reshape(lines.shape[:-1]) for w in wanted]
    if keepdims:
        wanted = [np.expand_dims(w, axis) for w in wanted]
    np.testing.assert_array_equal(value, wanted[0])
    np.testing.assert_array_equal(count, wanted[1])


def test_mode_of_one_element_and_its_gradient() -> None:
    assert [a.tolist() for a in call(lambda x: ops.mode(x), np.array([[3.0], [1.0]]))] == [[3.0, 1.0], [1, 1]]

    def slope(x: Value) -> Value:
        value, _ = ops.mode(x)
        return gradient([value], [ops.ones_like(value)], [x])[0]

    found = call(slope, np.array([[2.0, 1.0, 2.0], [5.0, 5.0, 4.0]]))
    assert found.sum(axis=1).tolist() == [1.0, 1.0]
    assert found[0, 1] == found[1, 2] == 0.0


def test_what_has_no_middle_is_refused() -> None:
    empty = new_input(Type((2, 0), t.float64))
    for call_it in (
        lambda: ops.median(empty, axis=1),
        lambda: ops.quantile(empty, 0.5, axis=-1),
        lambda: ops.mode(empty),
    ):
        with pytest.raises(ShapeError, match="no elements"):
            call_it()
    with pytest.raises(GraphError, match=r"q must be from 0 to 1, which 1\.5 is not"):
        ops.quantile(new_input(Type((2,), t.float64)), 1.5)


def test_trigamma_is_its_known_values_and_the_slope_of_digamma() -> None:
    x = np.array([1.0, 0.5, 2.0, -0.5, -2.3, 1e-3, 30.0])
    zeta2 = math.pi**2 / 6

    found = call(ops.trigamma, x)
    step = 1e-6 * np.maximum(np.abs(x), 1e-3)
    slope = (call(ops.digamma, x + step) - call(ops.digamma, x - step)) / (2 * step)

    np.testing.assert_allclose(found[:3], [zeta2, math.pi**2 / 2, zeta2 - 1], rtol=1e-14)
    np.testing.assert_allclose(found, slope, rtol=1e-6)


def test_special_functions_invert_and_recur() -> None:
    x = generator("special").uniform(0.1, 8, size=50)
    y = np.tanh(X)

    np.testing.assert_allclose(call(lambda y: ops.erf(ops.erfinv(y)), y), y, rtol=1e-13)
    np.testing.assert_allclose(call(lambda x: ops.lgamma(x + 1) - ops.lgamma(x), x), np.log(x), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(call(lambda x: ops.digamma(x + 1) - ops.digamma(x), x), 1 / x, rtol=1e-9)
