"""Optimizers against their formulas in NumPy, and against PyTorch's trajectories where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import GraphError

Array = npt.NDArray[Any]


def trajectory(session: tg.Session, make: Any, *, eager: bool, steps: int = 50) -> Array:
    """A small quadratic problem in float64: the parameters after each step."""
    rng = np.random.default_rng(0)
    a, start = rng.standard_normal((6, 4)), rng.standard_normal(4)
    w = tg.Parameter(start)
    optimizer = make([w])
    x = tg.asarray(a)

    def step() -> None:
        optimizer.minimize(((x @ w) ** 4).mean() + tg.sin(w).sum())

    run = step if eager else tg.function(step)
    found: list[Array] = []
    for _ in range(steps):
        run()
        found.append(w.numpy())
    return np.array(found)


def by_hand(update: Any, steps: int = 50) -> Array:
    """The same with NumPy: ``update(w, g, state, t)`` returns the next w."""
    rng = np.random.default_rng(0)
    a, w = rng.standard_normal((6, 4)), rng.standard_normal(4)
    state: dict[str, Any] = {}
    found: list[Array] = []
    for t in range(1, steps + 1):
        g = a.T @ (4 * (a @ w) ** 3) / 6 + np.cos(w)
        w = update(w, g, state, t)
        found.append(w)
    return np.array(found)


def sgd(w: Array, g: Array, state: dict[str, Any], t: int) -> Array:
    g = g + 0.1 * w
    state["b"] = g if t == 1 else 0.9 * state["b"] + g
    return w - 0.01 * (g + 0.9 * state["b"])


def adamw(w: Array, g: Array, state: dict[str, Any], t: int) -> Array:
    w = w * (1 - 0.01 * 0.05)
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * g * g
    return w - 0.01 * (state["m"] / (1 - 0.9**t)) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)


CASES = {
    "sgd": (lambda p: optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True), sgd),
    "adamw": (lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.05), adamw),
}


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "traced"])
@pytest.mark.parametrize("name", CASES)
def test_the_trajectory_is_that_of_the_formula(session: tg.Session, name: str, eager: bool) -> None:
    make, update = CASES[name]

    np.testing.assert_allclose(trajectory(session, make, eager=eager), by_hand(update), rtol=1e-9, atol=1e-12)


TORCH = {
    "SGD": [{"lr": 0.01}, {"lr": 0.01, "momentum": 0.9, "dampening": 0.3}, {"lr": 0.01, "weight_decay": 0.1}],
    "Adam": [{"lr": 0.01}, {"lr": 0.02, "betas": (0.8, 0.99), "weight_decay": 0.1, "eps": 1e-6}],
    "AdamW": [{"lr": 0.01}, {"lr": 0.02, "weight_decay": 0.2}],
}


@pytest.mark.torch
@pytest.mark.parametrize(("name", "options"), [(n, o) for n, many in TORCH.items() for o in many], ids=str)
def test_the_trajectory_is_pytorchs(session: tg.Session, name: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a, w = torch.tensor(rng.standard_normal((6, 4))), torch.tensor(rng.standard_normal(4), requires_grad=True)
    optimizer = getattr(torch.optim, name)([w], **options)
    expected: list[Array] = []
    for _ in range(50):
        optimizer.zero_grad()
        (((a @ w) ** 4).mean() + torch.sin(w).sum()).backward()
        optimizer.step()
        expected.append(w.detach().numpy().copy())

    found = trajectory(session, lambda p: getattr(optim, name)(p, **options), eager=False)

    np.testing.assert_allclose(found, np.array(expected), rtol=1e-9, atol=1e-12)


def test_a_changed_learning_rate_takes_effect_without_a_new_trace(session: tg.Session) -> None:
    w = tg.Parameter(np.zeros(1))
    optimizer = optim.SGD([w], lr=1.0)

    @tg.function
    def step() -> None:
        optimizer.minimize(w.sum())

    step()
    assert w.tolist() == [-1]
    optimizer.param_groups[0]["lr"] = 0.5
    step()

    assert w.tolist() == [-1.5]
    assert step.traces == 1


def test_parameter_groups_have_their_own_options(session: tg.Session) -> None:
    a, b, frozen = (tg.Parameter(np.zeros(1)) for _ in range(3))
    optimizer = optim.SGD([{"params": [a]}, {"params": [b, frozen], "lr": 10.0}], lr=1.0)
    (a + b).sum().backward()
    optimizer.step()

    assert (a.item(), b.item(), frozen.item()) == (-1, -10, 0)


def test_state_moves_to_another_optimizer(session: tg.Session) -> None:
    def make() -> tuple[tg.Parameter, optim.AdamW]:
        w = tg.Parameter(np.ones(3))
        return w, optim.AdamW([w], lr=0.1)

    (w, first), (v, second) = make(), make()
    for _ in range(3):
        first.minimize((w * w).sum())
    v.assign(w.numpy())
    second.load_state_dict(first.state_dict())
    first.minimize((w * w).sum())
    second.minimize((v * v).sum())

    np.testing.assert_array_equal(w.numpy(), v.numpy())


def test_wrong_parameters_are_refused(session: tg.Session) -> None:
    w = tg.Parameter(np.ones(1))
    for bad in ([], [w, w], [{"params": [w], "speed": 1}], [np.ones(1)]):
        with pytest.raises(GraphError):
            optim.SGD(bad, lr=0.1)  # type: ignore[arg-type]


def test_a_model_trains_and_its_state_moves_by_name(session: tg.Session) -> None:
    def make() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.1), nn.LayerNorm(8), nn.Linear(8, 1))

    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 4)).astype(np.float32)
    y = x[:, :1] * 2
    model, optimizer = make(), None
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.minimize(loss)
        return loss

    first = step(x, y).item()
    for _ in range(200):
        loss = step(x, y)
    assert loss.item() < first / 5
    other = make()
    other.load_state_dict(model.state_dict())
    model.eval()
    other.eval()

    np.testing.assert_array_equal(model(tg.asarray(x)).numpy(), other(tg.asarray(x)).numpy())
    assert list(model.state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias", "4.weight", "4.bias"]
    with pytest.raises(GraphError, match="missing keys"):
        other.load_state_dict({})


def test_eval_is_part_of_the_signature(session: tg.Session) -> None:
    model = nn.Dropout(0.5)

    @tg.function
    def f(x: tg.Tensor) -> tg.Tensor:
        return model(x)

    x = tg.ones((100,))
    dropped = f(x).numpy()
    model.eval()

    assert set(dropped) == {0.0, 2.0}
    assert set(f(x).numpy()) == {1.0}
    model.train()
    f(x)
    assert f.traces == 2


@pytest.mark.torch
def test_a_pytorch_state_dict_loads_by_name(session: tg.Session) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 3))
    ours = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)

    expected = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours(tg.asarray(x)).numpy(), expected, rtol=1e-5, atol=1e-6)
