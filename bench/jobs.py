"""Jobs: how soon the first news comes, what a job's step costs, what a checkpoint holds up, and what a kill costs.

`python -m bench.jobs` writes its section of RESULTS.md; `--quick` is a glance, written to bench/local.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import telegrad as tg
from telegrad import nn, optim
from telegrad.jobs import Job, MetricRow

from bench.results import FILE, Section, Table, write_section
from bench.serving import Server, server

Arrays = dict[str, npt.NDArray[np.float32]]
LOCAL = Path(__file__).with_name("local")


@dataclass(frozen=True)
class Effort:
    """How often, how many steps, how long."""

    servers: int = 5
    rounds: int = 21
    small_steps: int = 1000
    large_steps: int = 100
    checkpoints: int = 6
    checkpoint_width: int = 1024  # twelve layers of it and their momentum are 100 MB
    kill_seconds: float = 15.0
    kills: int = 4


FULL = Effort()
QUICK = Effort(servers=2, rounds=3, small_steps=600, large_steps=60, checkpoints=3, kill_seconds=6.0, kills=2)


def spread(values: Sequence[float], form: str, unit: str) -> str:
    """The median, and from where to where."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} {unit} ({low:{form}} to {high:{form}})"


# ---- what is trained


def points(rows: int, width: int) -> Arrays:
    """Rows to learn by heart."""
    x = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)
    return {"x": x, "y": x}


def training(widths: Sequence[int], *, momentum: bool = False) -> Callable[[tg.Tensor, tg.Tensor], tg.Tensor]:
    """A step of an autoencoder of these widths; with ``momentum`` an update that costs little beside its memory."""
    model = nn.Sequential(*[nn.Linear(a, b) for a, b in pairwise(widths)])
    parameters = model.parameters()
    optimizer = optim.SGD(parameters, lr=1e-4, momentum=0.9) if momentum else optim.AdamW(parameters, lr=1e-4)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = ((model(x) - y) ** 2).mean()
        optimizer.minimize(loss)
        return loss

    return step


def times(job: Job) -> npt.NDArray[np.float64]:
    """When the loss of each step came, in seconds."""
    rows = [row for row in job.events() if isinstance(row, MetricRow) and row.name == "loss"]
    return np.array([row.at for row in rows])


# ---- the questions


