"""Datasets on the server: put once, read by jobs for as long as they run, found by name from any machine.

::

    import numpy as np
    import telegrad as tg

    with tg.connect() as session:
        digits = session.datasets.put("digits", x=np.zeros((100, 8, 8), np.float32), y=np.zeros(100, np.int64))
        print(digits.rows, digits.columns["x"], session.datasets["digits"][:3]["y"])
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from telegrad.errors import DataCorrupt, GraphError, IndexRange, NotFound, ServerUnavailable
from telegrad.ir.types import Type
from telegrad.tensor import Tensor
from telegrad.transport import DatasetCalls
from telegrad.wire.arrays import array_bytes
from telegrad.wire.datasets import Column, Description, Missing, check_columns, column_of
from telegrad.wire.naming import check_name

Array = npt.NDArray[Any]

PATIENCE_SECONDS = 60.0
"""An upload that makes no progress for so long is given up; put it again to go on with it."""


@dataclass(frozen=True)
class Dataset:
    """A dataset on the server, as it was when it was asked for: equal digests mean equal rows."""

    name: str
    digest: str
    rows: int
    columns: Mapping[str, Type]  # the type of one row of each
    bytes: int
    source: str  # what an operator registered it from; empty for one that was put
    blocks: int  # in how many blocks it is read, if nobody ever has all of it; else 0
    _calls: DatasetCalls = field(repr=False, compare=False)
    _found: Description = field(repr=False, compare=False)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, rows: int | slice | Sequence[int] | Array) -> dict[str, Array]:
        """These rows of every column, downloaded: to look at them, not to train on them.

        A number gives one row without its axis; slices and lists give n rows. IndexRange for a row that there is not;
        NotFound if the dataset has been deleted, or its name stands for another one now.
        """
        if isinstance(rows, (int, np.integer)):
            return {name: array[0] for name, array in self[[int(rows)]].items()}
        wanted = np.arange(self.rows)[rows] if isinstance(rows, slice) else np.asarray(rows)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
            raise GraphError(f"rows are a number, a slice or a list of numbers, not {wanted.dtype}{list(wanted.shape)}")
        wanted = wanted.astype(np.int64)
        if (outside := wanted[(wanted < -self.rows) | (wanted >= self.rows)]).size:
            raise IndexRange(f"row {outside[0]} is not in a dataset of {self.rows} rows")
        return self._calls.read(self._found, np.where(wanted < 0, wanted + self.rows, wanted))

    def verify(self) -> None:
        """Let the server read everything again. DataCorrupt if its disk has changed something."""
        self._calls.verify(self.name)


class Datasets:
    """All datasets that the session's tenant can read, by name; made by `Session.datasets`. Like a mapping."""

    def __init__(self, calls: DatasetCalls) -> None:
        self._calls = calls

    def put(
        self,
        name: str,
        columns: Mapping[str, npt.ArrayLike | Tensor] | None = None,
        /,
        **more: npt.ArrayLike | Tensor,
    ) -> Dataset:
        """Keep columns with equal first axes under a name, which may have stood for others.

        What the server has already is not sent again; an upload that was cut off goes on where it stopped, also when
        the same is put by another program. Jobs that read what the name stood for before go on reading that.

        Raises ShapeError, DTypeError, GraphError (NAME_INVALID), QuotaExceeded, StorageFull, or ServerUnavailable after
        a minute without progress.
        """
        check_name(name, what="a dataset")
        arrays = {n: _array(x) for n, x in {**(columns or {}), **more}.items()}
        described = tuple(column_of(n, array) for n, array in arrays.items())
        check_columns(described)
        return self._dataset(self._send(name, described, {c.digest: arrays[c.name] for c in described}))

    def _send(self, name: str, columns: Sequence[Column], arrays: Mapping[str, Array]) -> Description:
        by_digest = {column.digest: column for column in columns}
        progress = _Progress()
        while not isinstance(answer := self._calls.offer(name, columns), Description):
            progress.heard(answer)
            for missing in answer:
                try:
                    self._calls.upload(
                        by_digest[missing.digest], array_bytes(arrays[missing.digest]), missing.received_bytes
                    )
                except ServerUnavailable as error:
                    progress.broke(error)
                    break  # how far has it come?
                except DataCorrupt:
                    if not missing.received_bytes:
                        raise
                    break  # what was there already was wrong, as after a power cut, and has been thrown away
        return answer

    def __getitem__(self, name: str) -> Dataset:
        """The dataset with a name, or NotFound (a KeyError)."""
        return self._dataset(self._calls.describe(name))

    def __contains__(self, name: str) -> bool:
        try:
            self._calls.describe(name)
        except NotFound:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter([dataset.name for dataset in self.list()])

    def __len__(self) -> int:
        return len(self.list())

    def __repr__(self) -> str:
        return f"<datasets {', '.join(self) or 'none yet'}>"

    def list(self) -> list[Dataset]:
        """All of them, by name: those that were put, and those that the operator has registered."""
        return [self._dataset(found) for found in self._calls.list()]

    def describe(self, name: str) -> str:
        """What is known of a dataset, as text for people. NotFound."""
        found = self._calls.describe(name)
        width = max(len(column.name) for column in found.columns)
        lines = [f"{found.name}: {found.rows} rows, {found.bytes} bytes, digest {found.digest}"]
        lines += [f"from {found.source}, registered by the operator"] if found.source else []
        lines += [f"read in {found.blocks} blocks, never whole"] if found.blocks else []
        return "\n".join([*lines, *(f"  {c.name:{width}}  {c.row}" for c in found.columns)])

    def delete(self, name: str) -> None:
        """Forget a name. Its rows stay as long as a job that reads them. NotFound."""
        self._calls.delete(name)

    __delitem__ = delete

    def _dataset(self, found: Description) -> Dataset:
        rows = {column.name: column.row for column in found.columns}
        return Dataset(
            found.name, found.digest, found.rows, rows, found.bytes, found.source, found.blocks, self._calls, found
        )


class _Progress:
    """Waits between tries, and gives up when nothing has moved for too long."""

    def __init__(self) -> None:
        self._state: dict[str, int] = {}
        self._moved_at = time.monotonic()
        self._pause = 0.05

    def heard(self, missing: Sequence[Missing]) -> None:
        state = {m.digest: m.received_bytes for m in missing}
        if state != self._state:
            self._state, self._moved_at, self._pause = state, time.monotonic(), 0.05

    def broke(self, error: ServerUnavailable) -> None:
        if time.monotonic() - self._moved_at > PATIENCE_SECONDS:
            raise error
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, 2.0)


def _array(x: npt.ArrayLike | Tensor) -> Array:
    return x.numpy() if isinstance(x, Tensor) else np.asarray(x)
