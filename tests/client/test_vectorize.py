"""vmap, jacobian, hessian: in a trace and outside, composed with each other and with every other transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn
from telegrad.errors import AxisError, DTypeError, GraphError, ShapeError, TraceError

pytestmark = pytest.mark.usefixtures("session")

RANDOM = np.random.default_rng(3)
W, X = RANDOM.normal(size=(3, 4)), RANDOM.normal(size=(5, 3))


@pytest.fixture(params=["eager", "traced"])
def mode(request: pytest.FixtureRequest) -> Any:
    return tg.function if request.param == "traced" else lambda f: f


def loss(w: tg.Tensor, x: tg.Tensor) -> tg.Tensor:
    return (tg.tanh(x @ w) ** 2).sum()


def test_gradients_of_each_example(mode: Any) -> None:
    w, x = tg.asarray(W), tg.asarray(X)

    found = mode(tg.vmap(tg.grad(loss), in_axes=(None, 0)))(w, x)

    assert found.shape == (5, 3, 4)
    for i in range(5):
        np.testing.assert_allclose(found.numpy()[i], tg.grad(loss)(w, x[i]).numpy(), rtol=1e-13)


def test_axes_and_nests(mode: Any) -> None:
    def f(p: dict[str, tg.Tensor], y: tg.Tensor) -> Any:
        return {"sum": p["a"] + p["b"] + y, "b": p["b"]}, y.sum()

    g = tg.vmap(f, in_axes=({"a": 1, "b": None}, -1), out_axes=({"sum": -1, "b": None}, 0))
    a, b, y = RANDOM.normal(size=(2, 5)), RANDOM.normal(size=2), RANDOM.normal(size=(2, 5))

    found, sums = mode(g)({"a": tg.asarray(a), "b": tg.asarray(b)}, tg.asarray(y))

    np.testing.assert_allclose(found["sum"].numpy(), a + b[:, None] + y)
    np.testing.assert_allclose(sums.numpy(), y.sum(0))
    assert found["b"].shape == (2,)


def test_results_that_no_example_changes_are_repeated() -> None:
    same, number = tg.vmap(lambda x: (tg.ones(2), x.sum() * 0 + 1))(tg.zeros((3, 2)))

    assert (same.shape, number.tolist()) == ((3, 2), [1.0, 1.0, 1.0])
    assert tg.vmap(lambda: tg.ones(2), axis_size=4)().shape == (4, 2)
    assert tg.vmap(lambda x, scale: x * scale, in_axes=0)(tg.ones(3), scale=tg.arange(3)).tolist() == [0.0, 1.0, 2.0]


def test_vmap_of_vmap_and_of_loops(mode: Any) -> None:
    outer = tg.vmap(tg.vmap(lambda x, y: x * y, in_axes=(None, 0)), in_axes=(0, None))
    x, y = RANDOM.normal(size=3), RANDOM.normal(size=4)
    np.testing.assert_allclose(mode(outer)(tg.asarray(x), tg.asarray(y)).numpy(), np.outer(x, y))

    def newton(a: tg.Tensor) -> tg.Tensor:
        return tg.while_loop(
            lambda r: tg.abs(r * r - a) > 1e-12, lambda r: 0.5 * (r + a / r), tg.ones_like(a), max_trips=40
        )

    a = np.array([1.5, 4.0, 2.0, 100.0])
    np.testing.assert_allclose(mode(tg.vmap(newton))(tg.asarray(a)).numpy(), np.sqrt(a), rtol=1e-10)
    np.testing.assert_allclose(mode(tg.vmap(tg.grad(newton)))(tg.asarray(a)).numpy(), 0.5 / np.sqrt(a), rtol=1e-6)
    sums = tg.vmap(lambda x: tg.scan(lambda c, s: (c + s, c), tg.zeros((), dtype=tg.float64), x), in_axes=1)
    np.testing.assert_allclose(mode(sums)(tg.asarray(X))[0].numpy(), X.sum(0))
    either = tg.vmap(lambda x: tg.cond(x.sum() > 0, lambda x: x, lambda x: -2 * x, x))
    np.testing.assert_allclose(
        mode(either)(tg.asarray(X)).numpy(), np.where(X.sum(1, keepdims=True) > 0, X, -2 * X), rtol=1e-12
    )


def test_a_gradient_goes_through_vmap(mode: Any) -> None:
    f = tg.vmap(loss, in_axes=(None, 0))
    w, x = tg.asarray(W), tg.asarray(X)

    found = mode(tg.grad(lambda w: (f(w, x) ** 2).sum()))(w)
    wanted = tg.grad(lambda w: sum((loss(w, x[i]) ** 2 for i in range(5)), tg.zeros((), dtype=tg.float64)))(w)

    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-12)


def test_modules_and_backward() -> None:
    layer = nn.Linear(3, 2, dtype=tg.float64)
    x = tg.asarray(X)

    tg.vmap(lambda x: (layer(x) ** 2).sum())(x).sum().backward()

    assert layer.weight.grad is not None
    by_hand = 2 * (X @ layer.weight.numpy().T + layer.bias.numpy()).T @ X
    np.testing.assert_allclose(layer.weight.grad.numpy(), by_hand, rtol=1e-12)


def test_every_example_draws_its_own_numbers_and_a_jacobian_the_same(mode: Any) -> None:
    drawn = mode(tg.vmap(lambda x: x + tg.random.uniform((4,)), in_axes=0))(tg.zeros((6, 4))).numpy()
    assert len(np.unique(drawn)) == 24

    jacobian = mode(tg.jacobian(lambda x: nn.functional.dropout(x * tg.ones(50), 0.5)))(tg.asarray(1.0)).numpy()
    assert set(np.unique(jacobian)) == {0.0, 2.0}


def test_jacobian_of_nests(mode: Any) -> None:
    def f(p: dict[str, tg.Tensor], x: tg.Tensor) -> Any:
        return [tg.sin(p["a"]) * x, (p["b"] * x).sum()], x

    a, b, x = (RANDOM.normal(size=3) for _ in range(3))
    args = ({"a": tg.asarray(a), "b": tg.asarray(b)}, tg.asarray(x))

    (rows, total), aux = mode(tg.jacobian(f, argnums=(0, 1), has_aux=True))(*args)

    np.testing.assert_allclose(rows[0]["a"].numpy(), np.diag(np.cos(a) * x))
    np.testing.assert_allclose(rows[0]["b"].numpy(), np.zeros((3, 3)))
    np.testing.assert_allclose(rows[1].numpy(), np.diag(np.sin(a)))
    np.testing.assert_allclose(total[0]["b"].numpy(), x)
    np.testing.assert_allclose(total[1].numpy(), b)
    np.testing.assert_allclose(aux.numpy(), x)


def test_hessian_and_what_it_composes_with(mode: Any) -> None:
    def f(x: tg.Tensor) -> tg.Tensor:
        return (x**3).sum() + x[0] * x[1]

    x = RANDOM.normal(size=(4, 2))

    found = mode(tg.vmap(tg.hessian(f)))(tg.asarray(x)).numpy()
    third = mode(tg.jacobian(tg.hessian(f)))(tg.asarray(x[0])).numpy()
    by_checkpoint = mode(tg.hessian(tg.checkpoint(f)))(tg.asarray(x[0])).numpy()

    for row, matrix in zip(x, found, strict=True):
        np.testing.assert_allclose(matrix, [[6 * row[0], 1], [1, 6 * row[1]]], rtol=1e-12)
    np.testing.assert_allclose(third, 6 * np.eye(2)[:, :, None] * np.eye(2)[:, None, :], atol=1e-12)
    np.testing.assert_allclose(by_checkpoint, found[0], rtol=1e-12)


def test_a_jacobian_with_two_arguments_is_a_hessian_of_blocks() -> None:
    x, y = tg.asarray(X[0]), tg.asarray(X[1])

    blocks = tg.hessian(lambda x, y: (x * x * y).sum(), argnums=(0, 1))(x, y)

    np.testing.assert_allclose(blocks[0][0].numpy(), np.diag(2 * X[1]))
    np.testing.assert_allclose(blocks[0][1].numpy(), np.diag(2 * X[0]))
    np.testing.assert_allclose(blocks[1][1].numpy(), np.zeros((3, 3)))


def test_custom_rules_on_a_batch(mode: Any) -> None:
    @tg.custom_vjp
    def clipped(x: tg.Tensor) -> tg.Tensor:
        return x * 1

    clipped.defvjp(lambda x: (x * 1, None), lambda _, g: (tg.clip(g, -1.0, 1.0),))

    found = mode(tg.vmap(tg.grad(lambda x: (clipped(x) * tg.asarray([0.5, 3.0])).sum())))(tg.ones((3, 2)))

    assert found.tolist() == [[0.5, 1.0]] * 3


def test_no_gradient_inside_a_body() -> None:
    def f(x: tg.Tensor) -> tg.Tensor:
        with tg.no_grad():
            scale = (x * x).sum()
        return (x * scale).sum()

    x = tg.asarray([1.0, 2.0])
    x.requires_grad = True
    tg.checkpoint(f)(x).backward()

    assert x.grad is not None
    assert x.grad.tolist() == [5.0, 5.0]


# ---- refusals


def test_what_vmap_refuses() -> None:
    with pytest.raises(ShapeError, match=r"must have one size, not \[3, 4\]"):
        tg.vmap(lambda x, y: x)(tg.zeros(3), tg.zeros(4))
    with pytest.raises(GraphError, match="at least one argument"):
        tg.vmap(lambda x: x, in_axes=None)(tg.zeros(3))
    with pytest.raises(GraphError, match="names 2 arguments of 1"):
        tg.vmap(lambda x: x, in_axes=(0, 0))(tg.zeros(3))
    with pytest.raises(AxisError):
        tg.vmap(lambda x: x, in_axes=1)(tg.zeros(3))
    with pytest.raises(AxisError):
        tg.vmap(lambda x: x)(tg.asarray(1.0))
    with pytest.raises(GraphError, match="differs from example to example"):
        tg.vmap(lambda x: x, out_axes=None)(tg.zeros(3))
    with pytest.raises(GraphError, match="does not have the nest"):
        tg.vmap(lambda x: x, in_axes=({"a": 0},))(tg.zeros(3))
    with pytest.raises(DTypeError, match="jacobian"):
        tg.jacobian(lambda x: x > 0)(tg.zeros(3))


def test_a_pullback_from_outside_is_not_called_in_a_body() -> None:
    _, pullback = tg.vjp(lambda x: x * x, tg.asarray([1.0, 2.0]))

    with pytest.raises(TraceError, match="made outside"):
        tg.vmap(lambda g: pullback(g)[0])(tg.ones((3, 2)))
