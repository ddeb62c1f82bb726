"""What lamp has a class for and Python, a subclass of `nn.Module` or a few lines have not; each with its numbers.

lamp (github.com/pityka/lamp) is typed Scala: it needs modules to apply a function, to share weights, to thread a state
through a sequence. `docs/lamp-parity.md` names these tests where they are our answer to one of its classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import models, nn
from telegrad.nn import functional as F
from telegrad.optim import lr_scheduler as s

Array = Any


@pytest.fixture(autouse=True)
def session() -> Iterator[tg.Session]:
    """The embedded worker: what is compared here does not depend on the connection."""
    with tg.connect(backend="numpy", new=True) as session:
        yield session


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def linear(inputs: int, outputs: int, *, seed: int = 0) -> tuple[nn.Linear, Array, Array]:
    """A layer with its weight and bias."""
    layer = nn.Linear(inputs, outputs, dtype=tg.float64)
    w, b = numbers(outputs, inputs, seed=seed), numbers(outputs, seed=seed + 1)
    layer.load_state_dict({"weight": w, "bias": b})
    return layer, w, b


def close(found: tg.Tensor, wanted: Array) -> None:
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12, atol=1e-14)


# ---- layers


@pytest.mark.parametrize("lead", [(4,), (5, 4), ()], ids=["batch", "time and batch", "one"])
def test_linear_contracts_the_last_axis(lead: tuple[int, ...]) -> None:
    layer, w, b = linear(3, 2)
    x = numbers(*lead, 3, seed=3)
    g = numbers(*lead, 2, seed=4)

    y = layer(tg.asarray(x))
    (y * tg.asarray(g)).sum().backward()

    close(y, x @ w.T + b)
    rows = x.reshape(-1, 3), g.reshape(-1, 2)
    close(layer.weight.grad, rows[1].T @ rows[0])  # type: ignore[arg-type]
    close(layer.bias.grad, rows[1].sum(0))  # type: ignore[union-attr, arg-type]


def test_layer_norm_has_mean_0_and_variance_1_before_its_scale() -> None:
    layer = nn.LayerNorm(5, dtype=tg.float64)
    scale, shift = numbers(5, seed=1), numbers(5, seed=2)
    layer.load_state_dict({"weight": scale, "bias": shift})
    x = numbers(3, 5)

    y = layer(tg.asarray(x))

    normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + layer.eps)
    close(y, normal * scale + shift)


def test_dropout_is_off_in_evaluation_and_scales_what_it_keeps() -> None:
    layer = nn.Dropout(0.25)
    x = tg.ones((1000,), dtype=tg.float64)

    kept = layer(x).numpy()

    np.testing.assert_allclose(np.unique(kept), [0.0, 4 / 3], rtol=1e-6)
    assert abs((kept == 0).mean() - 0.25) < 0.06
    close(layer.eval()(x), np.ones(1000))


def test_the_columns_of_a_weight_have_a_length_of_their_own() -> None:
    layer = nn.utils.weight_norm(nn.Linear(3, 2, dtype=tg.float64), dim=1)
    v, lengths, b = numbers(2, 3), numbers(1, 3, seed=1), numbers(2, seed=2)
    layer.load_state_dict({"weight_v": v, "weight_g": lengths, "bias": b})
    x, g = numbers(4, 3, seed=3), numbers(4, 2, seed=4)

    y = layer(tg.asarray(x))
    (y * tg.asarray(g)).sum().backward()

    directions = v / np.sqrt((v**2).sum(0))
    close(y, x @ (lengths * directions).T + b)
    close(dict(layer.named_parameters())["weight_g"].grad, ((g.T @ x) * directions).sum(0, keepdims=True))  # type: ignore[arg-type]


def test_a_perceptron_with_a_norm_at_its_end_is_two_modules() -> None:
    norm = partial(nn.LayerNorm, elementwise_affine=False, dtype=tg.float64)
    inner = models.MLP(3, [5, 4, 2], norm, bias=False, dtype=tg.float64)
    x = numbers(6, 3)

    y = nn.Sequential(inner, norm(2))(tg.asarray(x))

    def normal(x: Array) -> Array:
        return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)

    for i, w in enumerate(inner.state_dict().values()):
        x = normal(x @ w.T)
        x = x if i == 2 else np.maximum(x, 0)
    close(y, x)


# ---- combinators


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return x + self.inner(x)


def test_a_residual_module_adds_its_input() -> None:
    layer, w, b = linear(3, 3)
    x = numbers(2, 3, seed=5)

    close(Residual(layer)(tg.asarray(x)), x + x @ w.T + b)


def test_a_sequence_applies_its_modules_in_order() -> None:
    (first, w, b), (second, v, c) = linear(3, 4), linear(4, 2, seed=7)
    x = numbers(2, 3, seed=5)

    close(nn.Sequential(first, nn.Tanh(), second)(tg.asarray(x)), np.tanh(x @ w.T + b) @ v.T + c)


class Recursive(nn.Module):
    def __init__(self, inner: nn.Module, times: int) -> None:
        super().__init__()
        self.inner, self.times = inner, times

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        for _ in range(self.times):
            x = self.inner(x)
        return x


def test_a_recursive_module_shares_its_weights() -> None:
    layer, w, b = linear(2, 2)
    x = numbers(1, 2, seed=5)

    y = Recursive(layer, 3)(tg.asarray(x))
    y.sum().backward()

    ones, wanted, once = np.ones((1, 2)), np.zeros((2, 2)), [x]
    for _ in range(3):
        once.append(once[-1] @ w.T + b)
    close(y, once[3])
    for before in reversed(once[:3]):  # every use adds its part
        wanted, ones = wanted + ones.T @ before, ones @ w
    close(layer.weight.grad, wanted)  # type: ignore[arg-type]


class Apply(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def test_a_function_is_a_module_in_three_lines() -> None:
    layer, w, b = linear(3, 2)
    x = numbers(2, 3)

    close(nn.Sequential(layer, Apply(tg.exp))(tg.asarray(x)), np.exp(x @ w.T + b))


def test_a_module_may_also_return_a_function_of_its_input_and_output() -> None:
    layer, w, b = linear(3, 3)
    x = numbers(2, 3)

    def wrapped(x: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        y = layer(x)
        return y, ((x - y) ** 2).sum()

    y, penalty = Apply(wrapped)(tg.asarray(x))

    close(y, x @ w.T + b)
    close(penalty, ((x - x @ w.T - b) ** 2).sum())


@pytest.mark.parametrize("is_left", [True, False])
def test_one_of_two_modules_is_chosen_by_an_if(is_left: bool) -> None:
    (left, w, b), (right, v, c) = linear(3, 2), linear(3, 2, seed=7)
    x = numbers(2, 3)

    close((left if is_left else right)(tg.asarray(x)), x @ w.T + b if is_left else x @ v.T + c)


def test_the_shape_is_known_without_running() -> None:
    seen: list[tuple[int, ...]] = []

    @tg.function
    def peek(x: tg.Tensor) -> tg.Tensor:
        seen.append(x.shape)
        return x * 2

    peek(tg.asarray(numbers(2, 3)))

    assert seen == [(2, 3)]


@pytest.mark.parametrize(
    ("scale", "is_nan", "is_big"), [(1.0, False, False), (1e9, False, True), (np.nan, True, False)]
)
def test_the_gradient_at_an_inner_value_is_that_of_a_zero_added_there(scale: float, is_nan: bool, is_big: bool) -> None:
    (first, w, b), (second, v, _) = linear(3, 4), linear(4, 2, seed=7)
    x = numbers(5, 3, seed=3)

    @tg.function
    def step(x: tg.Tensor, scale: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor, tg.Tensor, tg.Tensor]:
        watch = tg.zeros((5, 4), dtype=tg.float64).requires_grad_()
        loss = (second(tg.tanh(first(x) + watch)) * scale).sum()
        loss.backward()  # of the weights and of the inner value at once
        g, of_weight = watch.grad, first.weight.grad
        assert g is not None and of_weight is not None
        return g, of_weight, tg.isnan(g).any(), (g >= 1e6).any()

    g, of_weight, found_nan, found_big = step(tg.asarray(x), tg.asarray(scale))

    wanted = scale * v.sum(0) * (1 - np.tanh(x @ w.T + b) ** 2)
    close(g, wanted)
    close(of_weight, wanted.T @ x)
    assert (bool(found_nan), bool(found_big)) == (is_nan, is_big)


def test_a_transform_gives_the_gradient_at_an_inner_value() -> None:
    x = numbers(4)

    def loss(watch: tg.Tensor) -> tg.Tensor:
        return tg.sin(tg.asarray(x) ** 2 + watch).sum()

    close(tg.grad(loss)(tg.zeros(4, dtype=tg.float64)), np.cos(x**2))


class Steps(nn.Module):
    """Cells one upon the other, each with its state: lamp's sequences of modules with a state."""

    def __init__(self, *cells: nn.Module) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)

    def forward(self, x: tg.Tensor, states: list[Any]) -> tuple[tg.Tensor, list[Any]]:
        found: list[Any] = []
        for cell, state in zip(self.cells, states, strict=True):
            state = cell(x, state)
            x = state[0] if isinstance(state, tuple) else state
            found.append(state)
        return x, found


