"""Train a convolutional network on images as a job, each epoch with other noise, and look at what it takes for what.

python examples/cnn.py                                    # the server inside this process
python examples/cnn.py --server grpc://127.0.0.1:50051    # a telegrad-server with --data-dir
"""

from __future__ import annotations

import argparse

import numpy as np
import telegrad as tg
from sklearn.datasets import load_digits
from telegrad import nn, optim
from telegrad.jobs import KeepBest


def network() -> nn.Sequential:
    """image[batch, 1, 16, 16] -> scores[batch, 10], untrained."""
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 10))


def main(server: str | None, epochs: int) -> None:
    """Submit, watch, and count the mistakes of the best checkpoint."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    images = digits.images[order].repeat(2, axis=1).repeat(2, axis=2)  # 16 x 16
    images = (images[:, None] * 15).astype(np.uint8)  # bytes travel and are stored; the graph makes floats of them
    labels = digits.target[order]
    held = len(images) // 5
    with tg.connect(server, seed=0) as session:
        model = network()
        optimizer = optim.AdamW(model.parameters(), lr=3e-3)

        def train_step(images: tg.Tensor, labels: tg.Tensor) -> tg.Tensor:
            x = images.float() / 240
            x = x + 0.2 * tg.random.normal(x.shape)  # drawn by the job: the same again after a crash
            loss = nn.functional.cross_entropy(model(x), labels)
            optimizer.minimize(loss)
            return loss

        def evaluate(images: tg.Tensor, labels: tg.Tensor) -> dict[str, tg.Tensor]:
            model.eval()  # batch norm: the statistics that training has gathered
            scores = model(images.float() / 240)
            model.train()
            return {"accuracy": (scores.argmax(axis=-1) == labels).float().mean()}

        job = session.submit(
            train_step,
            data={"images": images[held:], "labels": labels[held:]},
            validate=evaluate,
            validation_data={"images": images[:held], "labels": labels[:held]},
            keep_best=KeepBest("val/accuracy", "max"),
            epochs=epochs,
            batch_size=64,
        )
        job.watch().check()

        accuracy = job.history["val/accuracy"]
        best = int(accuracy["step"][accuracy["value"].argmax()])
        trained = network()
        job.load_state(trained, step=best)
        trained.eval()
        found = trained(tg.asarray(images[:held]).float() / 240).numpy().argmax(axis=-1)
    print(f"accuracy {(found == labels[:held]).mean():.1%} on {held} held-out images, at step {best}")
    for truth, taken in zip(labels[:held], found, strict=True):
        if truth != taken:
            print(f"  a {truth} taken for a {taken}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", metavar="ADDRESS", help="a telegrad-server; embedded if not given")
    parser.add_argument("--epochs", type=int, default=6)
    main(**vars(parser.parse_args()))
