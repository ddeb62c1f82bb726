"""Small checkpoints for the tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from telegrad.wire.arrays import array_bytes, type_of
from telegrad_server.checkpoints import Draft
from telegrad_server.checkpoints.shards import Named

Arrays = Mapping[str, npt.NDArray[Any]]


def tensors(value: int) -> Arrays:
    """Three arrays of ``value``."""
    return {
        "model.weight": np.full((2, 3), value, np.float32),
        "model.bias": np.full(3, value, np.float32),
        "optimizer.count": np.array(value, np.int64),
    }


def draft(arrays: Arrays, *, job: str = "job-1", step: int = 1, metrics: Mapping[str, float] | None = None) -> Draft:
    """What stands in the manifest of a checkpoint of these arrays."""
    return Draft(
        job=job,
        step=step,
        epoch=step // 10,
        cursor=32 * step,
        calls=step,
        seed=-5,
        spec_digest="5" * 64,
        fingerprint="numpy 2.4 on a test's machine",
        metrics=metrics or {"loss": 1 / step},
        tensors={name: type_of(array) for name, array in arrays.items()},
    )


def named(arrays: Arrays) -> list[Named]:
    """The arrays as the store takes them, in no useful order."""
    return [(name, type_of(array), array_bytes(array)) for name, array in sorted(arrays.items())]


def arrays_of(found: Iterable[Named]) -> dict[str, bytes]:
    """The bytes that the store gave, by name."""
    return {name: bytes(data) for name, _, data in found}
