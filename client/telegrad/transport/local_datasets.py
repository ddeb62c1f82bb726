"""Datasets of a server in this process: calls of its catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from telegrad.errors import NotFound
from telegrad.wire.datasets import SLICE_BYTES, Column, Description, Missing


class LocalDatasets:
    """A tenant's datasets in a catalog of the server's."""

    def __init__(self, catalog: Any, tenant: str) -> None:
        self._catalog = catalog
        self._tenant = tenant

    def offer(self, name: str, columns: Sequence[Column]) -> Description | tuple[Missing, ...]:
        return self._catalog.offer(self._tenant, name, columns)

    def upload(self, column: Column, data: memoryview, offset: int) -> None:
        part = self._catalog.receive(self._tenant, column.type, column.digest)
        try:
            for at in range(part.received_bytes, len(data), SLICE_BYTES):
                part.write(data[at : at + SLICE_BYTES])
            part.finish()
        finally:
            part.close()

    def list(self) -> list[Description]:
        return self._catalog.list(self._tenant)

    def describe(self, name: str) -> Description:
        return self._catalog.describe(self._tenant, name)

    def read(self, dataset: Description, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        found = self._catalog.open(self._tenant, dataset.name)
        if found.digest != dataset.digest:
            raise NotFound(f"dataset {dataset.name!r} is another one now: somebody has put it anew", name=dataset.name)
        return dict(found.batch(rows))

    def verify(self, name: str) -> None:
        self._catalog.verify(self._tenant, name)

    def delete(self, name: str) -> None:
        self._catalog.delete(self._tenant, name)

    def close(self) -> None:
        """Nothing is open."""
