"""Parquet files: their columns of numbers are unpacked once, in batches, into files that can be mapped."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from telegrad.errors import DataCorrupt, DTypeError
from telegrad.ir.types import BY_NAME
from telegrad.wire.arrays import array_bytes, from_numpy_dtype, numpy_dtype

from telegrad_server.datasets.dataset import Array
from telegrad_server.datasets.disk import storage
from telegrad_server.datasets.libraries import library
from telegrad_server.datasets.mapping import columns_of, map_file
from telegrad_server.datasets.roots import Root

BATCH_ROWS = 65_536


def check_pyarrow(root: Root) -> None:
    """ResourceError if Parquet files cannot be read here."""
    library("pyarrow.parquet", package="pyarrow", dataset=root.name)


def parquet_columns(root: Root, cache: Path) -> Mapping[str, Array]:
    """The columns by name, those of ``columns=a|b`` only; lists of one length are rows with an axis."""
    if not cache.exists():
        part = cache.with_name(f"{cache.name}.{secrets.token_hex(4)}.new")
        with storage(cache.parent):
            part.mkdir(mode=0o700, parents=True)
            try:
                _unpack(root, part)
                os.replace(part, cache)
            except OSError:
                if not cache.exists():  # else another thread or process was faster
                    raise
            finally:
                shutil.rmtree(part, ignore_errors=True)
    entries: dict[str, Any] = json.loads((cache / "columns.json").read_text())
    found = {
        name: map_file(cache / str(number)).view(numpy_dtype(BY_NAME[e["dtype"]])).reshape(e["shape"])
        for number, (name, e) in enumerate(entries.items())
    }
    return columns_of(root.path.name, found)


def _unpack(root: Root, folder: Path) -> None:
    pyarrow: Any = library("pyarrow", package="pyarrow", dataset=root.name)
    parquet: Any = library("pyarrow.parquet", package="pyarrow", dataset=root.name)
    try:
        with parquet.ParquetFile(root.path, memory_map=True) as file:
            names = chosen_columns(root, file, root.path.name)
            shapes: dict[str, tuple[Any, list[int]]] = {}
            with ExitStack() as stack:
                files = [stack.enter_context(open(folder / str(number), "wb")) for number in range(len(names))]
                for batch in file.iter_batches(BATCH_ROWS, columns=names):
                    for name, target in zip(names, files, strict=True):
                        array = numbers(
                            batch.column(batch.schema.names.index(name)), f"column {name!r} of {root.path.name}"
                        )
                        target.write(array_bytes(array))
                        dtype, shape = shapes.setdefault(name, (array.dtype, [0, *array.shape[1:]]))
                        if dtype != array.dtype or shape[1:] != list(array.shape[1:]):
                            raise DataCorrupt(f"column {name!r} of {root.path.name} has lists of different lengths")
                        shape[0] += len(array)
    except (pyarrow.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # of the disk's; pyarrow's own have no number
        raise DataCorrupt(f"{root.path.name} is no Parquet file that can be read here: {error}") from None
    if not shapes:
        raise DataCorrupt(f"{root.path.name} has no rows")
    entries = {name: {"dtype": from_numpy_dtype(dtype).name, "shape": shape} for name, (dtype, shape) in shapes.items()}
    (folder / "columns.json").write_text(json.dumps(entries))


def chosen_columns(root: Root, file: Any, name: str) -> list[str]:
    """The columns of a file that are wanted: those of ``columns=a|b``, else all. DataCorrupt if one is not there."""
    there = list(file.schema_arrow.names)
    names = list(filter(None, root.option("columns", "").split("|"))) or there
    missing = sorted(set(names) - set(there))
    if missing:
        raise DataCorrupt(f"{name} has no column {missing[0]!r}; it has {', '.join(there)}")
    return names


def numbers(column: Any, where: str) -> Array:
    """A piece of a column as an array. DTypeError for what is no number, DataCorrupt where there is none."""
    if column.null_count:
        raise DataCorrupt(f"{where} has rows without a value; fill them, or choose others with ?columns=a|b")
    kind = str(column.type)
    if "list<" in kind:
        inner, rows = column.flatten(), len(column)
        array = numbers(inner, where)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False) if kind.startswith(("list", "large")) else None
        if rows and (len(array) % rows or (lengths is not None and (lengths != lengths[0]).any())):
            raise DataCorrupt(f"{where} has lists of different lengths")
        return array.reshape(rows, len(array) // rows if rows else 0, *array.shape[1:])
    array = np.asarray(column.to_numpy(zero_copy_only=False))
    try:
        from_numpy_dtype(array.dtype)
    except DTypeError:
        raise DTypeError(f"{where} holds {kind}; choose columns of numbers with ?columns=a|b") from None
    return array
