"""The tour: connect, train a line, close. Under five seconds; the first test to read."""

from __future__ import annotations

import numpy as np
import telegrad as tg
from telegrad import nn, optim


def test_a_line_is_learnt() -> None:
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    y = 3 * x - 1

    with tg.connect(backend="numpy", new=True):
        model = nn.Linear(1, 1)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        @tg.function
        def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.minimize(loss)
            return loss

        for _ in range(300):
            loss = step(x, y)

        assert loss.item() < 1e-9
        np.testing.assert_allclose([model.weight.item(), model.bias.item()], [3, -1], atol=1e-4)
