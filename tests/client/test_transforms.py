"""grad, value_and_grad, vjp, jvp, checkpoint, custom_vjp: in a trace and outside, composed, to second order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import DTypeError, GraphError, ShapeError

pytestmark = pytest.mark.usefixtures("session")


@pytest.fixture(params=["eager", "traced"])
def mode(request: pytest.FixtureRequest) -> Any:
    return tg.function if request.param == "traced" else lambda f: f


def vector(*numbers: float) -> tg.Tensor:
    return tg.asarray(np.array(numbers, dtype=np.float64))


def test_grad_of_a_scalar_function(mode: Any) -> None:
    g = mode(tg.grad(lambda x: (x * x * x).sum()))

    np.testing.assert_allclose(g(vector(1, 2)).numpy(), [3, 12])


def test_grad_of_grad(mode: Any) -> None:
    g = mode(tg.grad(lambda x: tg.grad(lambda y: (y**4).sum())(x).sum()))

    np.testing.assert_allclose(g(vector(1, 2)).numpy(), [12, 48])


def test_value_and_grad_with_aux_and_argnums(mode: Any) -> None:
    f = tg.value_and_grad(lambda x, y: ((x * y).sum(), {"y": y}), argnums=(0, 1), has_aux=True)

    (value, aux), (gx, gy) = mode(f)(vector(1, 2), vector(3, 4))

    assert (value.item(), aux["y"].tolist()) == (11, [3, 4])
    assert (gx.tolist(), gy.tolist()) == ([3, 4], [1, 2])


def test_grad_of_a_nest(mode: Any) -> None:
    g = mode(tg.grad(lambda p: (p["w"] * p["b"][0]).sum()))({"w": vector(1, 2), "b": [vector(3, 4)]})

    assert g["w"].tolist() == [3, 4]
    assert g["b"][0].tolist() == [1, 2]


def test_only_uses_through_the_argument_count(mode: Any) -> None:
    x = vector(2, 3)

    g = mode(tg.grad(lambda y: (x * y).sum()))(x)

    assert g.tolist() == [2, 3]


def test_grad_works_when_the_function_reads_on_the_way() -> None:
    def f(x: tg.Tensor) -> tg.Tensor:
        y = x * x
        y.numpy()
        return (y * x).sum()

    np.testing.assert_allclose(tg.grad(f)(vector(1, 2)).numpy(), [3, 12])


def test_vjp_pulls_back_after_the_result_was_read() -> None:
    y, pullback = tg.vjp(lambda x: tg.sin(x), vector(0.5))

    np.testing.assert_allclose(y.numpy(), np.sin([0.5]))
    np.testing.assert_allclose(pullback(vector(2.0))[0].numpy(), 2 * np.cos([0.5]))
    np.testing.assert_allclose(pullback(vector(3.0))[0].numpy(), 3 * np.cos([0.5]))


def test_jvp_is_the_derivative_in_a_direction(mode: Any) -> None:
    x, v = np.array([0.3, -1.2]), np.array([2.0, -0.5])

    def both(x: tg.Tensor, v: tg.Tensor) -> Any:
        return tg.jvp(lambda p: {"sin": tg.sin(p), "square": p * p, "place": p.argmax()}, (x,), (v,))

    value, derivative = mode(both)(tg.asarray(x), tg.asarray(v))

    np.testing.assert_allclose(value["sin"].numpy(), np.sin(x))
    np.testing.assert_allclose(derivative["sin"].numpy(), np.cos(x) * v)
    np.testing.assert_allclose(derivative["square"].numpy(), 2 * x * v)
    assert derivative["place"].item() == 0


def test_jvp_of_grad_is_a_product_with_the_hessian(mode: Any) -> None:
    rng = np.random.default_rng(0)
    a, x, v = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)

    def loss(x: tg.Tensor) -> tg.Tensor:
        return (tg.exp(tg.asarray(a) @ x) * x).sum()

    product = mode(lambda x, v: tg.jvp(tg.grad(loss), (x,), (v,))[1])(tg.asarray(x), tg.asarray(v)).numpy()
    eps = 1e-6
    ahead, behind = (tg.grad(loss)(tg.asarray(x + s * eps * v)).numpy() for s in (1, -1))
    np.testing.assert_allclose(product, (ahead - behind) / (2 * eps), rtol=1e-6)
    third = tg.grad(lambda x: tg.jvp(tg.grad(loss), (x,), (tg.asarray(v),))[1].sum())(tg.asarray(x)).numpy()
    hvp = [tg.jvp(tg.grad(loss), (tg.asarray(y),), (tg.asarray(v),))[1].sum().item() for y in x + eps * np.eye(3)]
    base = tg.jvp(tg.grad(loss), (tg.asarray(x),), (tg.asarray(v),))[1].sum().item()
    np.testing.assert_allclose(third, (np.array(hvp) - base) / eps, rtol=1e-3, atol=1e-3)


def test_jvp_of_several_primals_with_aux_and_its_refusals() -> None:
    value, derivative, aux = tg.jvp(
        lambda x, y: (x * y, "aux"), (vector(2, 3), vector(5, 7)), (vector(1, 0), vector(0, 1)), has_aux=True
    )
    assert (value.tolist(), derivative.tolist(), aux) == ([10, 21], [5, 3], "aux")
    with pytest.raises(GraphError, match="one for each"):
        tg.jvp(lambda x: x, (vector(1),), ())
    with pytest.raises(ShapeError):
        tg.jvp(lambda x: x, (vector(1),), (vector(1, 2),))
    with pytest.raises(DTypeError, match="floating-point"):
        tg.jvp(lambda x: x, (tg.asarray([1]),), (tg.asarray([1]),))


def test_grad_wants_a_scalar_and_floats() -> None:
    with pytest.raises(ShapeError, match="scalar"):
        tg.grad(lambda x: x)(vector(1, 2))
    with pytest.raises(DTypeError, match="floating-point"):
        tg.grad(lambda x: x.sum())(tg.asarray([1, 2]))


def test_checkpoint_changes_no_bit_and_no_gradient(mode: Any) -> None:
    w = vector(0.3, 0.7)

    def block(x: tg.Tensor) -> tg.Tensor:
        return tg.tanh(x * w) * tg.exp(x) + 1.5

    plain = mode(tg.value_and_grad(lambda x: block(block(x)).sum()))(vector(1, 2))
    again = mode(tg.value_and_grad(lambda x: tg.checkpoint(block)(tg.checkpoint(block)(x)).sum()))(vector(1, 2))

    assert plain[0].item() == again[0].item()
    np.testing.assert_array_equal(plain[1].numpy(), again[1].numpy())


def test_checkpoint_gives_gradients_to_what_it_uses_from_outside(mode: Any) -> None:
    w = tg.Parameter(np.array([2.0, 3.0]))

    def f(x: tg.Tensor) -> None:
        tg.checkpoint(lambda y: y * w * w)(x).sum().backward()

    mode(f)(vector(1, 1))

    assert w.grad is not None and w.grad.tolist() == [4, 6]


def test_checkpoint_repeats_its_random_numbers(mode: Any) -> None:
    def f(x: tg.Tensor) -> Any:
        return tg.checkpoint(lambda y: y * y * (tg.random.uniform((64,)) < 0.5))(x).sum()

    x = tg.asarray(np.full(64, 3.0))
    value, g = mode(tg.value_and_grad(f))(x)

    assert g.numpy().sum() * 3 / 2 == value.item()


def test_checkpoint_to_second_order(mode: Any) -> None:
    g = mode(tg.grad(lambda x: tg.grad(lambda y: tg.checkpoint(lambda z: z**4)(y).sum())(x).sum()))

    np.testing.assert_allclose(g(vector(1, 2)).numpy(), [12, 48])


def test_custom_vjp_replaces_the_derivative(mode: Any) -> None:
    @tg.custom_vjp
    def double(x: tg.Tensor) -> tg.Tensor:
        return x * 2

    double.defvjp(lambda x: (x * 2, x), lambda x, g: (g * x * 100,))

    value, g = mode(tg.value_and_grad(lambda x: double(x).sum()))(vector(1, 2))

    assert (value.item(), g.tolist()) == (6, [100, 200])


def test_custom_vjp_to_second_order_and_with_none(mode: Any) -> None:
    @tg.custom_vjp
    def cube(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        return x * x * x

    cube.defvjp(lambda x, y: (x * x * x, x), lambda x, g: (g * 3 * x * x, None))
    g = mode(tg.grad(lambda x: tg.grad(lambda z: cube(z, z).sum())(x).sum()))

    np.testing.assert_allclose(g(vector(1, 2)).numpy(), [6, 12])


def test_custom_vjp_checks_its_rule() -> None:
    @tg.custom_vjp
    def f(x: tg.Tensor) -> tg.Tensor:
        return x

    with pytest.raises(GraphError, match="defvjp"):
        f(vector(1))
    f.defvjp(lambda x: (x, None), lambda _, g: (g.sum(),))
    with pytest.raises(ShapeError, match="as the gradient of"):
        f(vector(1, 2))
