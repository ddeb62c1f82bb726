"""Gradient clipping, averaged weights, and gradients added up over micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import GraphError

pytestmark = pytest.mark.usefixtures("session")


@pytest.fixture
def session() -> Iterator[tg.Session]:
    """The embedded worker: what is compared here does not depend on the connection."""
    with tg.connect(None, backend="numpy", new=True) as session:
        yield session


GRADS = [np.random.default_rng(0).standard_normal(shape) for shape in ((3, 4), (5,), ())]


@pytest.mark.torch
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
@pytest.mark.parametrize("is_eager", [True, False])
def test_gradients_are_clipped_to_a_norm_as_in_pytorch(norm_type: float, max_norm: float, is_eager: bool) -> None:
    torch = pytest.importorskip("torch")
    theirs = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in GRADS]
    ours = [tg.Parameter(np.zeros(g.shape)) for g in GRADS]
    for there, here, grad in zip(theirs, ours, GRADS, strict=True):
        there.grad, here.grad = torch.tensor(grad), tg.asarray(grad)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)

    def clip() -> tg.Tensor:
        return nn.utils.clip_grad_norm_(ours, max_norm, norm_type)

    norm = (clip if is_eager else tg.function(clip))()

    np.testing.assert_allclose(norm.numpy(), expected.numpy(), rtol=1e-12)
    for there, here in zip(theirs, ours, strict=True):
        assert here.grad is not None
        np.testing.assert_allclose(here.grad.numpy(), there.grad.numpy(), rtol=1e-12)


@pytest.mark.torch
def test_gradients_are_clipped_by_value_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    there, here = torch.zeros((3, 4), dtype=torch.float64, requires_grad=True), tg.Parameter(np.zeros((3, 4)))
    there.grad, here.grad = torch.tensor(GRADS[0]), tg.asarray(GRADS[0])
    torch.nn.utils.clip_grad_value_(there, 0.3)

    nn.utils.clip_grad_value_(here, 0.3)

    assert here.grad is not None
    np.testing.assert_array_equal(here.grad.numpy(), there.grad.numpy())


def test_lamps_golden_number_of_clipping() -> None:
    # of lamp's test "gradient clipping": ones(1, 2, 3) and ones(1, 2), theta 2.1; there is no 1e-6 in the divisor there
    parameters = [tg.Parameter(np.zeros((1, 2, 3))), tg.Parameter(np.zeros((1, 2)))]
    for parameter in parameters:
        parameter.grad = tg.ones_like(parameter)

    nn.utils.clip_grad_norm_(parameters, 2.1)

    for parameter in parameters:
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), 0.7424621, rtol=1e-6)


def test_parameters_without_gradients_are_left_out() -> None:
    a, b = tg.Parameter(np.zeros(2)), tg.Parameter(np.zeros(2))
    assert nn.utils.clip_grad_norm_([a, b], 1.0).item() == 0
    a.grad = tg.asarray(np.array([3.0, 4.0]))

    assert nn.utils.clip_grad_norm_(iter([a, b]), 1.0).item() == 5
    assert b.grad is None
    with pytest.raises(GraphError, match="norm_type"):
        nn.utils.clip_grad_norm_([a], 1.0, 0)


def test_float16_gradients_have_a_float32_norm() -> None:
    w = tg.Parameter(np.zeros(4, np.float16))
    w.grad = tg.asarray(np.full(4, 200.0, np.float16))  # squares beyond 65504

    norm = nn.utils.clip_grad_norm_(w, 1.0)

    assert (norm.item(), norm.dtype, w.grad.dtype) == (400.0, tg.float32, tg.float16)
    np.testing.assert_allclose(w.grad.numpy(), 0.5, rtol=1e-3)


def test_a_traced_step_clips() -> None:
    w = tg.Parameter(np.zeros(2))
    optimizer = optim.SGD([w], lr=1.0)

    @tg.function
    def step(scale: float) -> tg.Tensor:
        (w * scale).sum().backward()
        norm = nn.utils.clip_grad_norm_([w], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return norm

    norms = [step(scale).item() for scale in (10.0, 0.1)]

    np.testing.assert_allclose(norms, [10 * 2**0.5, 0.1 * 2**0.5])
    np.testing.assert_allclose(w.numpy(), -(0.5**0.5) - 0.1, rtol=1e-6)
    assert step.traces == 1


# ---- averages


def models(use_buffers: bool) -> tuple[Any, nn.Module]:
    torch = pytest.importorskip("torch")

    class Their(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
            self.register_buffer("seen", torch.zeros(2, dtype=torch.float64))

    class Our(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = tg.Parameter(np.ones(3))
            self.register_buffer("seen", np.zeros(2))

    return Their(), Our()


@pytest.mark.torch
@pytest.mark.parametrize("use_buffers", [True, False])
@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("is_eager", [True, False])
def test_an_averaged_model_is_pytorchs(use_buffers: bool, decay: float | None, is_eager: bool) -> None:
    torch = pytest.importorskip("torch")
    their, our = models(use_buffers)
    averages = []
    for library, model in ((torch.optim.swa_utils, their), (optim.swa_utils, our)):
        average = None if decay is None else library.get_ema_avg_fn(decay)
        averages.append(library.AveragedModel(model, avg_fn=average, use_buffers=use_buffers))
    theirs, ours = averages

    def update() -> None:
        ours.update_parameters(our)

    run = update if is_eager else tg.function(update)
    for i in range(5):
        with torch.no_grad():
            their.weight += i + 1
            their.seen += 2 * i
        our.weight.assign(our.weight + (i + 1))
        our.seen.assign(our.seen + 2 * i)
        theirs.update_parameters(their)
        run()

    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=1e-12)
    assert ours.n_averaged.dtype is tg.int64


def test_the_average_is_a_model_of_its_own() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    average = optim.swa_utils.AveragedModel(model, avg_fn=optim.swa_utils.get_ema_avg_fn(0.5))
    x = tg.ones((4, 2))
    before = average(x).numpy()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @tg.function
    def step() -> None:
        optimizer.minimize((model(x) ** 2).sum())
        average.update_parameters(model)

    step()
    np.testing.assert_array_equal(average(x).numpy(), model(x).numpy())
    step()

    assert not np.array_equal(average(x).numpy(), model(x).numpy())
    assert not np.array_equal(average(x).numpy(), before)
    assert step.traces == 1
    other = optim.swa_utils.AveragedModel(model)
    other.load_state_dict(average.state_dict())
    np.testing.assert_array_equal(other(x).numpy(), average(x).numpy())


@pytest.mark.torch
def test_batch_norms_get_the_statistics_of_a_pass_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    batches = [rng.normal(i, 1 + i, (6, 3)).astype(np.float32) for i in range(4)]
    their = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.0), torch.nn.BatchNorm1d(3, momentum=0.3))
    our = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.0), nn.BatchNorm1d(3, momentum=0.3))
    for model in (their, our):
        model.eval()
        model[1].train()

    torch.optim.swa_utils.update_bn([(torch.from_numpy(x), 1) for x in batches], their)
    optim.swa_utils.update_bn([(tg.asarray(x), 1) for x in batches], our)

    for name, value in their.state_dict().items():
        np.testing.assert_allclose(our.state_dict()[name], value.numpy(), rtol=1e-5, atol=1e-6)
    assert [m.training for m in our.modules()] == [False, False, True, False]
    assert (our[0].momentum, our[2].momentum) == (0.1, 0.3)


def test_a_model_without_batch_norms_is_not_run() -> None:
    optim.swa_utils.update_bn(iter([tg.ones((1, 2))]), nn.Linear(3, 1))


def test_copies_of_variables_and_tensors_are_leaves_of_their_own() -> None:
    w, x = tg.Parameter(np.ones(2), name="w"), tg.asarray(np.ones(2))
    twice = deepcopy([w, w, x])

    twice[0].assign(np.zeros(2))
    twice[2][0] = 5.0

    assert twice[1] is twice[0]
    assert (type(twice[0]), twice[0].name, twice[0].requires_grad) == (tg.Parameter, "w", True)
    assert (w.tolist(), x.tolist(), twice[2].tolist()) == ([1, 1], [1, 1], [5, 1])


# ---- micro-batches


@pytest.mark.parametrize("is_eager", [True, False])
def test_micro_batches_whose_losses_are_divided_equal_one_batch(is_eager: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 3)), rng.standard_normal(12)
    whole, parts = tg.Parameter(np.ones(3)), tg.Parameter(np.ones(3))
    one, many = optim.AdamW([whole], lr=0.1), optim.AdamW([parts], lr=0.1)
    k = 4

    def add(x: tg.Tensor, y: tg.Tensor) -> None:
        (((x @ parts - y) ** 2).mean() / k).backward()

    def step() -> None:
        many.step()
        many.zero_grad()

    run_add, run_step = (add, step) if is_eager else (tg.function(add), tg.function(step))
    for _ in range(3):
        one.minimize(((tg.asarray(x) @ whole - tg.asarray(y)) ** 2).mean())
        for i in range(k):
            run_add(tg.asarray(x[i::k]), tg.asarray(y[i::k]))
        run_step()

    np.testing.assert_allclose(parts.numpy(), whole.numpy(), rtol=1e-12)
    assert is_eager or run_add.traces == 2  # with a gradient before, and without
