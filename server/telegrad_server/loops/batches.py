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
"""So many batches at least are read while a step runs."""

TURN_BYTES = 1 << 21
"""Small batches are read several in one turn, about so much: else turns take longer than steps of a millisecond."""


def rows_of_step(dataset: Dataset, spec: JobSpec, step: int) -> npt.NDArray[np.int64]:
    """The rows that a step, counted from 1, trains on, in their order."""
    return _rows(dataset, spec, step, step)


def _rows(dataset: Dataset, spec: JobSpec, first: int, last: int) -> npt.NDArray[np.int64]:
    """The rows of some steps of one epoch, one after another."""
    begin, end = spec.loop.batch(first, spec.data.rows), spec.loop.batch(last, spec.data.rows)
    return dataset.rows_at(np.arange(begin.first, end.first + end.rows, dtype=np.int64), _pass(spec, begin.epoch))


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
        self._row_bytes = max(1, sum([type.nbytes for type in dataset.columns.values()]))
        self._ahead: dict[int, tuple[Future[Batch], slice]] = {}
        self._read = 0  # the last step that is read, or is being read
        self._preparing: Future[None] | None = None
        self._is_over = False

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
        found = self._pool.submit(lambda: self._dataset.batch(_rows(self._dataset, spec, first, last)))
        begin = spec.loop.batch(first, spec.data.rows).first
        for step in range(first, last + 1):
            batch = spec.loop.batch(step, spec.data.rows)
            self._ahead[step] = found, slice(batch.first - begin, batch.first - begin + batch.rows)
        self._read = last
        if self._preparing is None or self._preparing.done():  # what went wrong, reading will say
            self._preparing = self._beside.submit(self._prepare, spec, last)

    def close(self) -> None:
        """Prepare no more."""
        self._is_over = True

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