def test_a_sequence_threads_the_states_of_its_modules() -> None:
    first, second = nn.GRUCell(3, 4, dtype=tg.float64), nn.LSTMCell(4, 2, dtype=tg.float64)
    x, h = tg.asarray(numbers(5, 3)), tg.asarray(numbers(5, 4, seed=1))
    state = (tg.asarray(numbers(5, 2, seed=2)), tg.asarray(numbers(5, 2, seed=3)))

    y, states = Steps(first, second)(x, [h, state])

    middle = first(x, h)
    wanted = second(middle, state)
    close(states[0], middle.numpy())
    close(y, wanted[0].numpy())
    close(states[1][1], wanted[1].numpy())


def recurrent(name: str, inputs: int, hidden: int, *, seed: int) -> Any:
    layer = getattr(nn, name)(inputs, hidden, dtype=tg.float64)
    layer.load_state_dict({key: numbers(*value.shape, seed=seed) for key, value in layer.state_dict().items()})
    return layer


def test_a_layer_may_begin_with_a_state_of_its_own() -> None:
    layer, start = recurrent("GRU", 3, 4, seed=1), tg.Parameter(numbers(1, 2, 4, seed=2))
    x = tg.asarray(numbers(5, 2, 3))

    y, last = layer(x, start)
    (y**2).sum().backward()
    first, middle = layer(x[:2], start)
    rest, end = layer(x[2:], middle)

    close(tg.concat([first, rest], axis=0), y.numpy())
    close(end, last.numpy())
    assert start.grad is not None and (start.grad.numpy() != 0).all()