def first_news(effort: Effort, folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """From `submit` until somebody can see that a step was trained."""
    found: dict[str, list[float]] = {"first job": [], "later job": []}
    for number in range(effort.servers):
        with (
            server("--data-dir", str(folder / f"first-{number}")) as running,
            tg.connect(running.address, new=True) as session,
        ):
            for seconds in found.values():
                step, data = training((64, 128, 64)), points(1000, 64)
                session.synchronize()
                began = time.perf_counter()
                job = session.submit(step, data=data, batch_size=32, epochs=20)
                while not job.refresh().live_metrics:
                    time.sleep(0.002)
                seconds.append(time.perf_counter() - began)
                job.wait()
    for which, seconds in found.items():
        yield f"submit to the first loss: a server's {which}", "2 s", spread(seconds, ".2f", "s"), ""


def step_cost(effort: Effort) -> Iterator[tuple[str, str, str, str]]:
    """A job's step against the same step called in a loop, both embedded, in turns."""
    for name, width, batch, steps in (("small", 64, 64, effort.small_steps), ("large", 768, 128, effort.large_steps)):
        data = points(40 * batch, 64)
        with tg.connect(new=True, backend="numpy") as session:
            step = training((64, width, width, 64))
            pairs = [(_by_hand(step, data, batch, steps), _as_job(session, step, data, batch, steps))
                     for _ in range(effort.rounds)]  # fmt: skip
        ratios = [100 * (job / hand - 1) for hand, job in pairs]
        hand = statistics.median([hand for hand, _ in pairs])
        yield (
            f"a job's step against the step by hand, {name} ({1000 * hand:.2f} ms)",
            "+1 %",
            spread(ratios, "+.1f", "%"),
            f"{len(pairs)} turns of {steps} steps each",
        )


def _by_hand(step: Callable[..., tg.Tensor], data: Arrays, batch: int, steps: int) -> float:
    """Seconds a step, with batches that are ready."""
    warm = steps // 5
    batches = [{name: array[i : i + batch] for name, array in data.items()} for i in range(0, len(data["x"]), batch)]
    began = 0.0
    for k in range(steps):
        loss = step(**batches[k % len(batches)])
        if k == warm:
            loss.item()
            began = time.perf_counter()
        elif k == steps - 1:
            loss.item()
    return (time.perf_counter() - began) / (steps - 1 - warm)


def _as_job(session: tg.Session, step: Callable[..., tg.Tensor], data: Arrays, batch: int, steps: int) -> float:
    job = session.submit(step, data=data, batch_size=batch, steps=steps, seed=0, checkpoint_every=10 * steps)
    at, warm = times(job.wait()), steps // 5
    return float(at[-1] - at[warm]) / (steps - 1 - warm)


def stall(effort: Effort, folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """How much longer the steps around a checkpoint of 100 MB take than as many others."""
    every, before, after = 80, 8, 30
    with (
        server("--data-dir", str(folder / "stall")) as running,
        tg.connect(running.address, new=True) as session,
    ):
        step = training([effort.checkpoint_width] * 13, momentum=True)
        job = session.submit(
            step,
            data=points(512, effort.checkpoint_width),
            batch_size=8,
            steps=(effort.checkpoints + 1) * every,
            checkpoint_every=every,
        ).wait()
        at = times(job)
        megabytes = sum([array.nbytes for array in job.state_dict().values()]) / 1e6
    gaps = np.diff(at)
    usual = float(np.median(gaps))
    extra: dict[bool, list[float]] = {True: [], False: []}
    longest: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2, 2 * effort.checkpoints + 2):
        k, is_one = (
            number * every // 2 - 1,
            number % 2 == 0,
        )  # of a checkpoint, or between two
        gap = float(gaps[k - 1 : k + after].max()) - usual
        longest[is_one].append(1000 * gap)
        extra[is_one].append(1000 * (float(at[k + after] - at[k - before]) - (before + after) * usual))
    what = f"a checkpoint of {megabytes:.0f} MB"
    beside = f"{spread(longest[False], '.0f', 'ms')} where none is"
    yield f"{what}: the longest gap between steps beyond the usual", "50 ms", spread(longest[True], ".0f", "ms"), beside
    beside = f"{spread(extra[False], '.0f', 'ms')} where none is; a step takes {1000 * usual:.0f} ms"
    yield f"{what}: all that it costs {before + after} steps", "", spread(extra[True], ".0f", "ms"), beside


def kills(effort: Effort, folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """A server that is killed and started anew at once: until it trains again, and how many steps that leaves."""
    seconds = effort.kill_seconds * effort.kills
    again: list[float] = []
    with ExitStack() as stack:
        running = Killable(folder / "kills", stack)
        with running.session() as session:
            job = session.submit(
                training((64, 256, 256, 64)), data=points(4000, 64), batch_size=64, steps=10**7, checkpoint_seconds=1.0
            )
            _until_it_trains(job)
            undisturbed = _rate(job, seconds / 2)
            begun, began = job.refresh().live_step, time.perf_counter()
        for number in range(1, effort.kills + 1):
            time.sleep(max(0.0, began + number * effort.kill_seconds - time.perf_counter()))
            killed = time.perf_counter()
            running.kill()
            with running.session() as session:
                _until_it_trains(session.jobs[job.id], restarts=number)
            again.append(time.perf_counter() - killed)
        time.sleep(max(0.0, began + seconds + effort.kill_seconds - time.perf_counter()))
        with running.session() as session:
            job = session.jobs[job.id]
            kept = (job.refresh().live_step - begun) / (time.perf_counter() - began)
            undisturbed = (undisturbed + _rate(job, seconds / 2)) / 2
            job.cancel()
    yield "the server killed to training again", "10 s", spread(again, ".1f", "s"), "started anew at once"
    yield (
        f"steps kept with a kill each {effort.kill_seconds:.0f} s",
        "80 %",
        f"{100 * kept / undisturbed:.0f} %",
        f"{effort.kills} kills, {kept:.0f} of {undisturbed:.0f} steps/s",
    )


class Killable:
    """A server with a folder that can be killed and started anew on the same data."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._server = self._start()

    def _start(self) -> Server:
        return self._stack.enter_context(server("--data-dir", str(self._folder)))

    def kill(self) -> None:
        """End it as a power cut would, and start another."""
        os.kill(self._server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self._server.pid, os.WEXITED | os.WNOWAIT)
        self._server = self._start()

    @contextmanager
    def session(self) -> Generator[tg.Session]:
        """A session there."""
        with tg.connect(self._server.address, new=True) as session:
            yield session


def _until_it_trains(job: Job, restarts: int = 0) -> None:
    while True:
        info = job.refresh()
        if info.restarts >= restarts and info.state == "RUNNING" and info.live_step > info.step and info.live_metrics:
            return
        time.sleep(0.01)


def _rate(job: Job, seconds: float) -> float:
    first, began = job.refresh().live_step, time.perf_counter()
    time.sleep(seconds)
    return (job.refresh().live_step - first) / (time.perf_counter() - began)


def main() -> None:
    """Read the options, measure, and write the section."""
    options = argparse.ArgumentParser(prog="bench.jobs", description=__doc__)
    options.add_argument("--quick", action="store_true", help="a glance, written to bench/local")
    options.add_argument("--to", type=Path, help="write to this file instead of bench/RESULTS.md")
    chosen = options.parse_args()
    effort = QUICK if chosen.quick else FULL
    rows: list[tuple[str, str, str, str]] = []
    LOCAL.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LOCAL) as name:  # on the disk of the checkout: others may be in memory
        folder = Path(name)
        os.environ["TELEGRAD_DATA_DIR"] = str(folder / "embedded")
        for question in (
            first_news(effort, folder), step_cost(effort), stall(effort, folder), kills(effort, folder)
        ):  # fmt: skip
            for row in question:
                rows.append(row)
                print(" | ".join(row), flush=True)
    about = "Servers are processes of their own on loopback, with NumPy; spreads are from the least to the most."
    section = Section("Jobs", about, (Table(("what", "goal", "measured", "beside"), rows),))
    write_section(section, chosen.to or (LOCAL / "RESULTS.md" if chosen.quick else FILE))


if __name__ == "__main__":
    main()
