"""Train a recommender of two towers on clicks, as a job; then compare it with recommending what is popular.

python examples/two_tower.py                                    # the server inside this process
python examples/two_tower.py --server grpc://127.0.0.1:50051    # a telegrad-server with --data-dir
"""

from __future__ import annotations

import argparse

import numpy as np
import telegrad as tg
from telegrad import models, optim

USERS, ITEMS, KINDS, CLICKS = 500, 200, 8, 20_000


def clicks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who clicked what, and each item's kind: a user likes two kinds, and of each the popular items more."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, KINDS, ITEMS)
    taste = rng.integers(0, KINDS, (USERS, 2))
    liking = rng.normal(size=ITEMS) + 4 * (kind == taste[:, :1]) + 4 * (kind == taste[:, 1:])
    user = rng.integers(0, USERS, CLICKS)
    item = (liking[user] + rng.gumbel(size=(CLICKS, ITEMS))).argmax(axis=1)  # drawn by the softmax of the likings
    return user.astype(np.int32), item.astype(np.int32), kind.astype(np.int32)


def main(server: str | None, epochs: int) -> None:
    """Submit, watch, and count how many of the later clicks are among ten recommendations."""
    user, item, kind = clicks()
    about = np.stack([np.arange(ITEMS, dtype=np.int32), kind], axis=1)  # an item as its tower sees it
    frequency = np.log((1 + np.bincount(item, minlength=ITEMS)) / CLICKS).astype(np.float32)
    seen = CLICKS * 9 // 10
    with tg.connect(server, seed=0) as session:
        model = models.TwoTower(
            models.Tower([USERS], embedding_dim=16, hidden=[32], out_features=16),
            models.Tower([ITEMS, KINDS], embedding_dim=16, hidden=[32], out_features=16),
            temperature=0.1,
        )
        optimizer = optim.AdamW(model.parameters(), lr=3e-3)

        def train_step(user: tg.Tensor, item: tg.Tensor, frequency: tg.Tensor) -> tg.Tensor:
            loss = model.loss(model.query(user), model.item(item), item[:, 0], frequency)
            optimizer.minimize(loss)
            return loss

        job = session.submit(
            train_step,
            data={"user": user[:seen, None], "item": about[item[:seen]], "frequency": frequency[item[:seen]]},
            epochs=epochs,
            batch_size=256,
            drop_last=True,
        )
        job.watch().check()

        job.load_state(model)
        best, _ = model.retrieve(model.query(tg.asarray(user[seen:, None])), model.item(tg.asarray(about)), k=10)
        hits = (best.numpy() == item[seen:, None]).any(axis=1).mean()
    popular = np.isin(item[seen:], np.bincount(item[:seen], minlength=ITEMS).argsort()[-10:]).mean()
    print(f"{hits:.1%} of the later clicks are among ten recommendations; {popular:.1%} among the ten popular items")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", metavar="ADDRESS", help="a telegrad-server; embedded if not given")
    parser.add_argument("--epochs", type=int, default=10)
    main(**vars(parser.parse_args()))
