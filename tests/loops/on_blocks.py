"""A job on Parquet files that are many times what may be held of them, and the loop by hand on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import telegrad as tg
from telegrad import nn, optim
from telegrad.jobs import Job
from telegrad_server.datasets import Pass, parse_roots
from telegrad_server.datasets.layout import Layout, Order
from telegrad_server.datasets.listing import listed_here
from telegrad_server.datasets.shards import Shards

from tests.datasets.parquets import WIDTH, write
from tests.loops.undisturbed import NAME

BATCH = 32
WINDOW_BYTES = 100 * (WIDTH * 4 + 8)
FILES = [(rows, 10 + rows % 13) for rows in range(90, 330, 6)]


class Files(NamedTuple):
    """Files of a test: the setting, their columns, how they lie in blocks, and the room that a loop needs."""

    roots: str
    x: Any
    y: Any
    layout: Layout

    @property
    def options(self) -> tuple[str, ...]:
        """What a server is started with that has them, and room for a window and the next."""
        return ("--dataset-roots", self.roots, "--cache-bytes", str(self.layout.shuffling_bytes))

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.x) // BATCH)


def written(folder: Path) -> Files:
    """Files of some thousand rows."""
    x, y = write(folder / "clicks", files=FILES)
    roots = f"clicks={folder}/clicks?kind=parquet&shuffle_bytes={WINDOW_BYTES}"
    (root,) = parse_roots(roots)
    listing = listed_here(root)
    assert listing is not None
    files = Files(roots, x, y, Shards(root, listing, folder / "notes.json").layout)
    assert x.nbytes + y.nbytes > 20 * files.layout.shuffling_bytes
    return files


def made(*, replicas: int) -> tuple[nn.Module, Callable[..., Any]]:
    """A model with dropout, and its step."""
    model = nn.Sequential(nn.Linear(WIDTH, 16), nn.Dropout(0.2), nn.Linear(16, 1))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        wanted = tg.sin(tg.astype(y, tg.float32) * 0.37)
        loss = ((model(x)[:, 0] - wanted) ** 2).mean()
        optimizer.minimize(loss)
        return loss

    return model, tg.function(replicas=replicas)(step) if replicas > 1 else tg.function(step)


def submitted(session: tg.Session, *, steps: int, replicas: int = 1, every: int = 3, data: str = "clicks") -> Job:
    """The job."""
    with session.active():
        _, step = made(replicas=replicas)
        return session.submit(
            step, data=session.datasets[data], steps=steps, batch_size=BATCH, checkpoint_every=every, name=NAME
        )


def by_hand(files: Files, *, steps: int, seed: int, replicas: int = 1) -> tuple[nn.Module, list[float]]:
    """The same loop in the active session."""
    model, step = made(replicas=replicas)
    rows = len(files.x)
    losses: list[tg.Tensor] = []
    for k in range(steps):
        epoch, number = divmod(k, files.steps_per_epoch)
        places = np.arange(number * BATCH, min((number + 1) * BATCH, rows))
        chosen = Order(files.layout, Pass(0, rows, seed, epoch)).rows(places)
        losses.append(step(files.x[chosen], files.y[chosen]))
    return model, [float(loss.item()) for loss in losses]
