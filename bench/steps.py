"""A training step whose length can be chosen: an MLP of some width with AdamW, in a session."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import telegrad as tg
from telegrad import nn, optim


def training(
    session: tg.Session, *, width: int, batch: int, feed: Literal["resident", "fresh"] = "resident"
) -> Callable[[int], float]:
    """Trains for so many steps and returns the seconds a step, the last loss being read."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((batch, 64)).astype(np.float32), rng.integers(0, 10, batch)
    with session.active():
        model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
        optimizer = optim.AdamW(model.parameters())
        resident = tg.asarray(x), tg.asarray(y)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    def run(steps: int) -> float:
        with session.active():
            began = time.perf_counter()
            for _ in range(steps):
                loss = step(*(resident if feed == "resident" else (x.copy(), y.copy())))
            loss.item()
            return (time.perf_counter() - began) / steps

    run(5)
    return run
