"""The ways to run a line, each behind the same three calls. What a peer needs is imported when it is made."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal, Protocol

from bench.serving import server
from bench.shootout import modules
from bench.shootout.lines import BETAS, DECAY, EPSILON, LEARNING_RATE, POOL, Array, Line

Feed = Literal["resident", "fresh"]
"""One batch that is where the computing is done, or another NumPy array for each step."""


class Peer(Protocol):
    """A line in training. A step's number chooses its batch."""

    pid: int
    """The process that computes."""

    def losses(self, count: int) -> tuple[list[float], float]:
        """The losses of the first steps, on fresh batches, and the seconds until the first one was known."""
        ...

    def turn(self, feed: Feed, steps: int) -> float:
        """Seconds a step, when so many follow each other and the last one's loss is waited for."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


Step = Callable[[Any, Any], Any]
"""A batch in, the loss out, which need not be known yet."""


class Stepping:
    """A loop in this process over a step: telegrad's sessions, PyTorch and JAX."""

    def __init__(
        self, line: Line, step: Step, *, placed: Callable[[Array], Any], taken: Callable[[Array], Any], pid: int = 0
    ) -> None:
        self.pid = pid or os.getpid()
        self._step, self._taken, self._batch = step, taken, line.batch
        self._x, self._y = line.data()
        self._resident = tuple(placed(a[: line.batch].copy()) for a in (self._x, self._y))
        self._stack = ExitStack()

    def closing(self, stack: ExitStack) -> Stepping:
        """With what must be closed at the end."""
        self._stack = stack
        return self

    def losses(self, count: int) -> tuple[list[float], float]:
        """See `Peer`."""
        began = time.perf_counter()
        found = [float(self._step(*self._fresh(0)))]
        first = time.perf_counter() - began
        found += [float(self._step(*self._fresh(k))) for k in range(1, count)]
        return found, first

    def turn(self, feed: Feed, steps: int) -> float:
        """See `Peer`."""
        batch = self._fresh if feed == "fresh" else lambda _: self._resident
        began, loss = time.perf_counter(), None
        for k in range(steps):
            loss = self._step(*batch(k))
        float(loss)
        return (time.perf_counter() - began) / steps

    def close(self) -> None:
        """See `Peer`."""
        self._stack.close()

    def _fresh(self, k: int) -> tuple[Any, ...]:
        rows = slice(k % POOL * self._batch, (k % POOL + 1) * self._batch)
        return tuple(self._taken(a[rows].copy()) for a in (self._x, self._y))


# ---- telegrad


def _trained(line: Line) -> Callable[..., Any]:
    """The step of a line in the current session."""
    import telegrad as tg
    from telegrad import nn, optim
    from telegrad.nn import functional as F

    model = modules.module(line, nn, F, tg.arange)
    model.load_state_dict(line.weights(), strict=False)
    optimizer = optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = modules.loss(model(x), y, F)
        optimizer.minimize(loss)
        return loss

    return step


def embedded(line: Line) -> Peer:
    """The server inside this process."""
    return _session(line, ExitStack(), None, 0)


def remote(line: Line) -> Peer:
    """A call a step to a server on loopback."""
    stack = ExitStack()
    found = stack.enter_context(server())
    return _session(line, stack, found.address, found.pid)


def _session(line: Line, stack: ExitStack, address: str | None, pid: int) -> Peer:
    import telegrad as tg

    session = stack.enter_context(tg.connect(address, backend="numpy", new=True))
    step = _trained(line)
    session.synchronize()
    peer = Stepping(line, lambda x, y: step(x, y), placed=tg.asarray, taken=lambda a: a, pid=pid)
    session.synchronize()
    return peer.closing(stack)


class JobPeer:
    """The loop on the server: each turn is a job, over data that is there.

    Its time a step is that between the losses of its third step and its last one, as the server has noted them.
    """

    def __init__(self, line: Line) -> None:
        import telegrad as tg

        self._stack, self._line = ExitStack(), line
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        found = self._stack.enter_context(server("--data-dir", folder))
        self.pid = found.pid
        self._session = self._stack.enter_context(tg.connect(found.address, new=True))
        x, y = line.data()
        put = self._session.datasets.put
        self._data = {
            "fresh": put("fresh", x=x, y=y),
            "resident": put("resident", x=x[: line.batch], y=y[: line.batch]),
        }
        self._step = _trained(line)
        self._session.synchronize()

    def losses(self, count: int) -> tuple[list[float], float]:
        """See `Peer`."""
        began = time.time()  # the server's rows have the wall clock's
        rows = self._rows("fresh", count)
        return [row.value for row in rows], rows[0].at - began

    def turn(self, feed: Feed, steps: int) -> float:
        """See `Peer`."""
        rows = self._rows(feed, steps + 3)
        return (rows[-1].at - rows[2].at) / steps

    def close(self) -> None:
        """See `Peer`."""
        self._stack.close()

    def _rows(self, feed: Feed, steps: int) -> list[Any]:
        from telegrad.jobs import MetricRow

        job = self._session.submit(
            self._step, data=self._data[feed], batch_size=self._line.batch, steps=steps, shuffle=False,
            checkpoint_every=steps, keep_checkpoints=1,
        )  # fmt: skip
        rows = [row for row in job.events() if isinstance(row, MetricRow) and row.name == "loss"]
        job.check()
        return rows


# ---- the peers


def eager(line: Line) -> Peer:
    """PyTorch as it is, with its fused AdamW."""
    return _torch(line, lambda f: f)


def compiled(line: Line) -> Peer:
    """PyTorch's torch.compile for model and loss, forward and backward; an empty cache of kernels."""
    import torch

    stack = ExitStack()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = stack.enter_context(tempfile.TemporaryDirectory())
    return _torch(line, lambda f: torch.compile(f, dynamic=False)).closing(stack)


def _torch(line: Line, wrapped: Callable[[Step], Step]) -> Stepping:
    import torch
    from torch import nn
    from torch.nn import functional as F

    def placed(a: Array) -> Any:
        """Images with channels last, which takes 0.7 of the time here, the conversion included."""
        found = torch.from_numpy(a)
        return found.contiguous(memory_format=torch.channels_last) if found.ndim == 4 else found

    model = modules.module(line, nn, F, torch.arange).to(memory_format=torch.channels_last)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in line.weights().items()}, strict=False)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, fused=True
    )
    loss_of = wrapped(lambda x, y: modules.loss(model(x), y, F))

    def step(x: Any, y: Any) -> Any:
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return Stepping(line, step, placed=placed, taken=placed)


def jitted(line: Line) -> Peer:
    """JAX, the whole step one compiled function."""
    import jax

    from bench.shootout import functions

    compiled_step, state = functions.train_step(line), functions.first_state(line.weights())

    def step(x: Any, y: Any) -> Any:
        nonlocal state
        state, loss = compiled_step(state, x, y)
        return loss

    return Stepping(line, step, placed=jax.device_put, taken=lambda a: a)


PEERS: dict[str, Callable[[Line], Peer]] = {
    "torch eager": eager,
    "torch.compile": compiled,
    "jax jit": jitted,
    "embedded": embedded,
    "remote": remote,
    "job": JobPeer,
}
OURS = ("embedded", "remote", "job")
NEEDS = {"torch eager": "torch", "torch.compile": "torch", "jax jit": "jax"}
"""The package without which a peer is left out."""
