"""Folders of Parquet files whose rows say which they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

WIDTH = 16


def rows_of(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """What the rows with these numbers hold. numbers[n] -> float32[n, WIDTH]."""
    return np.sin(numbers[:, None] * 0.37 + np.arange(WIDTH)).astype(np.float32)


def write(folder: Path, *, files: Sequence[tuple[int, int]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Files of so many rows, in row groups of so many: the columns x and y of all of them."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for number, (rows, group) in enumerate(files):
        y = np.arange(first, first + rows)
        x = pa.FixedSizeListArray.from_arrays(pa.array(rows_of(y).reshape(-1)), WIDTH)
        pq.write_table(pa.table({"x": x, "y": y}), folder / f"{number:02}.parquet", row_group_size=group)
        first += rows
    y = np.arange(first)
    return rows_of(y), y


def held_bytes(folder: Path) -> int:
    """What is in a folder at this moment, while others write there and remove."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found += os.stat(os.path.join(place, name)).st_size
    return found