def test_the_state_of_an_encoder_feeds_a_decoder() -> None:
    encoder, decoder = recurrent("LSTM", 3, 4, seed=1), recurrent("LSTM", 2, 4, seed=2)
    x, target = tg.asarray(numbers(5, 2, 3)), tg.asarray(numbers(4, 2, 2, seed=3))

    y, _ = decoder(target, encoder(x)[1])
    (y**2).sum().backward()

    h, c = encoder(x)[1]
    close(y, decoder(target, (h.detach(), c.detach()))[0].numpy())
    assert all((p.grad.numpy() != 0).any() for p in encoder.parameters())  # through the state alone


def test_a_network_runs_freely_on_what_it_said_before() -> None:
    cell, (head, w, b) = nn.GRUCell(3, 4, dtype=tg.float64), linear(4, 3)
    start = tg.asarray(numbers(2, 4))

    def step(carry: Any, _: Any) -> Any:
        said, h = carry
        h = cell(tg.one_hot(said, 3, dtype=tg.float64), h)
        said = tg.argmax(head(h), axis=-1)
        return (said, h), said

    _, found = tg.scan(step, (tg.asarray(np.zeros(2, np.int64)), start), length=6)

    said, h = np.zeros(2, np.int64), start
    for row in found.numpy():
        h = cell(tg.asarray(np.eye(3)[said]), h)
        said = (h.numpy() @ w.T + b).argmax(-1)
        np.testing.assert_array_equal(row, said)


# ---- losses


