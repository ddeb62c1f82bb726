"""Cross-entropy beside PyTorch's rows in `test_against_torch`: labels that are no class, ignored rows, dtypes, cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from telegrad import ops
from telegrad.autodiff import gradient
from telegrad.errors import IndexRange
from telegrad.ir import Value, topological
from telegrad.ops.cross_entropy import SoftmaxCrossEntropy, cross_entropy, nll_loss

from tests.ops.checks import Array, call, check_gradients, evaluate, generator, inputs_for

LOGITS = generator("logits").normal(size=(5, 4))
LABELS = np.array([0, 3, 2, 1, 1])
LOSSES: list[Callable[..., Value]] = [cross_entropy, lambda x, y: nll_loss(ops.log_softmax(x, axis=1), y)]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("label", [4, -1, -4, -99, 2**40])
def test_a_label_that_is_no_class_is_an_error(loss: Callable[..., Value], label: int) -> None:
    with pytest.raises(IndexRange, match=f"index {label} is out of range for an axis of size 4"):
        call(loss, LOGITS, np.array([0, 1, label, 2, 3]))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, np.uint64])
def test_labels_may_have_any_integer_dtype(loss: Callable[..., Value], dtype: Any) -> None:
    assert call(loss, LOGITS, LABELS.astype(dtype)) == call(loss, LOGITS, LABELS)


def test_an_ignored_row_counts_for_nothing_even_if_it_is_infinite() -> None:
    x = LOGITS.copy()
    x[2] = [-np.inf, 0.0, np.inf, 1.0]
    labels = np.array([0, 3, -100, 1, 1])
    rest = [0, 1, 3, 4]

    assert call(cross_entropy, x, labels) == pytest.approx(call(cross_entropy, LOGITS[rest], LABELS[rest]))


def test_with_every_row_ignored_the_mean_is_nan_and_the_sum_zero() -> None:
    labels = np.full(5, -100)

    assert np.isnan(call(cross_entropy, LOGITS, labels))
    assert call(lambda x, y: cross_entropy(x, y, reduction="sum"), LOGITS, labels) == 0.0


def test_large_logits_do_not_overflow() -> None:
    x = np.array([[1e4, 0.0, -1e4]])

    assert call(cross_entropy, x, np.array([0])) == 0.0
    assert call(cross_entropy, x, np.array([2])) == 2e4
    assert call(cross_entropy, np.array([[-np.inf, 0.0]]), np.array([1])) == 0.0


def _slope(x: Array) -> Array:
    v, y = inputs_for([x, LABELS])
    loss = cross_entropy(v, y)
    (g,) = gradient([loss], [ops.ones_like(loss)], [v])
    return evaluate([g], {v: x, y: LABELS})[0]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_logits_keep_the_precision_of_float32_inside(dtype: Any) -> None:
    x = (LOGITS * 10).astype(dtype)
    exact = x.astype(np.float64)
    rounding = float(ml_dtypes.finfo(dtype).eps)

    found, slope = call(cross_entropy, x, LABELS), _slope(x)

    assert found.dtype == dtype and slope.dtype == dtype
    np.testing.assert_allclose(found.astype(np.float64), call(cross_entropy, exact, LABELS), rtol=rounding)
    np.testing.assert_allclose(slope.astype(np.float64), _slope(exact), rtol=2 * rounding, atol=rounding / 100)


def test_smoothing_and_weights_differentiate_in_the_weights_too() -> None:
    weights = np.array([0.5, 0.0, 2.0, 1.0])
    labels = np.array([0, 3, -100, 1, 2])

    check_gradients(
        lambda x, y, w: cross_entropy(x, y, w, label_smoothing=0.1), [LOGITS, labels, weights], name="weights"
    )


def test_the_backward_holds_no_second_softmax() -> None:
    x, y = inputs_for([LOGITS, LABELS])
    loss = cross_entropy(x, y)
    (g,) = gradient([loss], [ops.ones_like(loss)], [x])

    wide = [n.op.name for n in topological([g]) if n.types[0].shape == LOGITS.shape and n.types[0].dtype.is_float]

    assert wide.count("exp") == 1 and not {"softmax", "log_softmax", "add_along"} & set(wide)
    assert any(isinstance(n.op, SoftmaxCrossEntropy) for n in topological([g]))
