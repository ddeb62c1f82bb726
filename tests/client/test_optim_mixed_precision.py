"""float32 copies of 16-bit parameters, and the loss scale that float16 gradients need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import GraphError

from tests.client.test_optim_trajectories import EVERY, lamps_adamw


@pytest.fixture(autouse=True)
def session() -> Iterator[tg.Session]:
    """The embedded worker: what is compared here does not depend on the connection."""
    with tg.connect(None, backend="numpy", new=True) as session:
        yield session


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("has_masters", [True, False])
@pytest.mark.parametrize("name", EVERY)
def test_a_16_bit_parameter_stays_one(name: str, dtype: str, has_masters: bool) -> None:
    w = tg.Parameter(tg.astype(tg.asarray(np.ones((2, 3))), getattr(tg, dtype)))
    options = {"lr": 0.01, **EVERY[name]}
    if name in ("Adam", "AdamW", "NAdam", "RAdam"):
        options["eps"] = 1e-4  # 1e-8 is 0 in float16
    if name == "Shampoo":
        options["lr"] = 0.1  # its momentum begins with a tenth of a step, and bfloat16 has steps of 0.004
    if name == "Adadelta":
        options = {"lr": 1.0, "eps": 1e-3}
    group = {"params": [w], "master_weights": has_masters}
    optimizer = getattr(optim, name)([group], **options)
    step = tg.function(lambda: optimizer.minimize((w * w).sum()))
    for _ in range(3):
        step()

    assert w.dtype is getattr(tg, dtype)
    values = tg.astype(w, tg.float32).numpy()
    assert (values < 1).all()
    assert np.isfinite(values).all()
    state = optimizer.state[id(w)]
    assert ("master" in state) == has_masters
    if has_masters:
        assert {v.dtype for v in state.values()} <= {tg.float32, tg.float64}
        np.testing.assert_array_equal(tg.astype(tg.astype(state["master"], w.dtype), tg.float32).numpy(), values)


def test_lamps_golden_numbers_of_mixed_precision() -> None:
    w = tg.Parameter(np.ones(2, np.float16))
    optimizer = optim.AdamW([{"params": [w], "master_weights": True}], lr=0.1, betas=(0.999, 0.9))
    found = []
    for t in (1, 2):
        optimizer.param_groups[0].update(lamps_adamw(t, 1e-5))  # its convention, explained there
        w.grad = tg.asarray(np.array([0.5, 0.75], np.float16))
        optimizer.step()
        found.append(w.numpy())

    np.testing.assert_array_equal(found, [[0.89990234375] * 2, [0.79931640625] * 2])


def test_small_steps_add_up_in_the_masters() -> None:
    plain, kept = tg.Parameter(np.ones(1, np.float16)), tg.Parameter(np.ones(1, np.float16))
    optimizer = optim.SGD([{"params": [plain]}, {"params": [kept], "master_weights": True}], lr=1e-4)
    for _ in range(100):
        optimizer.minimize((plain + kept).sum())

    assert plain.item() == 1
    assert kept.item() == pytest.approx(0.99, abs=5e-4)


def test_masters_are_saved() -> None:
    def begin() -> tuple[tg.Parameter, optim.SGD]:
        w = tg.Parameter(np.ones(1, np.float16))
        return w, optim.SGD([{"params": [w], "master_weights": True}], lr=1e-4)

    (w, first), (v, second) = begin(), begin()
    first.minimize(w.sum())
    second.load_state_dict(first.state_dict())
    second.minimize(v.sum())

    assert second.state[id(v)]["master"].item() == pytest.approx(1 - 2e-4)


# ---- the loss scale


@pytest.mark.torch
@pytest.mark.parametrize("is_eager", [True, False])
def test_the_scale_and_the_steps_are_pytorchs(is_eager: bool) -> None:
    torch = pytest.importorskip("torch")
    factors = [1.0, np.inf, 1.0, 1.0, np.nan, 1.0, 1.0, 1.0, 1.0, np.inf, 1.0]
    options = {"init_scale": 8.0, "growth_factor": 3.0, "backoff_factor": 0.25, "growth_interval": 3}
    there, here = torch.ones(3, requires_grad=True), tg.Parameter(np.ones(3, np.float32))
    theirs, ours = torch.optim.AdamW([there], lr=0.1), optim.AdamW([here], lr=0.1)
    their_scaler, scaler = torch.amp.GradScaler("cpu", **options), optim.GradScaler(**options)

    def step(factor: tg.Tensor) -> None:
        scaler.scale((here * here * factor).sum()).backward()
        scaler.step(ours)
        scaler.update()
        ours.zero_grad()

    run = step if is_eager else tg.function(step)
    for factor in factors:
        their_scaler.scale((there * there * float(factor)).sum()).backward()
        their_scaler.step(theirs)
        their_scaler.update()
        theirs.zero_grad()
        run(tg.asarray(np.float32(factor)))

        assert scaler.get_scale() == their_scaler.get_scale()
        np.testing.assert_allclose(here.numpy(), there.detach().numpy(), rtol=2e-6)
    assert scaler.state_dict() == their_scaler.state_dict()
    assert is_eager or run.traces == 1


def test_a_loss_scale_saves_small_float16_gradients() -> None:
    def train(scaler: optim.GradScaler | None) -> float:
        w = tg.Parameter(np.ones(4, np.float16))
        optimizer = optim.SGD([{"params": [w], "master_weights": True}], lr=1e6)

        @tg.function
        def step() -> None:
            loss = tg.astype(w * 1e-4, tg.float32).sum() * 1e-4  # gradients of 1e-8, below float16's 6e-8
            if scaler is None:
                optimizer.minimize(loss)
            else:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()

        step()
        return w.numpy()[0]

    assert train(None) == 1
    assert train(optim.GradScaler()) == pytest.approx(0.99, abs=1e-3)


def test_scaled_gradients_are_clipped_to_a_scaled_norm() -> None:
    w = tg.Parameter(np.zeros(1))
    optimizer, scaler = optim.SGD([w], lr=1.0), optim.GradScaler()

    @tg.function
    def step() -> tg.Tensor:
        scaler.scale((w * 10.0).sum()).backward()
        norm = nn.utils.clip_grad_norm_([w], scaler.scale(2.0))
        scaler.step(optimizer)
        scaler.update()
        return norm

    assert step().item() == 10 * 65536
    assert w.item() == pytest.approx(-2)


def test_a_saved_scale_goes_on() -> None:
    first, second = optim.GradScaler(growth_interval=2), optim.GradScaler()
    first.update()
    second.load_state_dict(first.state_dict())
    second.update()

    assert second.get_scale() == 2 * 65536


@pytest.mark.parametrize("options", [{"init_scale": 0.0}, {"growth_factor": 1.0}, {"backoff_factor": 1.0}], ids=str)
def test_a_factor_out_of_its_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match=next(iter(options))):
        optim.GradScaler(**options)
