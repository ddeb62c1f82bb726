"""Choosing between two arrays' elements without branches: the same bits as NumPy's, whatever they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from telegrad_server.executors.blend import BLOCK, FEWEST, blend, is_plain

SIZES = [FEWEST, BLOCK, 2 * BLOCK + 7]


@pytest.mark.parametrize("over", [-1, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("size", SIZES)
def test_bits_are_those_of_copying(dtype: str, size: int, over: int) -> None:
    rng = np.random.default_rng(size)
    condition = rng.random(size) < 0.5
    for kinds in (
        ("array", "array"),
        ("array", "zero"),
        ("one", "array"),
        ("zero", "array"),
        ("array", "one"),
        ("zero scalar", "array"),
        ("array", "one scalar"),
    ):
        if over > 0 and kinds[over - 1] != "array":
            continue
        x, y = (operand(kind, size, np.dtype(dtype), rng) for kind in kinds)
        wanted = np.array(np.broadcast_to(y, (size,)))
        np.copyto(wanted, x, where=condition)
        out = {-1: np.empty(size, dtype), 1: x, 2: y}[over]

        assert is_plain(condition, x, y, out)
        blend(condition, x, y, out)

        assert out.tobytes() == wanted.tobytes(), kinds


def operand(kind: str, size: int, dtype: np.dtype[Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Any bits, those of NaN with a payload among them; or one element repeated."""
    if kind == "array":
        data = rng.integers(0, 2 if dtype.kind == "b" else 256, size * dtype.itemsize, dtype=np.uint8)
        return data.view(dtype)
    scalar = np.array(kind.startswith("one"), dtype)
    return scalar if kind.endswith("scalar") else np.broadcast_to(scalar, (size,))


def test_what_is_small_or_lies_otherwise_is_left_to_others() -> None:
    c, x = np.ones((128, 64), bool), np.ones((128, 64), np.float32)

    assert is_plain(c, x, x, x)
    assert not is_plain(c.T, x.T, x.T, x.T)
    assert not is_plain(c, np.broadcast_to(x[:1], x.shape), x, x)
    assert not is_plain(c[:1], x[:1], x[:1], x[:1])
