"""A job of a small model's, of 10 steps an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import telegrad as tg
from telegrad import nn, optim


def train(session: tg.Session, name: str, *, epochs: int) -> Any:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(640, 8)).astype(np.float32)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> Any:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return {"loss": loss}

    data = {"x": x, "y": (x[:, 0] > 0).astype(np.int64)}
    return session.submit(step, data=data, epochs=epochs, batch_size=64, name=name)
