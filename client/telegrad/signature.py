"""The signature of a call: what of its arguments decides which trace serves it, and what differs between two."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from telegrad.ir.types import Type
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class Static:
    """An argument that is part of the signature whatever it is. No dataclass: those are nests."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def signature(x: Any) -> Hashable:
    """What of an argument decides which trace serves it."""
    if isinstance(x, Variable):
        return ("variable", id(x))  # not the object: tensors compare elementwise
    if isinstance(x, Tensor):
        return (x.type, x._requires_grad, x._weak)  # pyright: ignore[reportPrivateUsage]
    kind = type(x)
    if kind is float or kind is int:
        return kind
    if isinstance(x, (np.ndarray, np.generic)):
        return (x.shape, x.dtype)
    if isinstance(x, Static):
        x, kind = x.value, type(x.value)
    try:
        hash(x)
    except TypeError:
        return ("object", id(x))
    return ("static", kind, x)


def difference(signatures: Sequence[Hashable]) -> str:
    """What differs between two signatures, for people."""
    old, new = signatures
    for i, (a, b) in enumerate(zip(old[1], new[1], strict=False)):  # type: ignore[index]
        if a != b:
            return f"argument {i} ({_say(a)}, then {_say(b)})"
    return "the structure of its arguments"


def _say(signature: Any) -> str:
    if isinstance(signature, tuple) and isinstance(signature[-1], np.dtype):
        sizes = ",".join(map(str, signature[0]))  # type: ignore[arg-type]
        return f"an array {signature[-1]}[{sizes}]"
    return str(signature[0]) if isinstance(signature, tuple) and isinstance(signature[0], Type) else repr(signature)
