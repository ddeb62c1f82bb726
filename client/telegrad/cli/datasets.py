"""``telegrad datasets``: what a server keeps for jobs to train on: which there are, and putting files there."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import numpy.typing as npt

from telegrad.cli.report import Reporting, Shape, json_option, megabytes, write_json
from telegrad.cli.target import Target, asks_a_server_by_option
from telegrad.cli.things import complete_dataset, things_of
from telegrad.datasets import Dataset, Datasets
from telegrad.errors import DTypeError
from telegrad.safetensors import load_file

_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def datasets() -> None:
    """List the datasets on a server, put files there, and delete them.

    What an operator has registered from files of the server's own (--dataset-roots) is listed with the rest.
    """


def dataset_argument(command: _F) -> _F:
    """The argument NAME, as ``name``, of a dataset that is there."""
    return click.argument("name", shell_complete=complete_dataset)(command)


@datasets.command("list", cls=Reporting)
@asks_a_server_by_option
@json_option
def list_(target: Target, as_json: bool) -> None:
    """List the datasets by name: those that were put, and those that the operator has registered."""
    with things_of(target) as there:
        found = Datasets(there.datasets).list()
    if as_json:
        write_json({"address": target.address, "datasets": [dataset_shape(dataset) for dataset in found]})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "rows", "size", "columns", "from", box=None, pad_edge=False)
    for dataset in found:
        columns = "  ".join([f"{name} {row}" for name, row in dataset.columns.items()])
        table.add_row(dataset.name, str(dataset.rows), megabytes(dataset.bytes), columns, dataset.source)
    Console(soft_wrap=True, highlight=False, markup=False).print(table)


@datasets.command("show", cls=Reporting)
@dataset_argument
@asks_a_server_by_option
@json_option
def show(target: Target, name: str, as_json: bool) -> None:
    """Say what the dataset NAME is: its rows, the type of a row of each column, its digest."""
    with things_of(target) as there:
        found = Datasets(there.datasets)
        if as_json:
            write_json(dataset_shape(found[name]))
        else:
            click.echo(found.describe(name))


@datasets.command("put", cls=Reporting)
@click.argument("name", shell_complete=complete_dataset)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@asks_a_server_by_option
@json_option
def put(target: Target, name: str, files: tuple[str, ...], as_json: bool) -> None:
    """Keep the arrays of FILE... under NAME; their first axes are equal.

    FILE is digits.npz or digits.safetensors, whose arrays are columns; x.npy, a column x; or COLUMN=FILE.npy. What is
    there already is not sent again, and an upload that was cut off goes on where it was. Nothing is unpickled.
    """
    columns = read_columns(files)
    with things_of(target) as there:
        found = Datasets(there.datasets).put(name, columns)
    if as_json:
        write_json(dataset_shape(found))
    else:
        click.echo(f"{found.name} has {found.rows} rows, {megabytes(found.bytes)}, digest {found.digest}")


@datasets.command("delete", cls=Reporting)
@dataset_argument
@asks_a_server_by_option
@json_option
def delete(target: Target, name: str, as_json: bool) -> None:
    """Forget the dataset NAME. Its rows stay as long as a job that reads them."""
    with things_of(target) as there:
        Datasets(there.datasets).delete(name)
    if as_json:
        write_json({"deleted": name})
    else:
        click.echo(f"{name} is forgotten")


@datasets.command("verify", cls=Reporting)
@dataset_argument
@asks_a_server_by_option
@json_option
def verify(target: Target, name: str, as_json: bool) -> None:
    """Let the server read the dataset NAME again and compare its digests; exit status 9 if the disk has changed it."""
    with things_of(target) as there:
        found = Datasets(there.datasets)[name]
        found.verify()
    if as_json:
        write_json(dataset_shape(found))
    else:
        click.echo(f"{name} is as it was put")


def read_columns(files: tuple[str, ...]) -> Mapping[str, npt.NDArray[Any]]:
    """The arrays in files by column. UsageError for a file of another kind, or a column that comes twice."""
    columns: dict[str, npt.NDArray[Any]] = {}
    for text in files:
        column, is_named, path = text.rpartition("=")
        for name, array in _arrays(Path(path)).items():
            if is_named and not path.endswith(".npy"):
                raise click.UsageError(f"{text}: a name stands before an .npy file; {path} names its columns itself")
            if (column or name) in columns:
                raise click.UsageError(f"the column {column or name} comes twice; write COLUMN={path}")
            columns[column or name] = array
    return columns


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    if path.suffix not in (".npy", ".npz", ".safetensors"):
        raise click.UsageError(
            f"{path} is no .npy, .npz or .safetensors file; others are registered by the server's operator"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npy":
            return {path.stem: np.lib.format.open_memmap(path, mode="r")}
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _member(archive, name) for name in archive.namelist()}
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, zipfile.BadZipFile) as error:
        raise DTypeError(f"{path} holds no arrays of numbers: {error}") from None


def _member(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def dataset_shape(dataset: Dataset) -> Shape:
    """A dataset in JSON's shape."""
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "rows": dataset.rows,
        "bytes": dataset.bytes,
        "columns": {name: {"dtype": row.dtype.name, "shape": list(row.shape)} for name, row in dataset.columns.items()},
        "source": dataset.source or None,
        "blocks": dataset.blocks or None,
    }
