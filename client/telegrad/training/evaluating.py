"""What `Trainer.evaluate` goes through: rows of the columns that are wanted, looked at before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from telegrad.datasets import Dataset
from telegrad.errors import GraphError, ShapeError
from telegrad.tensor import Tensor

Batch = Mapping[str, Any]


def batches(
    data: Dataset | Mapping[str, npt.ArrayLike | Tensor], columns: Sequence[str], batch_size: int
) -> Iterator[tuple[Batch, int]]:
    """Batches of these columns, in order, and how many rows each has; at least one. GraphError, ShapeError."""
    if isinstance(data, Dataset):
        _check_columns(columns, data.columns)
        rows = data.rows
    elif isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        _check_columns(columns, data)
        data = {name: _array(data[name]) for name in columns}
        rows = _rows({name: tuple(array.shape) for name, array in data.items()})
    else:
        raise GraphError(
            "evaluate takes a dataset, such as session.datasets['digits'], or arrays by the names of its columns, such"
            f" as {{'x': x, 'y': y}}; not {type(data).__name__}"
        )
    if not rows:
        raise GraphError("evaluate has nothing to average: the data has no rows")
    return _batches(data, columns, rows, batch_size)


def _batches(data: Any, columns: Sequence[str], rows: int, batch_size: int) -> Iterator[tuple[Batch, int]]:
    for first in range(0, rows, batch_size):
        end = min(first + batch_size, rows)
        if isinstance(data, Dataset):
            batch: Batch = data[first:end]
            yield {name: batch[name] for name in columns}, end - first
        else:
            yield {name: data[name][first:end] for name in columns}, end - first


def _check_columns(wanted: Sequence[str], there: Mapping[str, object]) -> None:
    missing = [name for name in wanted if name not in there]
    if missing:
        raise GraphError(f"evaluate wants the column {missing[0]!r}, and the data has {', '.join(there) or 'none'}")


def _array(given: Any) -> Any:
    return given if isinstance(given, Tensor) else np.asarray(given)


def _rows(shapes: Mapping[str, tuple[int, ...]]) -> int:
    for name, shape in shapes.items():
        if not shape:
            raise ShapeError(f"column {name!r} is a scalar; its first axis must be that of the rows")
    rows = {name: shape[0] for name, shape in shapes.items()}
    if len(set(rows.values())) > 1:
        raise ShapeError(f"the columns have different numbers of rows: {rows}; their first axes must be equal")
    return next(iter(rows.values()))


__all__ = ["batches"]
