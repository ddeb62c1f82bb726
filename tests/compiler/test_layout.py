"""Strides are those that NumPy computes, so that a plan knows what is a view."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from telegrad.ir import Op, Type
from telegrad.ir import types as t
from telegrad.ops.control import Alias
from telegrad.ops.shape import BroadcastTo, Flip, Permute, Reshape
from telegrad.ops.slices import Slice
from telegrad_server.compiler.layout import contiguous_strides, is_contiguous, view_strides
from telegrad_server.executors.array_module import NumpyModule


def random_view(rng: random.Random, shape: tuple[int, ...]) -> Op:
    n = len(shape)
    size = t.product(shape)
    shapes = [(size,), (1, size), tuple(reversed(shape)), (*shape, 1), (2, size // 2) if size % 2 == 0 else (size,)]
    bounds = [rng.choice([(0, s, 1), (s // 2, s, 1), (s - 1, -1, -1)]) if s else (0, 0, 1) for s in shape]
    start, stop, step = (tuple(b[k] for b in bounds) for k in range(3))
    return rng.choice(
        [
            Reshape(rng.choice(shapes)),
            Permute(tuple(rng.sample(range(n), n))),
            BroadcastTo((2, *(5 if s == 1 else s for s in shape))),
            Flip(tuple(range(n))),
            Slice(start, stop, step),
            Alias(),
        ]
    )


def test_chains_of_views_have_numpys_strides() -> None:
    xp = NumpyModule()
    for seed in range(500):
        rng = random.Random(seed)
        type = Type(rng.choice([(3, 4), (1, 4), (2, 1, 3), (6,), (0, 3), ()]), t.float32)
        base: Any = np.zeros(type.shape, np.float32)
        array: Any = base
        strides: Any = contiguous_strides(type.shape)
        for _ in range(4):
            if type.ndim > 5:
                break
            op = random_view(rng, type.shape)
            out = op.infer(type)
            assert isinstance(out, Type)
            found = view_strides(op, type, strides, out)
            result = op.eval(xp, array)
            assert (found == "copy") == (result.size > 0 and not np.shares_memory(result, base)), (seed, op)
            if found == "copy":
                break
            array, type, strides = result, out, found
            real = [a for a, size in enumerate(type.shape) if size > 1]
            if type.size:
                assert [strides[a] for a in real] == [array.strides[a] // 4 for a in real], (seed, op)
            assert is_contiguous(type.shape, strides) == array.flags.c_contiguous, (seed, op)
