"""Optimizer state divided over workers: the bits of the undivided run, in every division."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.ir import Function
from telegrad_server.compiler import collective, shards
from telegrad_server.compiler.collective import StartAllReduce, StartGather
from telegrad_server.compiler.pipeline import Place, compile_function
from telegrad_server.compiler.plan import Plan
from telegrad_server.compiler.replicas import Share

from tests.replicas.divisions import Steps
from tests.replicas.test_bits import FOUR, batch, filled, training_step

pytestmark = pytest.mark.slow  # many divisions of many steps


@pytest.fixture
def session() -> Iterator[tg.Session]:
    with tg.connect(backend="numpy", new=True, seed=3) as session:
        yield session


@pytest.fixture
def steps(session: tg.Session, monkeypatch: pytest.MonkeyPatch) -> Steps:
    monkeypatch.setattr(shards, "SHARDED_BYTES", 1)
    return Steps(monkeypatch)


def odd_mlp(dtype: tg.DType = tg.float32) -> nn.Module:
    """Of sizes that no number of workers divides, nor a vector's length."""
    return filled(nn.Sequential(nn.Linear(6, 37, dtype=dtype), nn.GELU(), nn.Linear(37, 3, dtype=dtype)))


def plan_of(steps: Steps) -> tuple[Function, Plan]:
    function, _, _ = steps.calls[-1]
    return function, compile_function(function, share=Share(0, 1), place=Place(0, 4))


def divided(steps: Steps) -> int:
    """How many inputs are spans on a worker."""
    function, plan = plan_of(steps)
    assert function.replication is not None
    split = function.replication.split_inputs
    pairs = zip(plan.input_types, function.input_types, strict=True)
    return sum(own != whole for i, (own, whole) in enumerate(pairs) if i not in split)


OPTIMIZERS: list[tuple[Callable[..., Any], dict[str, Any], int]] = [
    (optim.AdamW, {}, 2),
    (optim.Adam, {"amsgrad": True}, 3),
    (optim.SGD, {"momentum": 0.9}, 1),
    (optim.SGD, {}, 0),
    (optim.RMSprop, {"momentum": 0.9}, 2),
    (optim.Lion, {}, 1),
    (optim.Adagrad, {}, 1),
    (optim.LAMB, {}, 0),  # norms of updates: found, not refused
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "options", "variables"), OPTIMIZERS)
def test_elementwise_state_is_divided_and_has_the_same_bits(
    steps: Steps, make: Callable[..., Any], options: dict[str, Any], variables: int
) -> None:
    step = training_step(odd_mlp(), lambda params, lr: make(params, lr=lr, **options), replicas=4, shard_optimizer=True)

    for seed in range(2):
        step(*batch(10, 6, seed=seed))["loss"].item()

    steps.check(*FOUR)
    assert divided(steps) == 4 * variables


def test_master_weights_of_16_bit_parameters_are_divided(steps: Steps) -> None:
    model = odd_mlp(tg.bfloat16)
    optimizer = optim.AdamW([{"params": list(model.parameters()), "master_weights": True}], lr=1e-2)

    @tg.function(replicas=4, shard_optimizer=True)
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = ((model(x).astype(tg.float32) - y) ** 2).mean()
        optimizer.minimize(loss)
        return loss

    x, y = batch(10, 6)
    for _ in range(2):
        step(tg.asarray(x, dtype=tg.bfloat16), y).item()

    steps.check(*FOUR)
    assert divided(steps) == 3 * 4


@pytest.mark.parametrize("clips", [True, False])
def test_large_gradients_are_scattered_where_no_norm_is_taken(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, clips: bool
) -> None:
    monkeypatch.setattr(collective, "ALONE_BYTES", 1)
    monkeypatch.setattr("telegrad_server.compiler.replicas.ALONE_BYTES", 1)
    model = odd_mlp()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    @tg.function(replicas=4, shard_optimizer=True)
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        if clips:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for seed in range(2):
        step(*batch(10, 6, seed=seed)).item()

    steps.check(*FOUR)
    _, plan = plan_of(steps)
    spans = [step.op.span for step in plan.steps if isinstance(step.op, StartAllReduce) and step.op.span is not None]
    assert len(spans) == (0 if clips else 4)
    assert sum(isinstance(step.op, StartGather) for step in plan.steps) == 4


def test_state_that_something_else_reads_stays_whole(steps: Steps) -> None:
    model = odd_mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    buffers = [v for state in optimizer.state.values() for v in state.values() if v.shape]

    @tg.function(replicas=4, shard_optimizer=True)
    def step(x: tg.Tensor, y: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        loss = ((model(x) - y) ** 2).mean()
        optimizer.minimize(loss)
        return loss, (buffers[0] * buffers[0]).sum()

    for seed in range(2):
        step(*batch(10, 6, seed=seed))[1].item()

    steps.check(*FOUR)
    assert divided(steps) == len(buffers) - 1


def test_what_is_updated_may_be_used_again_in_the_same_step(steps: Steps) -> None:
    """A mean of parameters is updated from new ones, and the result reads these whole."""
    model = odd_mlp()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    weight = next(iter(model.parameters()))
    mean = tg.Variable(np.zeros(weight.shape, np.float32))

    @tg.function(replicas=4, shard_optimizer=True)
    def step(x: tg.Tensor, y: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        optimizer.minimize(((model(x) - y) ** 2).mean())
        mean.assign(mean * 0.9 + weight.detach() * 0.1)
        return ((model(x) - y) ** 2).mean(), weight.detach()

    for seed in range(2):
        step(*batch(10, 6, seed=seed))[0].item()

    steps.check(*FOUR)
    assert divided(steps) == 9


def test_it_wants_replicas() -> None:
    with pytest.raises(tg.errors.GraphError, match="give replicas=n"):
        tg.function(lambda x: x, shard_optimizer=True)
