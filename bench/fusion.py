"""What kernels for groups of ops are worth: training steps on two servers, one with kernels and one without, in turns.

Both run on this machine, through the remote service, a step of one and then a few of the other. Writes bench/FUSION.md.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import telegrad as tg
from telegrad import context, nn, optim

ROUNDS, STEPS = 15, 5


@contextmanager
def server(kernels: str) -> Generator[str]:
    """A telegrad-server on loopback."""
    command = [sys.executable, "-m", "telegrad_server.main", "--port", "0", "--backend", "numpy"]
    command += ["--native-kernels", kernels]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"listening on (\S+)", process.stdout.readline())
        assert found
        try:
            yield f"grpc://{found[1]}"
        finally:
            process.terminate()


def mlp() -> Callable[[], Any]:
    """784-256-256-10, batch 128."""
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    rng = np.random.default_rng(0)
    x = tg.asarray(rng.normal(size=(128, 784)).astype(np.float32))
    y = tg.asarray(rng.integers(0, 10, 128))
    return _stepping(model, x, y)


class Block(nn.Module):
    """A layer of a GPT: attention and two matrices, each behind a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        batch, time_steps, width = x.shape
        parts = tg.reshape(self.qkv(self.first(x)), (batch, time_steps, 3, self.heads, width // self.heads))
        q, k, v = (tg.permute_dims(parts[:, :, i], (0, 2, 1, 3)) for i in range(3))
        found = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(tg.reshape(tg.permute_dims(found, (0, 2, 1, 3)), (batch, time_steps, width)))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class Gpt(nn.Module):
    """2 layers of width 128 over 128 positions and 96 words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(96, 128), nn.Embedding(128, 128)
        self.blocks = nn.Sequential(Block(128, 4), Block(128, 4))
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 96)

    def forward(self, x: Any) -> Any:
        at = self.words(x) + self.places(tg.arange(128))
        return tg.reshape(self.head(self.norm(self.blocks(at))), (-1, 96))


def gpt() -> Callable[[], Any]:
    """2 layers, d 128, 4 heads, T 128, vocabulary 96, batch 16."""
    rng = np.random.default_rng(0)
    x = tg.asarray(rng.integers(0, 96, (16, 128)))
    y = tg.asarray(rng.integers(0, 96, 16 * 128))
    return _stepping(Gpt(), x, y)


class Recurrent(nn.Module):
    """An LSTM and a classifier on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: Any) -> Any:
        return self.head(self.lstm(x)[0][:, -1])


def lstm() -> Callable[[], Any]:
    """In 64, hidden 128, T 64, batch 32."""
    rng = np.random.default_rng(0)
    x = tg.asarray(rng.normal(size=(32, 64, 64)).astype(np.float32))
    y = tg.asarray(rng.integers(0, 10, 32))
    return _stepping(Recurrent(), x, y)


def _stepping(model: Any, x: Any, y: Any) -> Callable[[], Any]:
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    @tg.function
    def step(x: Any, y: Any) -> Any:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    return lambda: step(x, y)


WORK: dict[str, Callable[[], Callable[[], Any]]] = {
    "MLP 784-256-256-10, batch 128": mlp,
    "GPT 2 layers, d 128, T 128, batch 16": gpt,
    "LSTM in 64, hidden 128, T 64, batch 32": lstm,
}


def measure(work: Callable[[], Callable[[], Any]], addresses: dict[str, str]) -> dict[str, tuple[float, float, float]]:
    """For each server the median and the least milliseconds of a step, in turns, and the seconds of the first."""
    sessions = {name: tg.connect(address) for name, address in addresses.items()}
    steps: dict[str, Callable[[], Any]] = {}
    first: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in addresses}
    for name, session in sessions.items():
        context.push_session(session)
        steps[name] = work()
        began = time.perf_counter()
        steps[name]().item()
        first[name] = time.perf_counter() - began
        context.pop_session()
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            context.push_session(session)
            steps[name]().item()
            began = time.perf_counter()
            for _ in range(STEPS - 1):
                steps[name]()
            steps[name]().item()
            times[name].append((time.perf_counter() - began) / STEPS * 1e3)
            context.pop_session()
    for session in sessions.values():
        session.close()
    return {name: (statistics.median(found), min(found), first[name]) for name, found in times.items()}


def main() -> None:
    """Measure all and write the table."""
    lines = [
        "| work | without ms | with ms | ratio of medians (of least) | first step without / with |",
        "|---|---|---|---|---|",
    ]
    wanted = sys.argv[1:]
    with server("off") as off, server("auto") as auto:
        for name, work in WORK.items():
            if wanted and not any(name.lower().startswith(w) for w in wanted):
                continue
            found = measure(work, {"off": off, "auto": auto})
            (a, least_a, first_a), (b, least_b, first_b) = found["off"], found["auto"]
            ratio = f"{a / b:.2f} ({least_a / least_b:.2f})"
            lines.append(f"| {name} | {a:.2f} | {b:.2f} | {ratio} | {first_a:.2f} s / {first_b:.2f} s |")
            print(lines[-1], flush=True)
    if wanted:
        return
    head = f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
    head += f"Python {platform.python_version()}, NumPy {np.__version__}; {ROUNDS} rounds of {STEPS} steps in turns."
    text = f"# What kernels for groups of ops are worth\n\nWritten by bench/fusion.py. {head}\n\n"
    Path(__file__).with_name("FUSION.md").write_text(text + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
