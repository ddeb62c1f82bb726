"""Train a network on handwritten digits, step by step: embedded, or on a server.

python examples/digits.py                                     # the server inside this process
python examples/digits.py --server grpc://127.0.0.1:50051     # a telegrad-server
TELEGRAD_TOKEN_FILE=client.token python examples/digits.py --server grpcs://localhost:50051 --ca-cert ca.pem
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time

import numpy as np
import telegrad as tg
from rich.progress import track
from sklearn.datasets import load_digits
from telegrad import nn, optim

BATCH, SEED = 64, 0


def main(server: str | None, ca_cert: str | None, epochs: int) -> None:
    """Train, then print accuracy, speed, where the time went, and a digest of the parameters."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(images))
    images, labels = (images[order] / 16.0).astype(np.float32), labels[order]
    held = len(images) // 5
    with tg.connect(server, ca_cert=ca_cert, seed=SEED) as session:
        print(f"{server or 'embedded'}: running on {session.backend}")
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))
        optimizer = optim.AdamW(model.parameters(), lr=2e-3)
        x, y = tg.asarray(images[held:]), tg.asarray(labels[held:])  # uploaded once; a step sends only row numbers

        @tg.function
        def train_step(rows: tg.Tensor) -> tg.Tensor:
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.minimize(loss)
            return loss

        @tg.function
        def accuracy(inputs: tg.Tensor, targets: tg.Tensor) -> tg.Tensor:
            return (model(inputs).argmax(axis=-1) == targets).astype(tg.float32).mean()

        rng = np.random.default_rng(SEED)
        per_epoch = len(x) // BATCH
        sending = waiting = 0.0
        loss = np.nan
        for _ in track(range(epochs), description="epochs"):
            began = time.perf_counter()
            for rows in np.split(rng.permutation(len(x))[: per_epoch * BATCH], per_epoch):
                mean = train_step(rows)  # returns at once
            sent = time.perf_counter()
            loss = mean.item()  # the one round trip of an epoch
            sending, waiting = sending + sent - began, waiting + time.perf_counter() - sent
        model.eval()
        correct = accuracy(images[:held], labels[:held]).item()
        state = model.state_dict()
        digest = hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()

    steps, seconds = epochs * per_epoch, sending + waiting
    print(f"accuracy  {correct:.1%} on {held} held-out images, loss {loss:.4f}")
    print(f"speed     {steps / seconds:.0f} steps/s, {steps} steps in {seconds:.1f} s")
    print(f"time      {sending / seconds:.0%} sending steps, {waiting / seconds:.0%} waiting for results")
    print(f"bits      sha256 {digest[:16]} of the parameters")
    if epochs >= 20 and correct < 0.96:
        sys.exit("the accuracy is below 96 %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", metavar="ADDRESS", help="a telegrad-server; embedded if not given")
    parser.add_argument("--ca-cert", metavar="FILE", help="the certificate to trust")
    parser.add_argument("--epochs", type=int, default=40)
    main(**vars(parser.parse_args()))