def test_a_loss_that_the_module_returns_is_minimised_as_it_is() -> None:
    layer, w, b = linear(3, 1)
    x = tg.asarray(numbers(2, 3))

    def model(x: tg.Tensor) -> tg.Tensor:
        return (layer(x) ** 2).mean()

    model(x).backward()

    y = x.numpy() @ w.T + b
    close(layer.bias.grad, 2 * y.mean(0))  # type: ignore[union-attr, arg-type]


def test_the_loss_of_a_sequence_is_averaged_over_what_is_not_ignored() -> None:
    log_p = np.log(np.random.default_rng(0).dirichlet(np.ones(4), size=(5, 3)))  # time, batch, classes
    target = np.random.default_rng(1).integers(0, 4, (5, 3))
    target[2:, 0] = -100

    loss = F.nll_loss(tg.asarray(log_p).reshape(15, 4), tg.asarray(target).reshape(15), ignore_index=-100)

    kept = target != -100
    close(loss, -np.take_along_axis(log_p, np.where(kept, target, 0)[..., None], 2)[..., 0][kept].mean())


def test_the_gradient_at_perturbed_weights_is_a_gradient_at_other_weights() -> None:
    w, x, noise = (tg.asarray(numbers(3, seed=i)) for i in range(3))

    def loss(w: tg.Tensor) -> tg.Tensor:
        return tg.sin(w * x).sum()

    value, gradient = loss(w), tg.grad(loss)(w + noise * 0.1)

    v, u, n = w.numpy(), x.numpy(), noise.numpy()
    close(value, np.sin(v * u).sum())
    close(gradient, u * np.cos((v + 0.1 * n) * u))


def test_adversarial_training_is_one_gradient_of_two_losses() -> None:
    # lamp's second backward adds to what the first left in intermediate values; here there is nothing left
    w, x = tg.Parameter(numbers(3)), tg.asarray(numbers(4, 3, seed=1))

    def loss(x: tg.Tensor) -> tg.Tensor:
        return (tg.tanh(x) @ w.reshape(3, 1)).mean()

    worst = x + 0.1 * tg.sign(tg.grad(loss)(x))
    ((loss(x) + loss(worst.detach())) * 0.5).backward()

    u, v = x.numpy(), w.numpy()
    moved = u + 0.1 * np.sign((1 - np.tanh(u) ** 2) * v)
    close(w.grad, (np.tanh(u).mean(0) + np.tanh(moved).mean(0)) / 2)  # type: ignore[arg-type]


# ---- schedules: lamp's factors of the epoch, times a rate of 1


def _linear(epoch: int) -> float:
    return max(0.2, 1.0 + (0.2 - 1.0) * epoch / 10)


def _triangle(epoch: int) -> float:
    """From 1 up to 10 and back in 18 epochs."""
    place = epoch % 18
    return 1.0 + 9.0 * (place if place <= 9 else 18 - place) / 9


SCHEDULES: dict[str, tuple[Any, Callable[[int], float]]] = {
    "noop": (lambda: s.ConstantLR(1.0, factor=1.0), lambda epoch: 1.0),
    "fromEpochCount": (lambda: s.LambdaLR(1.0, lambda step: 1 / (1 + step)), lambda epoch: 1 / (1 + epoch)),
    "decrement": (lambda: s.StepLR(1.0, 7, 0.5), lambda epoch: 0.5 ** (epoch // 7)),
    "linear": (lambda: s.LinearLR(1.0, 1.0, 0.2, 10), _linear),
    "stepAfter": (lambda: s.MultiStepLR(1.0, [12], 0.1), lambda epoch: 1.0 if epoch < 12 else 0.1),
    "cyclicSchedule": (lambda: s.CyclicLR(1.0, 10.0, step_size_up=9), _triangle),
    "SWA cyclic": (
        lambda: s.LambdaLR(1.0, lambda step: 2.0 - 1.5 * (step % 5) / 4),
        lambda epoch: 2.0 - 1.5 * (epoch % 5) / 4,
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_factors_are_those_of_lamp(name: str) -> None:
    make, factor = SCHEDULES[name]

    found = make()(tg.arange(40)).numpy()

    np.testing.assert_allclose(found, [factor(epoch) for epoch in range(40)], rtol=1e-9)
