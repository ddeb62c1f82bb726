"""Schedules as functions of the step in the graph, against PyTorch's values and inside optimizers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import optim
from telegrad.errors import GraphError
from telegrad.optim import lr_scheduler as s
from telegrad.optim.swa_utils import SWALR

STEPS = 100


@pytest.fixture(autouse=True)
def session() -> Iterator[tg.Session]:
    """The embedded worker: what is compared here does not depend on the connection."""
    with tg.connect(None, backend="numpy", new=True) as session:
        yield session


def torchs(make: Callable[[Any, Any], Any], lr: float = 0.1) -> list[float]:
    """The rates that PyTorch's scheduler gives at the first 100 steps."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    rates: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR calls its schedulers in a way that they warn of
        scheduler = make(torch.optim.lr_scheduler, optimizer)
        for _ in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


ALIKE: dict[str, list[tuple[Any, ...]]] = {
    "ConstantLR": [(), (0.5, 20)],
    "LinearLR": [(), (0.1, 0.7, 33)],
    "ExponentialLR": [(0.9,)],
    "StepLR": [(30,), (7, 0.5)],
    "MultiStepLR": [([10, 30, 31, 80],), ([5, 50], 0.3)],
    "PolynomialLR": [(), (40, 2.0)],
    "CosineAnnealingLR": [(99,), (20, 0.01)],
    "CosineAnnealingWarmRestarts": [(10,), (7, 1, 0.02), (3, 2), (5, 3, 0.01), (1, 2)],
}
ONE_CYCLE: list[dict[str, Any]] = [
    {"max_lr": 0.5, "total_steps": 101},
    {"max_lr": 0.5, "epochs": 10, "steps_per_epoch": 11, "anneal_strategy": "linear", "pct_start": 0.25},
    {"max_lr": 0.5, "total_steps": 110, "three_phase": True, "div_factor": 10.0, "final_div_factor": 100.0},
]
CYCLIC: list[dict[str, Any]] = [
    {"step_size_up": 10},
    {"step_size_up": 7, "step_size_down": 13, "mode": "triangular2"},
    {"step_size_up": 7, "mode": "exp_range", "gamma": 0.99},
]


@pytest.mark.torch
@pytest.mark.parametrize(("name", "arguments"), [(n, a) for n, many in ALIKE.items() for a in many], ids=str)
def test_the_rates_are_pytorchs(name: str, arguments: tuple[Any, ...]) -> None:
    expected = torchs(lambda library, optimizer: getattr(library, name)(optimizer, *arguments))

    found = getattr(s, name)(0.1, *arguments)(tg.arange(STEPS)).numpy()

    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("options", ONE_CYCLE, ids=str)
