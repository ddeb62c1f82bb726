"""Train data-parallel, as a job of two replicas: the bits are the same on one worker and on two.

python examples/replicas.py                                    # the server inside this process
python examples/replicas.py --server grpc://127.0.0.1:50051    # a telegrad-server with --data-dir
"""

from __future__ import annotations

import argparse
import hashlib

import numpy as np
import telegrad as tg
from telegrad import nn, optim

ROWS, FEATURES = 4096, 16


def main(server: str | None, epochs: int) -> None:
    """Submit, watch, and print how well it fits, with a digest of the parameters to compare."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2]  # nothing that a line fits
    with tg.connect(server, seed=0) as session:
        model = nn.Sequential(nn.Linear(FEATURES, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
        optimizer = optim.AdamW(model.parameters(), lr=3e-3)

        @tg.function(replicas=2, shard_optimizer=True)  # each replica sees half of the rows of a batch
        def train_step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            loss = nn.functional.mse_loss(model(x).squeeze(-1), y)
            optimizer.minimize(loss)  # with the gradient of all rows
            return loss  # and so is this the mean over all

        job = session.submit(train_step, data={"x": x, "y": y}, epochs=epochs, batch_size=128)
        job.watch().check()

        step = job.load_state(model)
        state = model.state_dict()
        mean = job.history["epoch/loss"]["value"]
    digest = hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()
    print(
        f"mean squared error {mean[0]:.4f} in the first epoch, {mean[-1]:.4f} in the last, which ended at step {step}"
    )
    print(f"bits: sha256 {digest[:16]} of the parameters")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", metavar="ADDRESS", help="a telegrad-server; embedded if not given")
    parser.add_argument("--epochs", type=int, default=10)
    main(**vars(parser.parse_args()))
