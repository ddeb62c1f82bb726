"""The batches of a job, read from the disk before they are wanted."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from telegrad.wire.job_spec import DataSource, JobSpec

from telegrad_server.datasets import Dataset, permuted

Batch = Mapping[str, npt.NDArray[Any]]

AHEAD = 3
"""So many batches are read while a step runs."""


def rows_of_step(spec: JobSpec, step: int) -> npt.NDArray[np.int64]:
    """The rows that a step, counted from 1, trains on, in their order."""
    batch = spec.loop.batch(step, spec.data.rows)
    places = np.arange(batch.first, batch.first + batch.rows, dtype=np.int64)
    if spec.loop.shuffle:
        places = permuted(places, rows=spec.data.rows, seed=spec.loop.shuffle_seed, epoch=batch.epoch)
    return places + spec.data.first


def validation_rows(data: DataSource, batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    """The rows of each batch of a validation."""
    for first in range(0, data.rows, batch_size):
        yield np.arange(first, min(first + batch_size, data.rows), dtype=np.int64) + data.first


class Batches:
    """The batches of steps in a row. Reads ahead on a thread; made by `reading`."""

    def __init__(self, dataset: Dataset, pool: ThreadPoolExecutor) -> None:
        self._dataset = dataset
        self._pool = pool
        self._ahead: dict[int, Future[Batch]] = {}

    def of(self, spec: JobSpec, step: int) -> Batch:
        """The batch of a step."""
        for later in range(step, min(step + AHEAD, spec.last_step + 1)):
            if later not in self._ahead:
                self._ahead[later] = self._pool.submit(self._dataset.batch, rows_of_step(spec, later))
        return self._ahead.pop(step).result()


@contextmanager
def reading(dataset: Dataset) -> Generator[Batches]:
    """Batches within a ``with``, which ends the thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="telegrad-batches") as pool:
        yield Batches(dataset, pool)
