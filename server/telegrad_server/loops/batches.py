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
"""So many batches at least are read while a step runs."""

TURN_BYTES = 1 << 19
"""Small batches are read several in one turn, about so much: else turns take longer than steps of a millisecond."""


def rows_of_step(spec: JobSpec, step: int) -> npt.NDArray[np.int64]:
    """The rows that a step, counted from 1, trains on, in their order."""
    return _rows(spec, step, step)


def _rows(spec: JobSpec, first: int, last: int) -> npt.NDArray[np.int64]:
    """The rows of some steps of one epoch, one after another."""
    begin, end = spec.loop.batch(first, spec.data.rows), spec.loop.batch(last, spec.data.rows)
    places = np.arange(begin.first, end.first + end.rows, dtype=np.int64)
    if spec.loop.shuffle:
        places = permuted(places, rows=spec.data.rows, seed=spec.loop.shuffle_seed, epoch=begin.epoch)
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
        self._row_bytes = max(1, sum([type.nbytes for type in dataset.columns.values()]))
        self._ahead: dict[int, tuple[Future[Batch], slice]] = {}
        self._read = 0  # the last step that is read, or is being read

    def of(self, spec: JobSpec, step: int) -> Batch:
        """The batch of a step."""
        turn = max(1, TURN_BYTES // (self._row_bytes * spec.loop.batch_size))
        self._read = max(self._read, step - 1)
        while self._read < min(step - 1 + max(AHEAD, turn), spec.last_step):
            self._take(spec, self._read + 1, turn)
        found, rows = self._ahead.pop(step)
        return {name: array[rows] for name, array in found.result().items()}

    def _take(self, spec: JobSpec, first: int, turn: int) -> None:
        """Read the batches of some steps from the first on, of one epoch."""
        per_epoch = spec.loop.steps_per_epoch(spec.data.rows)
        last = min(first + turn - 1, first + (-first % per_epoch), spec.last_step)
        found = self._pool.submit(lambda: self._dataset.batch(_rows(spec, first, last)))
        begin = spec.loop.batch(first, spec.data.rows).first
        for step in range(first, last + 1):
            batch = spec.loop.batch(step, spec.data.rows)
            self._ahead[step] = found, slice(batch.first - begin, batch.first - begin + batch.rows)
        self._read = last


@contextmanager
def reading(dataset: Dataset) -> Generator[Batches]:
    """Batches within a ``with``, which ends the thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="telegrad-batches") as pool:
        yield Batches(dataset, pool)
