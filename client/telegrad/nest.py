"""Nests: tensors in lists, tuples, dicts and dataclasses, taken apart and put together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, cast

Structure = Hashable
"""What a nest is without its leaves; comparable and hashable."""

_LEAF: Structure = ("leaf",)


def flatten(nest: Any) -> tuple[list[Any], Structure]:
    """The leaves of the nest in order, and its structure."""
    leaves: list[Any] = []
    return leaves, _take(nest, leaves)


def _take(nest: Any, leaves: list[Any]) -> Structure:
    kind = type(nest)
    if kind is tuple or kind is list:
        return (kind, *[_take(x, leaves) for x in nest])
    if kind is dict:
        return (dict, tuple(nest), *[_take(x, leaves) for x in nest.values()])
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return ("named", kind, *[_take(x, leaves) for x in cast("tuple[Any, ...]", nest)])
    if dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        names = tuple(f.name for f in dataclasses.fields(nest))
        return ("fields", kind, names, *[_take(getattr(nest, name), leaves) for name in names])
    if nest is None:
        return None
    leaves.append(nest)
    return _LEAF


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """The nest of this structure with these leaves."""
    return _put(structure, iter(leaves))


def _put(structure: Any, leaves: Iterator[Any]) -> Any:
    if structure is None:
        return None
    kind = structure[0]
    if kind == "leaf":
        return next(leaves)
    if kind is tuple or kind is list:
        return kind([_put(s, leaves) for s in structure[1:]])
    if kind is dict:
        return {key: _put(s, leaves) for key, s in zip(structure[1], structure[2:], strict=True)}
    if kind == "named":
        return structure[1](*[_put(s, leaves) for s in structure[2:]])
    names = structure[2]
    return structure[1](**{name: _put(s, leaves) for name, s in zip(names, structure[3:], strict=True)})
