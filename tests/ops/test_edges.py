"""Where formulas break: ties, zeros, infinities, empty arrays, 16-bit floats, and the dtypes of results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from telegrad import ops
from telegrad.autodiff import gradient
from telegrad.ir import Value
from telegrad.ops import activation, linalg, loss, norm

from tests.ops.checks import Array, call, check_gradients, evaluate, inputs_for

INF, NAN = float("inf"), float("nan")


def slopes(f: Callable[..., Value], *arrays: Array, order: int = 1) -> list[Array]:
    """The gradient of sum(f) with respect to each array; of the first array's gradient's sum for order 2."""
    xs = inputs_for(arrays)
    y = ops.sum(f(*xs))
    found = list(gradient([y], [ops.ones_like(y)], xs))
    for _ in range(order - 1):
        y = ops.sum(found[0])
        found = list(gradient([y], [ops.ones_like(y)], xs))
    return evaluate(found, dict(zip(xs, arrays, strict=True)))


def at(*numbers: float) -> Array:
    return np.array(numbers)


# ---- ties and kinks: what is documented, not what comes out


def test_equal_extremes_share_the_gradient() -> None:
    x = np.array([[3.0, 1.0, 3.0], [2.0, 2.0, 2.0]])

    assert slopes(lambda v: ops.max(v, axis=1), x)[0].tolist() == [[0.5, 0.0, 0.5], [1 / 3, 1 / 3, 1 / 3]]
    assert slopes(ops.min, x)[0].tolist() == [[0, 1, 0], [0, 0, 0]]
    assert slopes(lambda v: ops.max(v, axis=(0, 1)), x)[0].tolist() == [[0.5, 0, 0.5], [0, 0, 0]]


def test_equal_operands_of_maximum_and_minimum_share_the_gradient() -> None:
    for f in (ops.maximum, ops.minimum):
        gx, gy = slopes(f, at(1.0, 2.0), at(1.0, 2.0))
        assert (gx.tolist(), gy.tolist()) == ([0.5, 0.5], [0.5, 0.5])


@pytest.mark.parametrize(
    ("f", "x", "wanted"),
    [
        (ops.abs, 0.0, 0.0),
        (ops.relu, 0.0, 0.0),
        (activation.relu6, 0.0, 0.0),
        (activation.relu6, 6.0, 0.0),
        (activation.hardtanh, 1.0, 0.0),
        (lambda v: ops.clip(v, -1.0, 1.0), 1.0, 1.0),
        (lambda v: ops.clip(v, -1.0, 1.0), 1.5, 0.0),
        (lambda v: activation.leaky_relu(v, 0.1), 0.0, 0.1),
        (activation.elu, 0.0, 1.0),
        (lambda v: ops.hypot(v, v), 0.0, 0.0),
        (lambda v: v**0, 0.0, 0.0),
        (lambda v: v**1, 0.0, 1.0),
        (lambda v: v**2, 0.0, 0.0),
        (lambda v: ops.pow(v, v * 0.0 + 2.0), 0.0, 0.0),
        (ops.sqrt, 0.0, INF),
        (ops.log, 0.0, INF),
        (ops.sign, 0.0, 0.0),
    ],
)
def test_derivatives_where_the_function_has_a_kink(f: Callable[[Value], Value], x: float, wanted: float) -> None:
    with np.errstate(all="ignore"):
        assert slopes(f, at(x))[0].tolist() == [wanted]


@pytest.mark.parametrize(
    ("f", "x", "wanted"),
    [
        (lambda v: ops.logaddexp(v, 0), 0.0, 0.25),
        (activation.softplus, 0.0, 0.25),
        (activation.log_sigmoid, 0.0, -0.25),
        (lambda v: loss.huber_loss(v, v * 0.0), 0.0, 1.0),
        (lambda v: loss.smooth_l1_loss(v, v * 0.0), 0.0, 1.0),
        (lambda v: loss.binary_cross_entropy_with_logits(v, v * 0.0 + 0.5), 0.0, 0.25),
        (lambda v: ops.pow(v, v * 0.0 + 3.0), 0.0, 0.0),
        (lambda v: v**3, 0.0, 0.0),
        (activation.silu, 0.0, 0.5),
    ],
)
def test_second_derivatives_at_a_tie(f: Callable[[Value], Value], x: float, wanted: float) -> None:
    assert slopes(f, at(x), order=2)[0] == pytest.approx([wanted])


def test_mixed_derivative_of_power_at_exponent_zero() -> None:
    # d/dy (y x**(y-1)) at y = 0 is 1/x, not 0
    x, y = inputs_for([at(2.0), at(0.0)])
    z = ops.pow(x, y)
    (gx,) = gradient([z], [ops.ones_like(z)], [x])
    (mixed,) = gradient([gx], [ops.ones_like(gx)], [y])

    assert evaluate([mixed], {x: at(2.0), y: at(0.0)})[0] == pytest.approx([0.5])


def test_prod_with_zeros_differentiates_to_third_order() -> None:
    for numbers in ([0.0, 2.0, -1.5, 1.0], [0.0, 0.0, 3.0, 1.0], [0.0, 0.0, 0.0, 2.0], [0.5, 2.0, 1.0, -1.0]):
        check_gradients(ops.prod, [np.array(numbers)], name=f"prod{numbers}", order=3, tolerance=1e-5)
        check_gradients(
            lambda x: ops.cumulative_prod(x), [np.array(numbers)], name=f"cumprod{numbers}", order=3, tolerance=1e-5
        )


def test_gradients_of_long_products_need_no_square_of_memory() -> None:
    x = inputs_for([np.ones(100_000)])[0]

    for y in (ops.prod(x), ops.cumulative_prod(x)):
        (g,) = gradient([y], [ops.ones_like(y)], [x])
        (h,) = gradient([g], [ops.ones_like(g)], [x])
        assert evaluate([h], {x: np.ones(100_000)})[0].shape == (100_000,)


def test_std_of_a_constant_has_gradient_zero() -> None:
    assert slopes(ops.std, at(2.0, 2.0, 2.0))[0].tolist() == [0, 0, 0]


# ---- infinities, NaN, overflow


def test_softmax_and_logsumexp_do_not_overflow() -> None:
    x = at(1000.0, 1000.0, -1000.0)

    assert call(ops.softmax, x).tolist() == [0.5, 0.5, 0.0]
    assert call(ops.logsumexp, x) == pytest.approx(1000 + np.log(2))
    assert call(ops.log_softmax, x) == pytest.approx([-np.log(2), -np.log(2), -2000 - np.log(2)])
    assert call(ops.sigmoid, at(-1e4, 1e4)).tolist() == [0.0, 1.0]
    assert call(activation.softplus, at(-1e4, 1e4)).tolist() == [0.0, 1e4]
    assert call(activation.log_sigmoid, at(-1e4, 1e4)).tolist() == [-1e4, 0.0]
    assert all(
        np.isfinite(slopes(f, at(-1e4, 1e4))[0]).all() for f in (ops.sigmoid, activation.softplus, activation.elu)
    )


def test_logsumexp_of_nothing_is_minus_infinity() -> None:
    assert call(ops.logsumexp, at(-INF, -INF)) == -INF
    assert call(lambda x: ops.logsumexp(x, axis=1), np.zeros((2, 0))).tolist() == [-INF, -INF]
    assert call(ops.logsumexp, at(INF, 1.0)) == INF


def test_logaddexp_of_infinities_shares_the_gradient() -> None:
    gx, gy = slopes(ops.logaddexp, at(-INF, INF, 0.0), at(-INF, INF, -INF))

    assert (gx.tolist(), gy.tolist()) == ([0.5, 0.5, 1.0], [0.5, 0.5, 0.0])


def test_nan_passes_through() -> None:
    x = at(1.0, NAN)
    for f in (ops.max, ops.min, ops.sum, ops.relu, ops.sigmoid, lambda v: ops.clip(v, 0, 1)):
        assert np.isnan(call(f, x)).any(), f
    assert call(lambda v: v**0, x).tolist() == [1, 1]


def test_multiplying_by_zero_keeps_nan_and_infinity() -> None:
    assert np.isnan(call(lambda v: v * 0.0, at(INF, NAN))).all()


# ---- dtypes


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_floats_are_added_up_in_float32_and_rounded_once(dtype: Any) -> None:
    x = np.full(100_000, 3.0, dtype)

    assert call(ops.mean, x) == 3.0  # the sum alone is beyond float16
    assert call(lambda v: ops.var(v), np.resize(np.array([250.0, -250.0], dtype), 4096)) == np.array(62500, dtype)
    assert call(ops.sum, np.ones(4099, dtype)) == np.array(4099, dtype)
    assert float(np.sum(call(ops.softmax, np.zeros(1024, dtype)).astype(np.float64))) == pytest.approx(1.0)
    assert call(ops.logsumexp, np.zeros(4096, dtype)) == np.log(4096.0).astype(dtype)
    normal = call(lambda v: norm.layer_norm(v, (4,)), np.array([1000.0, 1001, 1002, 1003], dtype) * np.array(16, dtype))
    assert np.isfinite(normal.astype(np.float64)).all() and normal.dtype == dtype


@pytest.mark.parametrize("f", [ops.prod, ops.cumulative_prod])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_gradients_of_long_16_bit_products_are_rounded_once(f: Callable[..., Value], dtype: Any) -> None:
    x = np.random.default_rng(0).uniform(0.99, 1.01, 3000).astype(dtype)

    (found,) = slopes(f, x)
    (exact,) = slopes(f, x.astype(np.float64))

    error = np.abs(found.astype(np.float64) - exact).max() / np.abs(exact).max()
    assert error <= float(ml_dtypes.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (np.bool_, "int64"),
        (np.int8, "int64"),
        (np.int64, "int64"),
        (np.uint8, "uint64"),
        (np.float16, "float16"),
        (np.float32, "float32"),
    ],
)
def test_sums_of_small_integers_have_64_bits(dtype: Any, wanted: str) -> None:
    x = np.ones(300, dtype)

    for f in (ops.sum, ops.prod, ops.cumulative_sum, ops.cumulative_prod):
        assert call(f, x).dtype.name == wanted
    assert call(ops.sum, x) == 300
    assert call(ops.count_nonzero, x).dtype == np.int64


def test_an_explicit_dtype_wins() -> None:
    from telegrad.ir import types as t

    assert call(lambda x: ops.sum(x, dtype=t.float32), np.ones(3, np.int32)).dtype == np.float32
    assert call(lambda x: ops.prod(x, dtype=t.int32), np.ones(3, np.int8)).dtype == np.int32


def test_integers_divide_and_have_means_as_float32() -> None:
    x = np.array([1, 2])

    for f in (ops.mean, lambda v: v / 2, ops.sqrt, ops.var, ops.softmax, ops.logsumexp):
        assert call(f, x).dtype == np.float32


def test_python_numbers_take_the_dtype_of_their_operand() -> None:
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        x = np.ones(2, dtype)
        for f in (lambda v: v * 2, lambda v: 1.5 - v, lambda v: v**2, lambda v: v**0.5, lambda v: ops.maximum(v, 0)):
            assert call(f, x).dtype == dtype


# ---- empty arrays


@pytest.mark.parametrize(
    "f",
    [
        ops.sum, ops.prod, lambda x: ops.mean(x, axis=1), lambda x: ops.cumulative_sum(x, axis=1), ops.softmax,
        lambda x: ops.log_softmax(x, axis=0), lambda x: ops.concat([x, x]), lambda x: x[1:], lambda x: x[:, 0],
        lambda x: ops.matmul(ops.matrix_transpose(x), x), lambda x: ops.tile(x, (2, 2)), ops.flip,
        lambda x: ops.sort(x, axis=0), lambda x: ops.roll(x, 1), lambda x: ops.repeat(x, 2),
        lambda x: ops.max(x, axis=1), lambda x: linalg.diagonal(x), lambda x: ops.std(x, axis=1),
        lambda x: ops.logsumexp(x, axis=1), lambda x: ops.pad(x, ((1, 1), (0, 0))), lambda x: ops.stack([x, x]),
    ],
)  # fmt: skip
def test_empty_arrays_have_values_and_gradients(f: Callable[[Value], Value]) -> None:
    check_gradients(f, [np.zeros((0, 3))], name="empty")


def test_a_sum_over_nothing_is_zero_and_a_mean_is_nan() -> None:
    assert (
        call(ops.sum, np.zeros(0)) == 0 and call(ops.prod, np.zeros(0)) == 1 and np.isnan(call(ops.mean, np.zeros(0)))
    )
