"""A small model with all that a job must keep: dropout's keys, an optimizer's state, a schedule, two sizes of batch.

`by_hand` is the loop that a user would write, with the order of rows that a job has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import telegrad as tg
from telegrad import nn, optim
from telegrad_server.datasets import permuted

ROWS, BATCH, PER_EPOCH = 100, 32, 4


class Made(NamedTuple):
    model: nn.Module
    optimizer: optim.Optimizer
    step: Callable[..., Any]
    evaluate: Callable[..., Any]


def points(seed: int = 0, rows: int = ROWS) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 8)).astype(np.float32)
    return {"x": x, "y": (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)}


def made(width: int = 16) -> Made:
    model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 3))
    schedule = optim.lr_scheduler.CosineAnnealingLR(1e-2, T_max=40)
    optimizer = optim.AdamW(model.parameters(), lr=schedule)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> Any:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    @tg.function
    def evaluate(x: tg.Tensor, y: tg.Tensor) -> Any:
        model.eval()
        loss = nn.functional.cross_entropy(model(x), y)
        model.train()
        return {"loss": loss}

    return Made(model, optimizer, step, evaluate)


def by_hand(
    step: Callable[..., Any],
    data: dict[str, npt.NDArray[Any]],
    *,
    steps: int,
    seed: int,
    first: int = 0,
    read: Callable[[Any], Any] = lambda loss: loss,
) -> list[float]:
    losses: list[Any] = []
    for k in range(first, steps):
        epoch, number = divmod(k, PER_EPOCH)
        places = np.arange(number * BATCH, min((number + 1) * BATCH, ROWS))
        rows = permuted(places, rows=ROWS, seed=seed, epoch=epoch)
        losses.append(read(step(data["x"][rows], data["y"][rows])))
    return [float(loss.item()) for loss in losses]


def assert_equal_state(model: nn.Module, state: dict[str, npt.NDArray[Any]], root: str = "model") -> None:
    for name, array in model.state_dict().items():
        assert np.array_equal(array, state[f"{root}.{name}"]), name
