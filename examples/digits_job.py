"""Train on handwritten digits as a job: submitted, followed, and its weights fetched, from one program or from three.

python examples/digits_job.py                                    # the server inside this process
python examples/digits_job.py --server grpc://127.0.0.1:50051    # a telegrad-server with --data-dir
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import telegrad as tg
from sklearn.datasets import load_digits
from telegrad import nn, optim
from telegrad.jobs import EarlyStopping, KeepBest

BATCH, SEED = 64, 0


def network() -> nn.Sequential:
    """The model, untrained."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))


def main(server: str | None, epochs: int) -> None:
    """Submit, watch, and look at what came of it."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(images))
    x, y = (images[order] / 16.0).astype(np.float32), labels[order]
    held = len(x) // 5
    with tg.connect(server, seed=SEED) as session:
        model = network()
        optimizer = optim.AdamW(model.parameters(), lr=optim.lr_scheduler.CosineAnnealingLR(2e-3, T_max=epochs * 23))

        def train_step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.minimize(loss)
            return loss

        def evaluate(x: tg.Tensor, y: tg.Tensor) -> dict[str, tg.Tensor]:
            model.eval()
            scores = model(x)
            model.train()
            correct = (scores.argmax(axis=-1) == y).astype(tg.float32).mean()
            return {"loss": nn.functional.cross_entropy(scores, y), "accuracy": correct}

        job = session.submit(
            train_step,
            data={"x": x[held:], "y": y[held:]},
            epochs=epochs,
            batch_size=BATCH,
            validate=evaluate,
            validation_data={"x": x[:held], "y": y[:held]},
            early_stopping=EarlyStopping("val/loss", "min", patience=8),
            keep_best=KeepBest("val/loss", "min"),
        )
        print(f"submitted {job.name}: session.jobs[{job.name!r}] finds it from any program")
        job.watch().check()

        trained = network()
        step = job.load_state(trained)
        trained.eval()
        accuracy = (trained(tg.asarray(x[:held])).numpy().argmax(axis=-1) == y[:held]).mean()
        best = job.history["val/accuracy"]["value"].max()
        print(f"after step {step} ({job.reason}): {accuracy:.1%} of the held-out images, {best:.1%} at best")
    if epochs >= 20 and accuracy < 0.96:
        sys.exit("the accuracy is below 96 %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", metavar="ADDRESS", help="a telegrad-server; embedded if not given")
    parser.add_argument("--epochs", type=int, default=30)
    main(**vars(parser.parse_args()))
