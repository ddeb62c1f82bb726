"""Sparse arrays: against SciPy and PyTorch, gradients to values and dense operands, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import AxisError, DTypeError, IndexRange, ShapeError, TraceError
from telegrad.sparse import Coo, coo

pytestmark = pytest.mark.usefixtures("session")

AT = np.array([[0, 1, 1, 2, 1], [2, 0, 2, 1, 2]])  # one place twice
VALUES = np.array([1.5, -2.0, 3.0, 0.5, 0.25])
DENSE = np.zeros((3, 4))
np.add.at(DENSE, tuple(AT), VALUES)
X = np.random.default_rng(1).normal(size=(4, 2))
Y = np.random.default_rng(2).normal(size=(5, 3))


def made() -> Coo[tg.Tensor]:
    return coo(AT, VALUES, (3, 4))


def test_a_sparse_array_is_what_stands_in_it() -> None:
    s = made()

    assert (s.shape, s.ndim, s.nnz, s.dtype) == ((3, 4), 2, 5, tg.float64)
    assert repr(s) == "<sparse float64[3,4] of 5 values>"
    np.testing.assert_array_equal(s.to_dense().numpy(), DENSE)
    np.testing.assert_array_equal(s.T.to_dense().numpy(), DENSE.T)
    np.testing.assert_array_equal((s * 2.0 + -s).to_dense().numpy(), DENSE)
    assert s.astype(tg.float32).dtype is tg.float32


def test_an_array_may_have_any_number_of_axes() -> None:
    at = np.array([[0, 1], [2, 0], [1, 1]])
    s = coo(at, [1.0, 2.0], (2, 3, 2))
    wanted = np.zeros((2, 3, 2))
    wanted[tuple(at)] = [1.0, 2.0]

    np.testing.assert_array_equal(s.to_dense().numpy(), wanted)
    np.testing.assert_array_equal(s.transpose((2, 0, -2)).to_dense().numpy(), wanted.transpose(2, 0, 1))
    assert coo([[0, 0]], [1, 2], (2,)).to_dense().tolist() == [3, 0]


@pytest.mark.parametrize(
    ("product", "wanted"),
    [
        (lambda s: s @ tg.asarray(X), DENSE @ X),
        (lambda s: s @ tg.asarray(X[:, 0]), DENSE @ X[:, 0]),
        (lambda s: tg.asarray(Y) @ s, Y @ DENSE),
        (lambda s: tg.asarray(Y[0]) @ s, Y[0] @ DENSE),
        (lambda s: s.T @ tg.asarray(Y.T), DENSE.T @ Y.T),
        (lambda s: s.coalesce() @ tg.asarray(X), DENSE @ X),
    ],
)
def test_products_with_dense_arrays(product: Callable[[Any], tg.Tensor], wanted: Any) -> None:
    np.testing.assert_allclose(product(made()).numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", [tg.float32, tg.float16, tg.bfloat16, tg.int32], ids=str)
def test_products_in_other_dtypes_round_once(dtype: tg.DType) -> None:
    values, x = tg.asarray(np.arange(1, 200), dtype=dtype), tg.ones((3, 2), dtype=dtype)
    s = coo(np.stack([np.zeros(199, np.int64), np.arange(199) % 3]), values, (2, 3))

    found = s @ x

    assert found.dtype is dtype
    assert found.astype(tg.float64).tolist() == [
        [tg.asarray(19900.0).astype(dtype).astype(tg.float64).item()] * 2,
        [0, 0],
    ]


def test_mixed_dtypes_are_promoted() -> None:
    assert (coo(AT, VALUES.astype(np.float32), (3, 4)) @ tg.asarray(X)).dtype is tg.float64


def test_a_large_product_is_made_in_pieces() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    at, values, x = rng.integers(0, 300, (2, 4000)), rng.normal(size=4000), rng.normal(size=(300, 40))

    found = coo(at, values, (300, 300)) @ tg.asarray(x)

    np.testing.assert_allclose(found.numpy(), sparse.coo_matrix((values, at), (300, 300)) @ x, rtol=1e-9, atol=1e-12)


def test_gradients_to_values_and_dense_operand_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    v, x = tg.asarray(VALUES).requires_grad_(), tg.asarray(X).requires_grad_()
    tv, tx = torch.tensor(VALUES, requires_grad=True), torch.tensor(X, requires_grad=True)

    ((coo(AT, v, (3, 4)) @ x) ** 2).sum().backward()
    matrix = torch.sparse_coo_tensor(torch.tensor(AT), tv, (3, 4), check_invariants=True)
    (torch.sparse.mm(matrix, tx) ** 2).sum().backward()

    assert v.grad is not None and x.grad is not None
    np.testing.assert_allclose(v.grad.numpy(), tv.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), tx.grad.numpy(), rtol=1e-12)


def test_gradients_of_the_dense_form_and_of_coalescing_are_picked_at_the_places() -> None:
    weight = tg.asarray(np.arange(12.0).reshape(3, 4))
    picked = np.arange(12.0).reshape(3, 4)[tuple(AT)]

    for dense in (lambda s: s.to_dense(), lambda s: s.coalesce().to_dense(), lambda s: s.T.to_dense().T):
        v = tg.asarray(VALUES).requires_grad_()
        (dense(coo(AT, v, (3, 4))) * weight).sum().backward()
        assert v.grad is not None
        np.testing.assert_array_equal(v.grad.numpy(), picked)


def test_coalescing_leaves_each_place_once_in_order() -> None:
    s = made().coalesce()

    assert s.indices.tolist() == [[0, 1, 1, 2], [2, 0, 2, 1]]
    assert s.values.tolist() == [1.5, -2.0, 3.25, 0.5]
    np.testing.assert_array_equal(tg.sparse.from_dense(tg.asarray(DENSE)).indices.numpy(), s.indices.numpy())


def test_a_traced_function_takes_and_returns_sparse_arrays() -> None:
    @tg.function
    def step(s: Coo[tg.Tensor], x: tg.Tensor) -> Any:
        return s @ x, s.T, s.coalesce(size=6).to_dense()

    y, transposed, dense = step(made(), tg.asarray(X))
    step(made() * 2.0, tg.asarray(X))

    assert step.traces == 1
    np.testing.assert_allclose(y.numpy(), DENSE @ X, rtol=1e-12)
    np.testing.assert_array_equal(transposed.to_dense().numpy(), DENSE.T)
    np.testing.assert_array_equal(dense.numpy(), DENSE)
    with pytest.raises(TraceError, match="size="):
        tg.function(lambda s: s.coalesce())(made())


@pytest.mark.parametrize("at", [[[0, 3], [0, 0]], [[0, 0], [0, 4]], [[0, -1], [0, 0]]], ids=str)
def test_a_place_outside_is_an_index_range(at: Any) -> None:
    s = coo(at, [1.0, 2.0], (3, 4))

    for use in (lambda: s @ tg.ones(4), lambda: s.T @ tg.ones(3), s.to_dense):
        with pytest.raises(IndexRange):
            use().numpy()


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: coo(AT, VALUES[:4], (3, 4)), ShapeError, r"need indices of shape \[2, 4\], not \[2, 5\]"),
        (lambda: coo(AT, VALUES, (3, 4, 2)), ShapeError, r"need indices of shape \[3, 5\]"),
        (lambda: coo(AT + 0.5, VALUES, (3, 4)), DTypeError, "must be integers"),
        (lambda: coo(AT, VALUES > 0, (3, 4)), ShapeError, "a vector of numbers"),
        (lambda: coo(AT[0], VALUES, ()), ShapeError, "at least one axis"),
        (lambda: coo(AT, VALUES, (-3, 4)), ShapeError, "negative size"),
        (lambda: made() @ tg.ones(3), ShapeError, "inner sizes must be equal"),
        (lambda: tg.ones(4) @ made(), ShapeError, "inner sizes must be equal"),
        (lambda: made() @ X, DTypeError, "with a tensor, not with ndarray"),
        (lambda: made() * tg.ones(2), ShapeError, "with one number"),
        (lambda: made() + made().T, ShapeError, "one of the same shape"),
        (lambda: made().transpose((0, 0)), AxisError, "is no order of 2 axes"),
        (lambda: coo([[0]], [1.0], (2,)).T, ShapeError, "takes a sparse matrix"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        wrong()
