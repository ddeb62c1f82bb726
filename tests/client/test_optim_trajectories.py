"""Every optimizer's steps against PyTorch's, or against a transcription of the paper where PyTorch has none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import optim
from telegrad.errors import GraphError

from tests.client.optimizing import STEPS, Array, by_hand, loss, ours, start, together, torchs

pytestmark = pytest.mark.slow

Options = dict[str, Any]


@pytest.fixture(autouse=True)
def session() -> Iterator[tg.Session]:
    """The embedded worker: what is compared here does not depend on the connection."""
    with tg.connect(None, backend="numpy", new=True) as session:
        yield session


@pytest.fixture
def torch() -> Iterator[Any]:
    """PyTorch with float64 as its default, so that the numbers in its state are float64 as ours are."""
    torch = pytest.importorskip("torch")
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(torch.float32)


ADAM: list[Options] = [
    {"lr": 0.01},
    {"lr": 0.02, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1},
    {"lr": 0.02, "amsgrad": True},
    {"lr": 0.02, "amsgrad": True, "weight_decay": 0.1, "maximize": True},
]
DECOUPLED: list[Options] = [
    {"lr": 0.01},
    {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": 0.1, "maximize": True},
    {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True},
]
PLAIN: list[Options] = [{"lr": 0.01}, {"lr": 0.02, "weight_decay": 0.1}, {"lr": 0.005, "maximize": True}]
TORCH: dict[str, list[Options]] = {
    "SGD": [
        *PLAIN,
        {},
        {"lr": 0.01, "momentum": 0.9},
        {"lr": 0.01, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"lr": 0.001, "momentum": 0.9, "nesterov": True, "maximize": True},
    ],
    "Adam": [{}, *ADAM, {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True}],
    "AdamW": [{}, *ADAM],
    "NAdam": [{}, *DECOUPLED, {"lr": 0.01, "momentum_decay": 0.02}],
    "RAdam": [{}, *DECOUPLED, {"lr": 0.01, "betas": (0.9, 0.5)}],
    "Adamax": [{}, *PLAIN, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3}],
    "Adagrad": [{}, *PLAIN, {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3}],
    "Adadelta": [{}, *PLAIN, {"lr": 1.0, "rho": 0.5, "eps": 1e-3}],
    "RMSprop": [
        {},
        *PLAIN,
        {"lr": 0.002, "alpha": 0.95, "eps": 1e-2, "centered": True},
        {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.1},
        {"lr": 0.001, "momentum": 0.9, "centered": True, "maximize": True},
    ],
    "Rprop": [{}, {"lr": 0.02, "etas": (0.3, 1.5), "step_sizes": (1e-3, 0.1)}, {"lr": 0.001, "maximize": True}],
    "Adafactor": [
        {},
        {"lr": 0.05, "weight_decay": 0.1, "d": 1.5, "beta2_decay": -0.5},
        {"lr": 0.3, "eps": (1e-2, 1e-2), "maximize": True},
    ],
}
TORCH_CASES = [pytest.param(name, options, id=f"{name}-{options}") for name, o in TORCH.items() for options in o]


@pytest.mark.torch
@pytest.mark.parametrize(("name", "options"), TORCH_CASES)
def test_the_trajectory_is_pytorchs(torch: Any, name: str, options: Options) -> None:
    expected = torchs(torch, lambda p: getattr(torch.optim, name)(p, **options))

    traced = ours(lambda p: getattr(optim, name)(p, **options), is_eager=False)
    eager = ours(lambda p: getattr(optim, name)(p, **options), is_eager=True)

    np.testing.assert_allclose(traced, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(eager, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(eager, traced, rtol=1e-13, atol=1e-15)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "options"), TORCH_CASES)
def test_a_float32_step_is_pytorchs(name: str, options: Options) -> None:
    torch = pytest.importorskip("torch")
    (expected,) = torchs(torch, lambda p: getattr(torch.optim, name)(p, **options), steps=1, dtype=np.float32)

    for is_eager in (True, False):
        (found,) = ours(lambda p: getattr(optim, name)(p, **options), is_eager=is_eager, steps=1, dtype=np.float32)

        assert found.dtype == np.float32
        assert np.linalg.norm(found - expected) <= 2e-6 * np.linalg.norm(expected)


MUON: list[Options] = [
    {},
    {"lr": 0.02, "weight_decay": 0.0, "nesterov": False},
    {"lr": 0.02, "momentum": 0.5, "ns_steps": 3, "adjust_lr_fn": "match_rms_adamw"},
    {"lr": 0.02, "ns_coefficients": (2.0, -1.5, 0.5), "eps": 1e-3, "adjust_lr_fn": "original"},
]


def torch_parameter(torch: Any) -> Any:
    return lambda array: torch.tensor(array, requires_grad=True)


def muon(library: Any, as_tensor: Any, as_parameter: Any, make: Any, shape: tuple[int, int]) -> list[Array]:
    rng = np.random.default_rng(1)
    x, w = as_tensor(rng.standard_normal((6, shape[0]))), as_parameter(rng.standard_normal(shape))
    optimizer = make([w])
    found: list[Array] = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        (library.sin(x @ w) ** 2).mean().backward()
        optimizer.step()
        found.append(np.array(w.numpy() if library is tg else w.detach().numpy()))
    return found


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(4, 3), (3, 4)])
@pytest.mark.parametrize("options", MUON, ids=str)
def test_muons_trajectory_is_pytorchs_with_the_iteration_in_the_parameters_dtype(
    torch: Any, monkeypatch: pytest.MonkeyPatch, options: Options, shape: tuple[int, int]
) -> None:
    # PyTorch iterates in bfloat16, whose rounding depends on the order of sums: its iteration is run in float64 here
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    expected = muon(
        torch,
        torch.tensor,
        lambda a: torch.tensor(a, requires_grad=True),
        lambda p: torch.optim.Muon(p, **options),
        shape,
    )

    found = muon(tg, tg.asarray, tg.Parameter, lambda p: optim.Muon(p, **options), shape)

    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.torch
def test_muon_is_near_pytorchs_bfloat16_iteration(torch: Any) -> None:
    def make(library: Any) -> Any:
        return lambda p: library.Muon(p, lr=0.02)

    expected = muon(torch, torch.tensor, torch_parameter(torch), make(torch.optim), (4, 3))

    found = muon(tg, tg.asarray, tg.Parameter, make(optim), (4, 3))

    np.testing.assert_allclose(found[0], expected[0], atol=0.02 * 0.02)  # one step of 0.02, bfloat16 has 8 bits


def lion(w: Array, g: Array, state: dict[str, Any], t: int) -> Array:
    """Chen et al. 2023, algorithm 2."""
    m = state.get("m", 0.0)
    state["m"] = 0.98 * m + 0.02 * g
    return w - 0.01 * (np.sign(0.9 * m + 0.1 * g) + 0.1 * w)


def lamb(w: Array, g: Array, state: dict[str, Any], t: int) -> Array:
    """You et al. 2020, algorithm 2."""
    state["m"] = 0.8 * state.get("m", 0.0) + 0.2 * g
    state["v"] = 0.99 * state.get("v", 0.0) + 0.01 * g**2
    r = (state["m"] / (1 - 0.8**t)) / (np.sqrt(state["v"] / (1 - 0.99**t)) + 1e-6) + 0.1 * w
    return w - 0.01 * np.sqrt(np.sum(w**2)) / np.sqrt(np.sum(r**2)) * r


def yogi(w: Array, g: Array, state: dict[str, Any], t: int) -> Array:
    """Zaheer et al. 2018, algorithm 2, with Adam's corrections and AdamW's decay."""
    state["m"] = 0.8 * state.get("m", 0.0) + 0.2 * g
    v = state.get("v", 1e-6)
    state["v"] = v - 0.01 * np.sign(v - g**2) * g**2
    return w - 0.02 * 0.1 * w - 0.02 * (state["m"] / (1 - 0.8**t)) / (np.sqrt(state["v"] / (1 - 0.99**t)) + 1e-3)


def sgdw(w: Array, g: Array, state: dict[str, Any], t: int) -> Array:
    """Loshchilov and Hutter 2019, algorithm 1: eta is the rate, here constant, so that eta * sum g = sum (eta * g)."""
    state["m"] = 0.9 * state.get("m", 0.0) + 0.01 * g
    return w - state["m"] - 0.01 * 0.1 * w


def sgdw_ascent(w: Array, g: Array, state: dict[str, Any], t: int) -> Array:
    return w * (1 - 0.001 * 0.1) + 0.001 * g


def shampoo(w: Array, g: Array, state: dict[str, Any], t: int, *, freq: int = 1, longest: int = 1200) -> Array:
    """Gupta et al. 2018, algorithm 2, with an average of the gradients in place of the last one."""
    x = np.atleast_1d(g + 0.1 * w)
    state["m"] = change = 0.9 * state.get("m", 0.0) + (1 - 0.9) * x
    for axis, n in enumerate(x.shape):
        rows = np.moveaxis(x, axis, 0).reshape(n, -1)
        h = state[axis] = state.get(axis, 1e-2 * np.eye(n)) + rows @ rows.T
        if n > longest:
            h = np.diag(np.diag(h))
        if (t - 1) % freq == 0:
            values, vectors = np.linalg.eigh(h)
            state[axis, "root"] = vectors @ np.diag(values ** (-1 / (2 * x.ndim))) @ vectors.T
        change = np.moveaxis(np.tensordot(state[axis, "root"], change, ([1], [axis])), 0, axis)
    return w - 0.05 * change.reshape(w.shape)


SHAMPOO: Options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1, "eps": 1e-2}

PAPERS = {
    "Shampoo": (lambda p: optim.Shampoo(p, **SHAMPOO), shampoo),
    "Shampoo-seldom": (lambda p: optim.Shampoo(p, update_freq=7, **SHAMPOO), partial(shampoo, freq=7)),
    "Shampoo-diagonal": (lambda p: optim.Shampoo(p, max_dim=3, **SHAMPOO), partial(shampoo, longest=3)),
    "Lion": (lambda p: optim.Lion(p, lr=0.01, betas=(0.9, 0.98), weight_decay=0.1), lion),
    "LAMB": (lambda p: optim.LAMB(p, lr=0.01, betas=(0.8, 0.99), weight_decay=0.1), lamb),
    "Yogi": (lambda p: optim.Yogi(p, lr=0.02, betas=(0.8, 0.99), weight_decay=0.1), yogi),
    "SGDW": (lambda p: optim.SGDW(p, lr=0.01, momentum=0.9, weight_decay=0.1), sgdw),
    "SGDW-maximize": (lambda p: optim.SGDW(p, lr=0.001, weight_decay=0.1, maximize=True), sgdw_ascent),
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_trajectory_is_that_of_the_paper(name: str) -> None:
    make, update = PAPERS[name]
    expected = by_hand(update)

    traced, eager = ours(make, is_eager=False), ours(make, is_eager=True)

    np.testing.assert_allclose(traced, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(eager, traced, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", PAPERS)
def test_a_float32_step_is_that_of_the_paper(name: str) -> None:
    make, update = PAPERS[name]
    (expected,) = by_hand(update, steps=1)

    for is_eager in (True, False):
        (found,) = ours(make, is_eager=is_eager, steps=1, dtype=np.float32)

        assert found.dtype == np.float32
        assert np.linalg.norm(found - expected) <= 2e-6 * np.linalg.norm(expected)


def test_lamb_takes_a_plain_step_where_the_parameter_is_zero() -> None:
    w = tg.Parameter(np.zeros(2))

    optim.LAMB([w], lr=0.1).minimize((w * 3.0).sum())

    np.testing.assert_allclose(w.numpy(), [-0.1, -0.1], rtol=1e-6)


# ---- lamp's golden numbers: parameters (1, 1), gradients (0.5, 0.75), two steps


def golden(make: Any, before: Any = None, gradients: Any = ((0.5, 0.75), (0.5, 0.75))) -> list[Array]:
    w = tg.Parameter(np.ones(2))
    optimizer = make([w])
    found: list[Array] = []
    for t, gradient in enumerate(gradients, 1):
        if before is not None:
            optimizer.param_groups[0].update(before(t))
        w.grad = tg.asarray(np.array(gradient))
        optimizer.step()
        found.append(w.numpy())
    return found


def lamps_adamw(t: int, weight_decay: float) -> Options:
    # lamp adds eps before the second moment is corrected, and multiplies the decay by the corrected step size
    correction1, correction2 = 1 - 0.999**t, np.sqrt(1 - 0.9**t)
    return {"eps": 1e-8 / correction2, "weight_decay": weight_decay * correction2 / correction1}


LAMP = {
    "AdamW": (
        lambda p: optim.AdamW(p, lr=0.1, betas=(0.999, 0.9), weight_decay=0.0),
        lambda t: lamps_adamw(t, 0.0),
        [[0.9000000063245549, 0.90000000421637], [0.8000000109128679, 0.8000000072752449]],
        1e-14,
    ),
    "AdamW-decay": (
        lambda p: optim.AdamW(p, lr=0.1, betas=(0.999, 0.9)),
        lambda t: lamps_adamw(t, 1e-5),
        [[0.8996837785585381, 0.8996837764503532], [0.7994876035234454, 0.7994875998862823]],
        1e-14,
    ),
    "RAdam": (lambda p: optim.RAdam(p, lr=0.1, betas=(0.999, 0.9)), None, [[0.95, 0.925], [0.9, 0.85]], 1e-14),
    # lamp's decay is not multiplied by lr, which is 1 here
    "SGDW": (lambda p: optim.SGDW(p, lr=1.0, weight_decay=0.1), None, [[0.4, 0.15], [-0.14, -0.615]], 1e-14),
}


@pytest.mark.parametrize("name", LAMP)
def test_lamps_golden_numbers(name: str) -> None:
    make, before, expected, tolerance = LAMP[name]

    np.testing.assert_allclose(golden(make, before), expected, rtol=0, atol=tolerance)


def test_lamps_golden_numbers_of_yogi() -> None:
    # lamp's second moment starts at 0, and its first step leaves sign(v - g^2) g^2 in the caller's gradient, with which
    # its test goes on; corrections and decay are as here
    expected = [[0.0019860, 0.0013216], [-0.3050152, -0.1358346]]

    def make(parameters: list[Any]) -> optim.Yogi:
        return optim.Yogi(parameters, 1.0, (0.999, 0.9), 1e-3, 1e-5, initial_accumulator_value=0.0)

    found = golden(make, gradients=((0.5, 0.75), (-(0.5**2), -(0.75**2))))

    np.testing.assert_allclose(found, expected, rtol=0, atol=5.1e-8)


# ---- state and options

EVERY: dict[str, Options] = {
    "SGD": {"lr": 0.01, "momentum": 0.9, "dampening": 0.1},
    "SGDW": {"lr": 0.01, "momentum": 0.9, "nesterov": True},
    "Adam": {"amsgrad": True, "weight_decay": 0.1},
    "RMSprop": {"centered": True, "momentum": 0.9},
    **{name: {} for name in ("AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "Rprop", "Adafactor")},
    **{name: {"weight_decay": 0.1} for name in ("Lion", "LAMB", "Yogi")},
    "Shampoo": {"momentum": 0.9, "update_freq": 2},
    "Muon": {},
}


def test_every_optimizer_is_in_the_tables() -> None:
    named = {n for n in optim.__all__ if isinstance(getattr(optim, n), type)} - {"Optimizer", "GradScaler"}

    assert named == EVERY.keys()
    assert named == TORCH.keys() | {name.split("-")[0] for name in PAPERS} | {"Muon"}


@pytest.mark.parametrize("name", EVERY)
def test_state_saved_in_mid_run_continues_with_the_same_bits(name: str) -> None:
    x = tg.asarray(start()[0])

    def begin() -> tuple[list[tg.Parameter], Any, Any]:
        values = start()[1][:1] if name == "Muon" else start()[1]
        parameters = [tg.Parameter(value) for value in values]
        optimizer = getattr(optim, name)(parameters, **EVERY[name])

        @tg.function
        def step() -> None:
            terms = [tg.sin(x @ parameters[0]).mean(), *[tg.cos(p).sum() for p in parameters[1:]]]
            optimizer.minimize(sum(terms[1:], terms[0]))

        return parameters, optimizer, step

    (first, optimizer, step), (second, other, again) = begin(), begin()
    for _ in range(7):
        step()
    other.load_state_dict(optimizer.state_dict())
    for theirs, own in zip(first, second, strict=True):
        own.assign(theirs.numpy())
    for _ in range(7):
        step()
        again()

    for theirs, own in zip(first, second, strict=True):
        np.testing.assert_array_equal(own.numpy(), theirs.numpy())
    for own, theirs in zip(other.state.values(), optimizer.state.values(), strict=True):
        for key in own:
            np.testing.assert_array_equal(own[key].numpy(), theirs[key].numpy())


@pytest.mark.torch
@pytest.mark.parametrize("name", [n for n in EVERY if n in TORCH])
def test_pytorchs_state_loads_in_mid_run(torch: Any, name: str) -> None:
    options = {k: v for k, v in EVERY[name].items() if k != "dampening"}  # PyTorch does not count SGD's steps
    data, values = start()
    there = [torch.tensor(value, requires_grad=True) for value in values]
    theirs = getattr(torch.optim, name)(there, **options)

    def their_step() -> None:
        theirs.zero_grad()
        loss(torch, torch.tensor(data), *there).backward()
        theirs.step()

    for _ in range(5):
        their_step()
    here = [tg.Parameter(p.detach().numpy()) for p in there]
    optimizer = getattr(optim, name)(here, **options)
    optimizer.load_state_dict(theirs.state_dict())
    for _ in range(5):
        their_step()
        optimizer.minimize(loss(tg, tg.asarray(data), *here))

    expected = together([p.detach().numpy() for p in there])
    np.testing.assert_allclose(together([p.numpy() for p in here]), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.torch
def test_all_numbers_may_change_between_steps_without_a_new_trace(torch: Any) -> None:
    def changed(t: int) -> Options:
        return {"lr": 0.01 / (t + 1), "betas": (0.9 - t / 100, 0.99), "eps": 10.0**-t, "weight_decay": 0.1 * (t + 1)}

    data, values = start()
    here, there = [tg.Parameter(v) for v in values], [torch.tensor(v, requires_grad=True) for v in values]
    optimizer, theirs = optim.AdamW(here), torch.optim.AdamW(there)

    @tg.function
    def step() -> None:
        optimizer.minimize(loss(tg, x, *here))

    x = tg.asarray(data)
    for t in range(8):
        optimizer.param_groups[0].update(changed(t))
        theirs.param_groups[0].update(changed(t))
        step()
        theirs.zero_grad()
        loss(torch, torch.tensor(data), *there).backward()
        theirs.step()

    expected = together([p.detach().numpy() for p in there])
    np.testing.assert_allclose(together([p.numpy() for p in here]), expected, rtol=1e-9)
    assert step.traces == 1


def test_a_flag_or_a_momentum_that_becomes_zero_is_traced_anew() -> None:
    w = tg.Parameter(np.zeros(1))
    optimizer = optim.SGD([w], lr=1.0, momentum=0.5)

    @tg.function
    def step() -> None:
        optimizer.minimize(w.sum())

    step()
    step()
    assert w.tolist() == [-2.5]
    optimizer.param_groups[0]["momentum"] = 0.0
    step()
    assert w.tolist() == [-3.5]
    optimizer.param_groups[0]["maximize"] = True
    step()

    assert w.tolist() == [-2.5]
    assert step.traces == 3


REFUSED = [
    ("SGD", {"lr": -1.0}, "SGD: lr must be at least 0, not -1.0"),
    ("SGD", {"lr": float("nan")}, "lr must be at least 0"),
    ("SGD", {"momentum": -0.1}, "momentum must be at least 0"),
    ("SGD", {"nesterov": True}, "Nesterov momentum needs a momentum and no dampening"),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "no dampening"),
    ("SGDW", {"weight_decay": -1.0}, "SGDW: weight_decay must be at least 0"),
    ("Adam", {"betas": (1.0, 0.9)}, "betas must be at least 0 and less than 1, not 1.0"),
    ("AdamW", {"betas": (0.9, -0.1)}, "betas"),
    ("AdamW", {"eps": -1e-8}, "eps"),
    ("NAdam", {"momentum_decay": -1.0}, "momentum_decay"),
    ("RAdam", {"betas": (0.9, 1.0)}, "betas"),
    ("Adamax", {"lr": -1.0}, "lr"),
    ("Adagrad", {"lr_decay": -1.0}, "lr_decay"),
    ("Adagrad", {"initial_accumulator_value": -1.0}, "initial_accumulator_value"),
    ("Adadelta", {"rho": 1.5}, "rho"),
    ("RMSprop", {"alpha": -0.5}, "alpha"),
    ("RMSprop", {"momentum": -0.5}, "momentum"),
    ("Rprop", {"etas": (1.2, 0.5)}, "etas"),
    ("Rprop", {"lr": lambda step: step}, "cannot be a schedule"),
    ("Adafactor", {"d": 0.5}, "d must be at least 1"),
    ("Adafactor", {"beta2_decay": 0.5}, "beta2_decay"),
    ("Adafactor", {"eps": (None, -1.0)}, "eps"),
    ("Lion", {"betas": (0.9, 2.0)}, "betas"),
    ("LAMB", {"eps": -1.0}, "eps"),
    ("Yogi", {"initial_accumulator_value": -1.0}, "initial_accumulator_value"),
    ("Shampoo", {"eps": 0.0}, "eps must be a number above 0"),
    ("Shampoo", {"update_freq": 0}, "update_freq"),
    ("Shampoo", {"max_dim": -1}, "max_dim"),
    ("Muon", {"ns_steps": 100}, "ns_steps"),
    ("Muon", {"adjust_lr_fn": "no"}, "adjust_lr_fn"),
    ("Muon", {"ns_coefficients": (1.0, 2.0)}, "three numbers"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED, ids=lambda x: re.sub(" at 0x.*", "", str(x))[:40])
def test_an_option_out_of_its_range_is_refused(name: str, options: Options, message: str) -> None:
    w = tg.Parameter(np.ones((2, 2)))

    with pytest.raises(GraphError, match=message):
        getattr(optim, name)([w], **options)
    with pytest.raises(GraphError, match=message):
        getattr(optim, name)([{"params": [w], **options}])


def test_a_tensor_as_a_number_is_refused() -> None:
    with pytest.raises(GraphError, match="lr is a tensor; give a schedule"):
        optim.SGD([tg.Parameter(np.ones(3))], lr=tg.asarray(0.1))  # type: ignore[arg-type]


def test_muon_refuses_a_vector() -> None:
    with pytest.raises(GraphError, match="Muon takes matrices"):
        optim.Muon([tg.Parameter(np.ones(3))])


@pytest.mark.parametrize("shape", [(3, 2, 4), (2, 1, 2, 2)], ids=str)
def test_shampoo_takes_tensors_of_any_number_of_axes(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    start, state = rng.normal(size=shape), {}
    w, expected = tg.Parameter(start), start
    optimizer = optim.Shampoo([w], **SHAMPOO)

    for t in range(1, 51):
        gradient = rng.normal(size=shape)
        w.grad = tg.asarray(gradient)
        optimizer.step()
        expected = shampoo(expected, gradient, state, t)

    np.testing.assert_allclose(w.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_shampoo_takes_a_tensor_without_elements() -> None:
    w = tg.Parameter(np.zeros((0, 3)))
    optimizer = optim.Shampoo([w])
    w.grad = tg.zeros((0, 3), dtype=tg.float64)

    optimizer.step()

    assert w.numpy().shape == (0, 3)


def test_shampoo_finds_roots_of_16_bit_and_of_singular_statistics() -> None:
    w = tg.Parameter(tg.ones((4, 3), dtype=tg.float16))
    optimizer = optim.Shampoo([w], lr=0.1, eps=1e-6)

    for _ in range(5):
        w.grad = tg.ones((4, 3), dtype=tg.float16)  # of rank 1
        optimizer.step()

    # L = eps I + 5 * 3 * 11^T and R alike: along 1 the direction is G over the square root of t, whatever its size
    wanted = 1.0 - 0.1 * sum((12 * t) ** -0.5 for t in range(1, 6))
    assert w.dtype is tg.float16
    np.testing.assert_allclose(w.numpy().astype(float), np.full((4, 3), wanted), atol=2e-3)


def test_a_group_is_added_later() -> None:
    a, b = tg.Parameter(np.zeros(1)), tg.Parameter(np.zeros(1))
    optimizer = optim.SGD([a], lr=1.0)
    optimizer.add_param_group({"params": b, "lr": 2.0})
    (a + b).sum().backward()

    optimizer.step()

    assert (a.item(), b.item()) == (-1, -2)
    with pytest.raises(GraphError, match="two parameter groups"):
        optimizer.add_param_group({"params": [a]})


def test_a_group_that_is_added_to_a_traced_step_is_traced_anew() -> None:
    a, b = tg.Parameter(np.zeros(1)), tg.Parameter(np.zeros(1))
    optimizer = optim.SGD([a], lr=1.0)
    step = tg.function(lambda: optimizer.minimize((a + b).sum()))
    step()
    b.grad = None
    optimizer.add_param_group({"params": [b], "lr": 2.0})
    step()

    assert (a.item(), b.item()) == (-2, -2)


def test_state_that_does_not_fit_changes_nothing() -> None:
    w = tg.Parameter(np.zeros(1))
    optimizer, other = optim.Adam([w], lr=0.1), optim.RMSprop([w], lr=0.5)

    with pytest.raises(GraphError, match="needed are"):
        optimizer.load_state_dict(other.state_dict())
    with pytest.raises(GraphError, match="other sizes"):
        optimizer.load_state_dict({"param_groups": [], "state": {}})

    assert optimizer.param_groups[0]["lr"] == 0.1


def test_step_calls_a_closure_and_returns_its_loss() -> None:
    w = tg.Parameter(np.ones(1))
    optimizer = optim.SGD([w], lr=0.5)

    def closure() -> tg.Tensor:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1
    assert w.item() == 0


@pytest.mark.parametrize("is_eager", [True, False])
def test_a_step_with_a_false_condition_changes_nothing(is_eager: bool) -> None:
    w = tg.Parameter(np.ones(2))
    optimizer = optim.AdamW([w], lr=lambda step: 0.1 + step * 0)

    def step(scale: tg.Tensor) -> None:
        loss = (w * w * scale).sum()
        loss.backward()
        optimizer.step(only_if=tg.isfinite(loss))
        optimizer.zero_grad()

    run = step if is_eager else tg.function(step)
    run(tg.asarray(np.float64(1)))
    before, saved = w.numpy(), optimizer.state_dict()
    run(tg.asarray(np.float64(np.inf)))

    np.testing.assert_array_equal(w.numpy(), before)
    assert optimizer.state_dict()["steps"] == saved["steps"] == 1
    for name, value in saved["state"][0].items():
        np.testing.assert_array_equal(optimizer.state_dict()["state"][0][name], value)
    run(tg.asarray(np.float64(1)))
    assert (w.numpy() < before).all()
