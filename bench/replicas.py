"""Two replicas, a core each, against one replica on one core: rows a second, the same rows for each replica.

Both clusters stand side by side and take turns, so that a busy machine slows both. Prints one table.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import numpy as np
import telegrad as tg
from telegrad import context, models, nn, optim

ROUNDS = 5


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """A gateway with workers of one core each, all of them in."""
    command = [sys.executable, "-m", "telegrad_server.main", "--role", "gateway", "--port", "0", "--cluster-port", "0"]
    options = ["--backend", "numpy", "--workers", str(workers), "--worker-cpus", "1"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"listening on (\S+), for", process.stdout.readline())
        assert found
        address = f"grpc://{found[1]}"
        try:
            for i in range(1, workers + 1):
                tg.connect(address, worker=f"worker-{i}", queue_seconds=60, new=True).close()
            yield address
        finally:
            process.terminate()


def wide_mlp(replicas: int) -> tuple[Callable[[], tg.Tensor], int]:
    """784-2048-2048-10, 256 rows for each replica."""
    rows, rng = 256 * replicas, np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 784)).astype(np.float32), rng.integers(0, 10, rows)
    sizes = (784, 2048, 2048, 10)
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return _step(nn.Sequential(*layers[:-1]), replicas, x, y), rows


def gpt(replicas: int) -> tuple[Callable[[], tg.Tensor], int]:
    """2 layers, d 128, 4 heads, 128 tokens, 16 rows for each replica."""
    rows, rng = 16 * replicas, np.random.default_rng(0)
    tokens = rng.integers(0, 256, (rows, 129))
    model = models.GPT2LMHeadModel(models.GPT2Config(vocab_size=256, n_positions=128, n_embd=128, n_layer=2, n_head=4))
    return _step(model, replicas, tokens[:, :-1], tokens[:, 1:]), rows


def _step(model: nn.Module, replicas: int, x: np.ndarray, y: np.ndarray) -> Callable[[], tg.Tensor]:
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    @tg.function(replicas=replicas)
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        out = model(x)
        loss = nn.functional.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))
        optimizer.minimize(loss)
        return loss

    return lambda: step(x, y)


def use(session: tg.Session) -> None:
    """Make it the current one."""
    context.drop_session(session)
    context.push_session(session)


def rate(step: Callable[[], tg.Tensor], rows: int, seconds: float) -> float:
    """Rows a second; steps follow each other, and the last is waited for."""
    began, steps = time.perf_counter(), 0
    while True:
        loss = step()
        steps += 1
        if steps % 4 == 0:
            loss.item()
            took = time.perf_counter() - began
            if took > seconds:
                return steps * rows / took


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    with ExitStack() as stack:
        addresses = [stack.enter_context(cluster(n)) for n in (1, 2)]
        for name, make in (("MLP 784-2048-2048-10", wide_mlp), ("GPT, 2 layers, d 128", gpt)):
            sessions = [tg.connect(address, new=True) for address in addresses]
            rates: list[list[float]] = [[], []]
            made: list[tuple[Callable[[], tg.Tensor], int]] = []
            for n, session in enumerate(sessions, 1):
                use(session)
                made.append(make(n))
                rate(*made[-1], 0.5)
            for _ in range(ROUNDS):
                for k, session in enumerate(sessions):
                    use(session)
                    rates[k].append(rate(*made[k], seconds))
            one, two = (statistics.median(r) for r in rates)
            ratio = statistics.median(b / a for a, b in zip(*rates, strict=True))
            print(f"{name:24} one {one:8.0f} rows/s   two {two:8.0f} rows/s   {ratio:.2f} x   goal 1.8 x", flush=True)
            for session in reversed(sessions):
                session.close()


if __name__ == "__main__":
    main()
