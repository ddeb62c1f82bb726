"""The batches of a job, read from the disk before they are wanted."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from telegrad.wire.job_spec import DataSource, JobSpec

from telegrad_server.datasets import Dataset, Pass

Batch = Mapping[str, npt.NDArray[Any]]

AHEAD = 3
"""So many batches are read while a step runs."""


def rows_of_step(dataset: Dataset, spec: JobSpec, step: int) -> npt.NDArray[np.int64]:
    """The rows that a step, counted from 1, trains on, in their order."""
    batch = spec.loop.batch(step, spec.data.rows)
    places = np.arange(batch.first, batch.first + batch.rows, dtype=np.int64)
    return dataset.rows_at(places, _pass(spec, batch.epoch))


def _pass(spec: JobSpec, epoch: int) -> Pass:
    return Pass(spec.data.first, spec.data.rows, spec.loop.shuffle_seed if spec.loop.shuffle else None, epoch)


def validation_rows(data: DataSource, batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    """The rows of each batch of a validation."""
    for first in range(0, data.rows, batch_size):
        yield np.arange(first, min(first + batch_size, data.rows), dtype=np.int64) + data.first


class Batches:
    """The batches of steps in a row. Reads ahead on a thread, and on another has nearer what comes later."""

    def __init__(self, dataset: Dataset, pool: ThreadPoolExecutor, beside: ThreadPoolExecutor) -> None:
        self._dataset = dataset
        self._pool, self._beside = pool, beside
        self._ahead: dict[int, Future[Batch]] = {}
        self._preparing: Future[None] | None = None
        self._is_over = False

    def of(self, spec: JobSpec, step: int) -> Batch:
        """The batch of a step."""
        for later in range(step, min(step + AHEAD, spec.last_step + 1)):
            if later not in self._ahead:
                self._ahead[later] = self._pool.submit(self._read, spec, later)
        if self._preparing is None or self._preparing.done():  # what went wrong, reading will say
            self._preparing = self._beside.submit(self._prepare, spec, min(step + AHEAD, spec.last_step))
        return self._ahead.pop(step).result()

    def close(self) -> None:
        """Prepare no more."""
        self._is_over = True

    def _read(self, spec: JobSpec, step: int) -> Batch:
        return self._dataset.batch(rows_of_step(self._dataset, spec, step))

    def _prepare(self, spec: JobSpec, step: int) -> None:
        rows = spec.data.rows
        batch = spec.loop.batch(step, rows)
        passes = [(batch.first, _pass(spec, batch.epoch))]
        if (batch.epoch + 1) * spec.loop.steps_per_epoch(rows) < spec.last_step:
            passes.append((batch.first - rows, _pass(spec, batch.epoch + 1)))
        for place, of in passes:
            while not self._is_over and self._dataset.prepare(place, of):
                pass


@contextmanager
def reading(dataset: Dataset) -> Generator[Batches]:
    """Batches within a ``with``, which ends the threads."""
    with (
        ThreadPoolExecutor(1, thread_name_prefix="telegrad-batches") as pool,
        ThreadPoolExecutor(1, thread_name_prefix="telegrad-blocks") as beside,
    ):
        batches = Batches(dataset, pool, beside)
        try:
            yield batches
        finally:
            batches.close()
