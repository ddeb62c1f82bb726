"""Train a network on handwritten digits: embedded, or on a server.

python examples/digits.py                          # the server inside this process
python examples/digits.py grpc://127.0.0.1:50051   # a telegrad-server
TELEGRAD_TOKEN_FILE=client.token python examples/digits.py grpcs://localhost:50051 ca.pem    # one with TLS and tokens
"""

from __future__ import annotations

import hashlib
import sys
import time

import numpy as np
import telegrad as tg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from sklearn.datasets import load_digits
from telegrad import nn, optim

EPOCHS, BATCH, SEED = 40, 64, 0


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, and those of a held-out fifth."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(images))
    images, labels = (images[order] / 16.0).astype(np.float32), labels[order]
    held = len(images) // 5
    return images[held:], labels[held:], images[:held], labels[:held]


def main(address: str | None, ca_cert: str | None = None) -> None:
    """Train, then print accuracy, speed, where the time went, and a digest of the parameters."""
    console = Console()
    images, labels, held_images, held_labels = digits()
    with tg.connect(address, ca_cert=ca_cert, seed=SEED) as session:
        console.print(f"{address or 'embedded'}: running on {session.backend}", style="bold")
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))
        optimizer = optim.AdamW(model.parameters(), lr=2e-3)
        x, y = tg.asarray(images), tg.asarray(labels)  # uploaded once; a step sends only row numbers

        @tg.function
        def train_step(rows: tg.Tensor) -> tg.Tensor:
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.minimize(loss)
            return loss

        @tg.function
        def accuracy(inputs: tg.Tensor, targets: tg.Tensor) -> tg.Tensor:
            return (model(inputs).argmax(axis=-1) == targets).astype(tg.float32).mean()

        rng = np.random.default_rng(SEED)
        steps = EPOCHS * (len(images) // BATCH)
        sending = waiting = 0.0
        start = time.perf_counter()
        columns = (TextColumn("epoch {task.fields[epoch]:>2}"), BarColumn(), TextColumn("loss {task.fields[loss]:.4f}"))
        with Progress(
            *columns, TextColumn("{task.fields[rate]:.0f} steps/s"), TimeElapsedColumn(), console=console
        ) as bar:
            task = bar.add_task("train", total=steps, epoch=0, loss=float("nan"), rate=0.0)
            for epoch in range(1, EPOCHS + 1):
                order = rng.permutation(len(images))
                began = time.perf_counter()
                for i in range(len(images) // BATCH):
                    loss = train_step(order[i * BATCH : (i + 1) * BATCH])  # returns at once
                sent = time.perf_counter()
                value = loss.item()  # the one round trip of an epoch
                waited = time.perf_counter()
                sending, waiting = sending + sent - began, waiting + waited - sent
                done = epoch * (len(images) // BATCH)
                bar.update(task, completed=done, epoch=epoch, loss=value, rate=done / (waited - start))
        seconds = time.perf_counter() - start
        model.eval()
        correct = accuracy(held_images, held_labels).item()
        state = model.state_dict()
        digest = hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()

    console.print(f"accuracy  {correct:.1%} on {len(held_images)} held-out images")
    console.print(f"speed     {steps / seconds:.0f} steps/s, {steps} steps in {seconds:.1f} s")
    console.print(f"time      {sending / seconds:.0%} sending steps, {waiting / seconds:.0%} waiting for results")
    console.print(f"bits      sha256 {digest[:16]} of the parameters")
    if correct < 0.96:
        sys.exit("the accuracy is below 96 %")


if __name__ == "__main__":
    main(*(sys.argv[1:] or [None]))
