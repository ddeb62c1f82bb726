"""Checkpoints as they are published: a folder of safetensors files and a config, with names that differ a little."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy.typing as npt

from telegrad import safetensors
from telegrad.errors import DataCorrupt, GraphError
from telegrad.nn.module import Module

Array = npt.NDArray[Any]
Path = str | os.PathLike[str]
C = TypeVar("C")


@runtime_checkable
class Published(Protocol):
    """A model whose checkpoints circulate under several names."""

    base_prefix: str
    """What stands before the names of the model without its heads."""

    def is_no_state(self, name: str) -> bool:
        """Whether a name in checkpoints is nothing that is learnt: masks, positions."""
        ...


def load_config(kind: type[C], path: Path) -> C:
    """A config of ``kind`` from a ``config.json`` or the folder that holds one; what it does not know is left out.

    GraphError for options that the model cannot follow, DataCorrupt for a file that is no JSON object.
    """
    file = os.path.join(path, "config.json") if os.path.isdir(path) else os.fspath(path)
    given = _json(file)
    known = {field.name for field in fields(cast(Any, kind))}
    refused = cast("Mapping[str, tuple[Any, ...]]", getattr(kind, "only", {}))
    for name, allowed in refused.items():
        if name in given and given[name] not in allowed:
            raise GraphError(
                f"load_config: {name} is {given[name]!r} in {file}, and {kind.__name__} has {allowed[0]!r}"
            )
    return kind(**{name: value for name, value in given.items() if name in known})


def load_pretrained(model: Module, path: Path, strict: bool = True) -> tuple[list[str], list[str]]:
    """Assign a published checkpoint's arrays to a model; returns (names that it lacks, names of no use).

    ``path`` is a safetensors file, the index of several (``model.safetensors.index.json``), or the folder that holds
    either. Names may lack the prefix of the base model or have it too much, norms may have ``gamma`` and ``beta``, and
    masks are left out. Unless ``strict`` is false, GraphError if a list is not empty: of a checkpoint with other heads
    strict=False takes what fits.
    """
    known = {name for name, _ in model._state()}
    published = model if isinstance(model, Published) else None
    found: dict[str, Array] = {}
    for file in _files(os.fspath(path)):
        for name, array in safetensors.load_file(file).items():
            here = _name_here(name, known, published)
            if here in known or published is None or not published.is_no_state(name):
                found[here] = array
    return safetensors.assign(model, found, os.fspath(path), strict)


def _name_here(name: str, known: set[str], published: Published | None) -> str:
    stem, _, last = name.rpartition(".")
    if name not in known and last in ("gamma", "beta"):
        name = f"{stem}.{'weight' if last == 'gamma' else 'bias'}"
    if name in known or published is None:
        return name
    prefix = published.base_prefix + "."
    for other in (prefix + name, name.removeprefix(prefix)):
        if other in known:
            return other
    return name


def _files(path: str) -> list[str]:
    if os.path.isdir(path):
        index = os.path.join(path, "model.safetensors.index.json")
        path = index if os.path.exists(index) else os.path.join(path, "model.safetensors")
    if not path.endswith(".json"):
        return [path]
    table = _json(path).get("weight_map")
    names = sorted(set(cast("dict[str, Any]", table).values())) if isinstance(table, dict) else []
    if not names or not all(
        isinstance(n, str) and os.path.basename(n) == n and n.endswith(".safetensors") for n in names
    ):
        raise DataCorrupt(f"{path} is no index of safetensors files: its weight_map must name files beside it")
    return [os.path.join(os.path.dirname(path), name) for name in names]


def _json(file: str) -> dict[str, Any]:
    with open(file, encoding="utf-8") as stream:
        try:
            found = json.load(stream)
        except (ValueError, RecursionError) as error:
            raise DataCorrupt(f"{file} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataCorrupt(f"{file} is no JSON object")
    return cast("dict[str, Any]", found)
