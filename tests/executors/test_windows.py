"""The largest element of each window, over windows of every geometry, against the definition in words."""

from __future__ import annotations

import numpy as np
import pytest
from telegrad.errors import ShapeError
from telegrad.ir import Type
from telegrad.ir import types as t
from telegrad.ops.pooling import WindowArgmax
from telegrad_server.executors.array_module import NumpyModule

from tests.ops.registry.pooling import reference

XP = NumpyModule()


@pytest.mark.parametrize("dtype", [t.float32, t.int32, t.uint8, t.bool_])
def test_the_first_largest_element_of_any_window_is_found(dtype: t.DType) -> None:
    rng, seen = np.random.default_rng(0), 0
    for _ in range(120):
        op, size = geometry(rng)
        shape = (int(rng.integers(0, 3)), 2, *size)
        try:
            op.infer(Type(shape, dtype))
        except ShapeError:
            continue
        x = rng.integers(0, 2 if dtype is t.bool_ else 4, shape).astype(dtype.name)
        if dtype.is_float:
            x = np.where(rng.random(shape) < 0.3, rng.choice([np.nan, -np.inf, np.inf, -0.0], shape), x)
            x = x.astype(np.float32)

        found = op.eval(XP, x)

        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, reference(op, x), err_msg=f"{op} of {shape}")
        seen += 1
    assert seen > 60


def geometry(rng: np.random.Generator) -> tuple[WindowArgmax, tuple[int, ...]]:
    """Windows over one to three axes, and how long these are."""
    axes = int(rng.integers(1, 4))

    def draw(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(v) for v in rng.integers(low, high, axes))

    kernel, dilation = draw(1, 4), draw(1, 3)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding: list[tuple[int, ...]] = [tuple(int(rng.integers(0, r // 2 + 1)) for r in reach) for _ in range(2)]
    if rng.random() < 0.5:
        padding = [(0,) * axes] * 2
    size = tuple(r + int(rng.integers(0, 5)) for r in reach)
    return WindowArgmax(kernel, draw(1, 4), padding[0], padding[1], dilation), size
