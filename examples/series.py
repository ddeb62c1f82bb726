"""Train an LSTM to go on with a series, as a job; then draw what it expects beside what came.

python examples/series.py                                    # the server inside this process
python examples/series.py --server grpc://127.0.0.1:50051    # a telegrad-server with --data-dir
"""

from __future__ import annotations

import argparse

import numpy as np
import telegrad as tg
from telegrad import nn, optim

PAST, AHEAD = 48, 24


class Forecast(nn.Module):
    """past[batch, PAST] -> ahead[batch, AHEAD]"""

    def __init__(self) -> None:
        super().__init__()
        self.reader = nn.LSTM(1, 32, batch_first=True)
        self.head = nn.Linear(32, AHEAD)

    def forward(self, past: tg.Tensor) -> tg.Tensor:
        """The values that follow."""
        states, _ = self.reader(past.unsqueeze(-1))
        return self.head(states[:, -1])


def series(length: int) -> np.ndarray:
    """Two tides, one of a day and one of a bit more than half, and noise."""
    hour = np.arange(length)
    noise = 0.05 * np.random.default_rng(0).normal(size=length)
    return (0.6 * np.sin(2 * np.pi * hour / 24) + 0.4 * np.sin(2 * np.pi * hour / 12.4) + noise).astype(np.float32)


def drawn(values: np.ndarray) -> str:
    """A character a value."""
    return "".join("▁▂▃▄▅▆▇█"[int(np.clip(4 * (value + 1), 0, 7))] for value in values)


def main(server: str | None, epochs: int) -> None:
    """Submit, watch, and compare with saying that the last day comes again."""
    windows = np.lib.stride_tricks.sliding_window_view(series(2000), PAST + AHEAD)
    past, ahead = windows[:, :PAST], windows[:, PAST:]
    seen = len(windows) - 200 - PAST - AHEAD  # no window of the training overlaps one that is held out
    with tg.connect(server, seed=0) as session:
        model = Forecast()
        optimizer = optim.AdamW(model.parameters(), lr=optim.lr_scheduler.CosineAnnealingLR(1e-2, T_max=epochs * 27))

        def train_step(past: tg.Tensor, ahead: tg.Tensor) -> tg.Tensor:
            loss = nn.functional.mse_loss(model(past), ahead)
            optimizer.minimize(loss)
            return loss

        job = session.submit(
            train_step, data={"past": past[:seen], "ahead": ahead[:seen]}, epochs=epochs, batch_size=64
        )
        job.watch().check()

        job.load_state(model)
        expected = model(tg.asarray(past[-200:])).numpy()
    error, naive = (np.abs(guess - ahead[-200:]).mean() for guess in (expected, past[-200:, -AHEAD:]))
    print(f"expected {drawn(expected[0])}\ncame     {drawn(ahead[-200])}")
    print(f"mean error {error:.3f}; {naive:.3f} if the last day came again")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", metavar="ADDRESS", help="a telegrad-server; embedded if not given")
    parser.add_argument("--epochs", type=int, default=8)
    main(**vars(parser.parse_args()))
