"""Train a model whose second half lives on another worker, micro-batches through both in turns.

python examples/pipeline.py                                    # all on the worker inside this process, the same bits
telegrad-server --role gateway --workers 2                     # two workers on this machine, and then:
python examples/pipeline.py --server grpc://127.0.0.1:50051
"""

from __future__ import annotations

import argparse

import numpy as np
import telegrad as tg
from telegrad import nn, optim

ROWS, FEATURES, CLASSES, BATCH = 2048, 20, 3, 128


def main(server: str | None, epochs: int) -> None:
    """Train, and print where the parameters live and how well it does."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = (x @ rng.normal(size=(FEATURES, CLASSES))).argmax(axis=1)
    with tg.connect(server, seed=0) as session:
        body = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU())
        with tg.on("worker:1"):
            head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))  # never on worker 0
        model = nn.Sequential(body, head)
        optimizer = optim.AdamW(model.parameters(), lr=3e-3)  # and its state beside the parameters

        def loss_of(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            return nn.functional.cross_entropy(model(x), y)

        @tg.function
        def train_step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            loss = tg.pipeline(loss_of, micro_batches=4)(x, y)  # worker 0 begins the second while 1 has the first
            optimizer.minimize(loss)
            return loss

        print("parameters on workers", {name: p.worker for name, p in model.named_parameters()})
        for epoch in range(1, epochs + 1):
            losses = [train_step(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, ROWS, BATCH)]
            print(f"epoch {epoch}: loss {np.mean([loss.item() for loss in losses]):.4f}")
        correct = (model(tg.asarray(x)).numpy().argmax(axis=-1) == y).mean()
        for warning in session.warnings:
            print(warning)
    print(f"{correct:.1%} of the rows right")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", metavar="ADDRESS", help="a telegrad-server with two workers; embedded if not given")
    parser.add_argument("--epochs", type=int, default=5)
    main(**vars(parser.parse_args()))