def test_one_cycle_is_pytorchs(options: dict[str, Any]) -> None:
    expected = torchs(lambda library, optimizer: library.OneCycleLR(optimizer, cycle_momentum=False, **options))

    np.testing.assert_allclose(s.OneCycleLR(**options)(tg.arange(STEPS)).numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("options", CYCLIC, ids=str)
def test_cycles_are_pytorchs(options: dict[str, Any]) -> None:
    expected = torchs(lambda library, optimizer: library.CyclicLR(optimizer, 0.1, 0.5, cycle_momentum=False, **options))

    np.testing.assert_allclose(s.CyclicLR(0.1, 0.5, **options)(tg.arange(STEPS)).numpy(), expected, rtol=1e-9)


@pytest.mark.torch
def test_one_schedule_after_another_is_pytorchs() -> None:
    expected = torchs(
        lambda library, o: library.SequentialLR(
            o, [library.LinearLR(o, 0.1, 1.0, 10), library.ExponentialLR(o, 0.9), library.StepLR(o, 5)], [10, 40]
        )
    )
    ours = s.SequentialLR([s.LinearLR(0.1, 0.1, 1.0, 10), s.ExponentialLR(0.1, 0.9), s.StepLR(0.1, 5)], [10, 40])

    np.testing.assert_allclose(ours(tg.arange(STEPS)).numpy(), expected, rtol=1e-9)


@pytest.mark.torch
def test_chained_schedules_are_pytorchs_also_when_nested() -> None:
    expected = torchs(
        lambda library, o: library.ChainedScheduler(
            [library.ConstantLR(o, 0.5, 20), library.ExponentialLR(o, 0.95), library.StepLR(o, 30)]
        )
    )
    chained = s.ChainedScheduler([s.ConstantLR(0.1, 0.5, 20), s.ExponentialLR(77.0, 0.95), s.StepLR(77.0, 30)])
    nested = s.StepLR(s.ExponentialLR(s.ConstantLR(0.1, 0.5, 20), 0.95), 30)

    for ours in (chained, nested):
        np.testing.assert_allclose(ours(tg.arange(STEPS)).numpy(), expected, rtol=1e-9)


@pytest.mark.torch
def test_a_warm_up_before_any_other_is_pytorchs_sequence() -> None:
    expected = torchs(
        lambda library, o: library.SequentialLR(
            o, [library.LinearLR(o, 0.2, 1.0, 10), library.CosineAnnealingLR(o, 90)], [10]
        )
    )
    ours = s.WarmupLR(s.CosineAnnealingLR(0.1, 90), total_iters=10, start_factor=0.2)

    np.testing.assert_allclose(ours(tg.arange(STEPS)).numpy(), expected, rtol=1e-9)


@pytest.mark.torch
def test_a_function_of_the_step_is_pytorchs_lambda() -> None:
    expected = torchs(lambda library, o: library.LambdaLR(o, lambda step: 1 / (1 + step)))

    np.testing.assert_allclose(s.LambdaLR(0.1, lambda step: 1 / (1 + step))(tg.arange(STEPS)).numpy(), expected)


def test_warm_restarts_begin_exactly_where_they_should_far_out() -> None:
    schedule = s.CosineAnnealingWarmRestarts(1.0, T_0=3, T_mult=2)
    starts = 3 * (2 ** np.arange(1, 24) - 1)

    np.testing.assert_array_equal(schedule(tg.asarray(starts)).numpy(), 1.0)
    assert (schedule(tg.asarray(starts - 1)).numpy() < 0.5).all()


def test_one_cycle_stays_at_its_end() -> None:
    schedule = s.OneCycleLR(1.0, total_steps=10)

    last, after = schedule(tg.asarray([9, 1000])).numpy()

    assert last == after == pytest.approx(1 / 25 / 1e4)


# ---- in an optimizer


@pytest.mark.torch
@pytest.mark.parametrize("is_eager", [True, False])
def test_an_optimizer_follows_a_schedule_by_its_own_count_of_steps(is_eager: bool) -> None:
    torch = pytest.importorskip("torch")
    there = torch.ones(3, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.AdamW([there], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 20, 0.01)
    here = tg.Parameter(np.ones(3))
    optimizer = optim.AdamW([here], lr=s.CosineAnnealingLR(0.1, 20, 0.01))

    def step() -> None:
        optimizer.minimize((here**4).sum())

    run = step if is_eager else tg.function(step)
    for _ in range(15):
        theirs.zero_grad()
        (there**4).sum().backward()
        theirs.step()
        scheduler.step()
        run()

    np.testing.assert_allclose(here.numpy(), there.detach().numpy(), rtol=1e-9)
    assert is_eager or run.traces == 1
    assert optimizer.steps is not None
    assert optimizer.steps.item() == 15


def test_float32_parameters_stay_float32_under_a_schedule() -> None:
    for name in ("SGD", "Adam", "NAdam", "RAdam", "Adagrad", "LAMB", "Adafactor", "Muon", "Lion"):
        w = tg.Parameter(np.ones((2, 2), np.float32))
        optimizer = getattr(optim, name)([w], lr=s.ExponentialLR(0.1, 0.9), weight_decay=s.LinearLR(0.1))
        optimizer.minimize((w * w).sum())

        assert w.dtype is tg.float32
        assert (w.numpy() < 1).all()


def test_any_number_may_be_a_schedule_and_any_function_of_the_step() -> None:
    w = tg.Parameter(np.zeros(1))
    optimizer = optim.SGD([w], lr=lambda step: 1 / (step + 1), momentum=s.ConstantLR(0.5, factor=0.0, total_iters=1))
    found: list[float] = []
    for _ in range(3):
        optimizer.minimize(w.sum())
        found.append(w.item())

    # buffers 1, 1.5, 1.75
    np.testing.assert_allclose(found, [-1, -1 - 1.5 / 2, -1 - 1.5 / 2 - 1.75 / 3])


def test_groups_have_schedules_of_their_own() -> None:
    a, b = tg.Parameter(np.zeros(1)), tg.Parameter(np.zeros(1))
    optimizer = optim.SGD([{"params": [a], "lr": s.ExponentialLR(1.0, 0.5)}, {"params": [b]}], lr=1.0)

    for _ in range(3):
        optimizer.minimize((a + b).sum())

    assert (a.item(), b.item()) == (-1.75, -3)


def test_a_schedule_in_place_of_another_takes_effect() -> None:
    w = tg.Parameter(np.zeros(1))
    optimizer = optim.SGD([w], lr=s.ExponentialLR(1.0, 0.5))

    @tg.function
    def step() -> None:
        optimizer.minimize(w.sum())

    step()
    step()
    optimizer.param_groups[0]["lr"] = s.StepLR(8.0, 100)
    step()
    assert w.item() == -9.5
    optimizer.param_groups[0]["lr"] = 1.0
    step()
    assert w.item() == -10.5


def test_a_schedule_that_comes_late_needs_a_step_outside_a_trace() -> None:
    w = tg.Parameter(np.zeros(1))
    optimizer = optim.SGD([w], lr=1.0)
    optimizer.param_groups[0]["lr"] = s.ExponentialLR(1.0, 0.5)
    step = tg.function(lambda: optimizer.minimize(w.sum()))

    with pytest.raises(GraphError, match="one step outside"):
        step()
    optimizer.minimize(w.sum())
    step()

    assert w.item() == -1.5


def test_a_saved_schedule_goes_on_where_it_was() -> None:
    def begin() -> tuple[tg.Parameter, optim.SGD]:
        w = tg.Parameter(np.zeros(1))
        return w, optim.SGD([w], lr=s.ExponentialLR(1.0, 0.5))

    (w, first), (v, second) = begin(), begin()
    for _ in range(3):
        first.minimize(w.sum())
    second.load_state_dict(first.state_dict())
    second.minimize(v.sum())

    assert v.item() == -0.125
    with pytest.raises(GraphError, match="was a schedule"):
        optim.SGD([v], lr=0.1).load_state_dict(first.state_dict())
    with pytest.raises(GraphError, match="count of steps"):
        second.load_state_dict(optim.SGD([v], lr=0.1).state_dict())


# ---- plateau

PLATEAU: list[dict[str, Any]] = [
    {},
    {"patience": 2, "factor": 0.5},
    {"patience": 1, "factor": 0.5, "cooldown": 3, "min_lr": 0.01},
    {"patience": 1, "mode": "max", "threshold": 0.05, "threshold_mode": "abs"},
    {"patience": 0, "mode": "max", "threshold": 0.1},
    {"patience": 0, "factor": 0.9, "threshold": 0.02, "threshold_mode": "abs", "eps": 0.005},
]


@pytest.mark.torch
@pytest.mark.parametrize("is_eager", [True, False])
@pytest.mark.parametrize("options", PLATEAU, ids=str)
def test_a_plateau_lowers_the_rate_as_in_pytorch(options: dict[str, Any], is_eager: bool) -> None:
    torch = pytest.importorskip("torch")
    metrics = np.exp(-np.arange(STEPS) / 20) + np.random.default_rng(0).standard_normal(STEPS) * 0.1
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    plateau = s.ReduceLROnPlateau(0.1, **options)
    expected, found = [], []

    def step(metric: tg.Tensor) -> None:
        plateau.step(metric)

    run = step if is_eager else tg.function(step)
    for metric in metrics:
        scheduler.step(float(metric))
        run(tg.asarray(metric))
        expected.append(theirs.param_groups[0]["lr"])
        found.append(plateau.rate.item())

    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert len(set(found)) > 1
    assert is_eager or run.traces == 1


def test_a_traced_step_trains_and_lowers_its_rate_without_python_in_between() -> None:
    w = tg.Parameter(np.zeros(1))
    plateau = s.ReduceLROnPlateau(1.0, factor=0.5, patience=0)
    optimizer = optim.SGD([w], lr=plateau)

    @tg.function
    def step(metric: float) -> None:
        optimizer.minimize(w.sum())
        plateau.step(metric)

    found = []
    for metric in (1.0, 1.0, 1.0):
        step(metric)
        found.append(w.item())

    assert found == [-1, -2, -2.5]
    assert step.traces == 1


def test_what_a_plateau_holds_is_saved_also_inside_another_schedule() -> None:
    def begin() -> tuple[s.ReduceLROnPlateau, optim.SGD]:
        plateau = s.ReduceLROnPlateau(1.0, factor=0.5, patience=0)
        return plateau, optim.SGD([tg.Parameter(np.zeros(1))], lr=s.SequentialLR([s.ConstantLR(1.0), plateau], [1]))

    (plateau, first), (other, second) = begin(), begin()
    plateau.step(1.0)
    plateau.step(1.0)
    second.load_state_dict(first.state_dict())

    assert (other.rate.item(), other.best.item()) == (0.5, 1.0)
    assert list(plateau.state_dict()) == ["rate", "best", "num_bad_epochs", "cooldown_counter"]


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: s.ConstantLR(0.1, factor=2.0), "factor"),
    (lambda: s.LinearLR(0.1, start_factor=0.0), "start_factor"),
    (lambda: s.LinearLR(0.1, total_iters=0), "total_iters"),
    (lambda: s.StepLR(0.1, 0), "step_size"),
    (lambda: s.PolynomialLR(0.1, 0), "total_iters"),
    (lambda: s.CosineAnnealingLR(0.1, 0), "T_max"),
    (lambda: s.CosineAnnealingWarmRestarts(0.1, 0), "T_0"),
    (lambda: s.CosineAnnealingWarmRestarts(0.1, 1, 0), "T_mult"),
    (lambda: s.OneCycleLR(0.1), "total_steps"),
    (lambda: s.OneCycleLR(0.1, 10, pct_start=2.0), "pct_start"),
    (lambda: s.OneCycleLR(0.1, 10, anneal_strategy="x"), "anneal_strategy"),
    (lambda: s.CyclicLR(0.1, 1.0, mode="x"), "mode"),
    (lambda: s.WarmupLR(0.1, 0), "total_iters"),
    (lambda: s.SequentialLR([s.StepLR(0.1, 1)], [3]), "one milestone"),
    (lambda: s.SequentialLR([s.StepLR(0.1, 1)] * 3, [3, 2]), "must grow"),
    (lambda: s.ChainedScheduler([]), "at least one"),
    (lambda: s.ReduceLROnPlateau(0.1, factor=1.0), "factor"),
    (lambda: s.ReduceLROnPlateau(0.1, mode="x"), "mode"),
    (lambda: s.ReduceLROnPlateau(0.1, threshold_mode="x"), "threshold_mode"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_an_argument_out_of_its_range_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        make()


@pytest.mark.torch
@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("epochs", [0, 1, 10, 99])
def test_swalr_gives_pytorchs_rates(strategy: str, epochs: int) -> None:
    torch = pytest.importorskip("torch")

    wanted = torchs(lambda _, o: torch.optim.swa_utils.SWALR(o, 0.03, epochs, strategy))

    # PyTorch knows no step 0: with no step to anneal it starts one late
    start = 1 if epochs == 0 else 0
    found = SWALR(0.1, 0.03, epochs, strategy)(tg.arange(STEPS)).numpy()
    np.testing.assert_allclose(found[start:], wanted[start:], rtol=1e-12)


def test_swalr_refuses_what_it_does_not_know() -> None:
    for wrong in ((-1.0,), (0.1, -1), (0.1, 10, "sine")):
        with pytest.raises(GraphError, match="SWALR"):
            SWALR(0.1, *wrong)  # type: ignore[arg-type]
