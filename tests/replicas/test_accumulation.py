"""Gradients that are added up over micro-batches are exchanged once, behind the sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad_server.compiler.collective import StartAllReduce
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.compiler.replicas import Share

from tests.replicas.divisions import Steps
from tests.replicas.test_bits import FOUR, batch, mlp

MICRO_BATCHES = 3
Loss = Callable[[nn.Module, tg.Tensor, tg.Tensor], tg.Tensor]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    with tg.connect(backend="numpy", new=True, seed=3):
        yield Steps(monkeypatch)


def squares(model: nn.Module, x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
    return ((model(x) - y) ** 2).mean()


def at_once(model: nn.Module, x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
    loss = squares(model, x, y)
    loss.backward()
    return loss


def by_calls(model: nn.Module, x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
    rows = x.shape[0] // MICRO_BATCHES
    losses = [squares(model, x[i * rows : (i + 1) * rows], y[i * rows : (i + 1) * rows]) for i in range(MICRO_BATCHES)]
    for loss in losses:
        (loss / MICRO_BATCHES).backward()
    return sum(losses[1:], losses[0]) / MICRO_BATCHES


def by_scan(model: nn.Module, x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
    def micro(total: tg.Tensor, part: tuple[tg.Tensor, tg.Tensor]) -> tuple[tg.Tensor, None]:
        return total + squares(model, *part) / MICRO_BATCHES, None

    rows = x.shape[0] // MICRO_BATCHES
    parts = x.reshape(MICRO_BATCHES, rows, -1), y.reshape(MICRO_BATCHES, rows, -1)
    loss, _ = tg.scan(micro, tg.asarray(np.float32(0)), parts)
    loss.backward()
    return loss


def exchanged_bytes(steps: Steps, accumulate: Loss) -> int:
    """What a worker with one of the replicas gives to the others in a step."""
    model = mlp()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    @tg.function(replicas=4)
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = accumulate(model, x, y)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    step(*batch(24, 6)).item()
    steps.check(*FOUR)
    function, _, _ = steps.calls.pop()
    plan = compile_function(function, share=Share(1, 2))
    return sum(plan.slots[s.outputs[0]].type.nbytes for s in plan.steps if isinstance(s.op, StartAllReduce))


def test_micro_batches_are_exchanged_once(steps: Steps) -> None:
    once = exchanged_bytes(steps, at_once)

    assert exchanged_bytes(steps, by_calls) == once
    assert exchanged_bytes(steps, by_scan) == once
    assert once < 2 * 4 * sum(p.size for p in mlp().parameters())  # and not once for each of the three
