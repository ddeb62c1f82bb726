"""The bits of a data-parallel function do not depend on who carries which replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad_server.compiler import fuse
from telegrad_server.executors.compiling import found_compiler

from tests.replicas.divisions import Steps

Step = Callable[..., Any]
FOUR = ([4], [1, 1, 1, 1], [3, 1], [1, 3], [2, 2], [1, 2, 1])


@pytest.fixture
def session() -> Iterator[tg.Session]:
    with tg.connect(backend="numpy", new=True, seed=3) as session:
        yield session


@pytest.fixture
def steps(session: tg.Session, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels in C for graphs of any size."""
    if found_compiler() is None:
        pytest.skip("there is no C compiler")
    monkeypatch.setattr(fuse, "LEAST_ELEMENTS", 0)


def filled(model: nn.Module, seed: int = 0) -> nn.Module:
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        p.assign(tg.asarray(rng.normal(size=p.shape) / 3, dtype=p.dtype))
    return model


def mlp(dtype: tg.DType = tg.float32) -> nn.Module:
    return filled(nn.Sequential(nn.Linear(6, 16, dtype=dtype), nn.GELU(), nn.Linear(16, 3, dtype=dtype)))


def training_step(model: nn.Module, make: Callable[..., Any] = optim.AdamW, **options: Any) -> Step:
    """A step with AdamW and clipping on the squared error."""
    optimizer = make(model.parameters(), lr=1e-2)

    def step(x: Any, y: Any) -> Any:
        out = model(x)
        loss = ((out - y) ** 2).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": loss, "norm": norm, "out": out}

    return tg.function(step, **options)


def batch(rows: int, *shape: int, out: int = 3, dtype: Any = np.float32, seed: int = 1) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, *shape)).astype(dtype), rng.normal(size=(rows, out)).astype(dtype)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("rows", [12, pytest.param(10, marks=SLOW), pytest.param(5, marks=SLOW)])
def test_an_mlp(steps: Steps, rows: int) -> None:
    step = training_step(mlp(), replicas=4)

    for seed in range(2):
        step(*batch(rows, 6, seed=seed))["loss"].item()

    steps.check(*FOUR)


@pytest.mark.parametrize("replicas", [3, pytest.param(5, marks=SLOW), pytest.param(7, marks=SLOW)])
def test_numbers_of_replicas_that_are_no_power_of_two(steps: Steps, replicas: int) -> None:
    step = training_step(mlp(), replicas=replicas)

    step(*batch(2 * replicas + 1, 6))["loss"].item()

    steps.check([replicas], [1] * replicas, [1, replicas - 1], [2, replicas - 2], [replicas - 1, 1])


def test_fewer_rows_than_replicas(steps: Steps) -> None:
    step = training_step(mlp(), replicas=8)

    step(*batch(3, 6))["loss"].item()

    steps.check([3], [1, 1, 1], [2, 1])


def test_sixteen_bits(steps: Steps) -> None:
    step = training_step(mlp(tg.bfloat16), replicas=4)
    x, y = batch(10, 6)

    step(tg.asarray(x, dtype=tg.bfloat16), tg.asarray(y, dtype=tg.bfloat16))["loss"].item()

    steps.check(*FOUR)


def test_dropout(steps: Steps) -> None:
    model = filled(nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.Linear(32, 3)))
    step = training_step(model, replicas=4)

    for _ in range(2):
        step(*batch(10, 6))["loss"].item()

    steps.check(*FOUR)


class Net(nn.Module):
    """Two convolutions with batch norm."""

    def __init__(self, dtype: tg.DType = tg.float32) -> None:
        super().__init__()
        self.first, self.one = nn.Conv2d(2, 4, 3, dtype=dtype), nn.BatchNorm2d(4, dtype=dtype)
        self.second, self.two = nn.Conv2d(4, 5, 3, dtype=dtype), nn.BatchNorm2d(5, dtype=dtype)
        self.out = nn.Linear(5, 3, dtype=dtype)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        x = nn.functional.relu(self.one(self.first(x)))
        x = nn.functional.relu(self.two(self.second(x)))
        return self.out(x.mean((2, 3)))


def test_kernels_in_a_loop_over_replicas(kernels: None, steps: Steps) -> None:
    """A norm's root is a power with a constant, and a kernel only for what the constant is: inside the loop, too."""
    model = nn.Sequential(mlp(), nn.LayerNorm(3))
    step = training_step(model, replicas=4)

    for _ in range(2):
        step(*batch(10, 6))["loss"].item()

    steps.check([4], [1, 1, 1, 1], [3, 1])


@pytest.mark.parametrize("is_synchronised", [False, True])
@pytest.mark.slow
def test_a_convolutional_network_with_batch_norm(steps: Steps, is_synchronised: bool) -> None:
    model = filled(Net())
    if is_synchronised:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    step = training_step(model, replicas=4)

    for _ in range(2):
        step(*batch(10, 2, 8, 8))["loss"].item()

    steps.check(*FOUR)


def small_gpt() -> tg.models.GPT2LMHeadModel:
    config = tg.models.GPT2Config(vocab_size=19, n_positions=12, n_embd=16, n_layer=2, n_head=2)
    return tg.models.GPT2LMHeadModel(config)


@pytest.mark.slow
def test_a_small_gpt_with_dropout(steps: Steps) -> None:
    model = small_gpt()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    @tg.function(replicas=4)
    def step(tokens: Any) -> Any:
        logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.reshape((-1, 19)), tokens[:, 1:].reshape((-1,)))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for seed in range(2):
        step(np.random.default_rng(seed).integers(0, 19, (6, 9))).item()

    steps.check(*FOUR)


def test_scan_and_cond_in_a_replica(steps: Steps) -> None:
    w = tg.Parameter(np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32))
    optimizer = optim.SGD([w], lr=0.1)

    @tg.function(replicas=4)
    def step(x: Any) -> Any:
        h, _ = tg.scan(
            lambda h, x: (tg.tanh(h @ w + nn.functional.dropout(x, 0.3)), None), x[:, 0] * 0, x.mT.mT.permute((1, 0, 2))
        )
        loss = tg.cond(h.sum() > 0, lambda h: (h * h).mean(), lambda h: tg.abs(h).mean(), h)
        optimizer.minimize(loss)
        return loss, h

    step(batch(10, 5, 4)[0])[0].item()

    steps.check(*FOUR)
