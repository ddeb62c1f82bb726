"""Attention in blocks of queries, for any library with NumPy's interface: no matrix of all weights at once."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

Array = Any

BLOCK_BYTES = 4 << 20


def _blocks(total: int, bytes_each: int) -> Iterator[slice]:
    step = max(1, BLOCK_BYTES // max(1, bytes_each))
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))


def attention(
    lib: Any, q: Array, k: Array, v: Array, bias: Array | None, *, scale: float, is_causal: bool
) -> tuple[Array, Array]:
    """q[..., L, E], k[..., S, E], v[..., S, D], bias[..., L, S] -> out[..., L, D], logarithm of the sums [..., L].

    Block sizes depend on shapes alone. A row of minus infinity gives zeros, and minus infinity.
    """
    lead, (rows, size), columns, width = q.shape[:-2], q.shape[-2:], k.shape[-2], v.shape[-1]
    batch = prod(lead)
    q, k, v = q.reshape(batch, rows, size), k.reshape(batch, columns, size), v.reshape(batch, columns, width)
    is_shared = False  # whether one bias serves the whole batch
    if bias is not None:
        is_shared = not any(stride for n, stride in zip(lead, bias.strides, strict=False) if n > 1)
        bias = bias[(0,) * len(lead)][None] if is_shared and batch else bias.reshape(batch, rows, columns)
    out, total = lib.empty((batch, rows, width), q.dtype), lib.empty((batch, rows), q.dtype)
    each = columns * q.dtype.itemsize
    for some in _blocks(batch, each * rows):
        keys = k[some].swapaxes(1, 2)
        for part in _blocks(rows, each * (some.stop - some.start)):
            weights = lib.matmul(q[some, part], keys)
            weights *= weights.dtype.type(scale)
            if bias is not None:
                weights += bias[:, part] if is_shared else bias[some, part]
            if is_causal:
                seen = np.arange(columns) <= np.arange(part.start, part.stop)[:, None]
                lib.copyto(weights, -np.inf, where=lib.asarray(~seen))
            top = weights.max(axis=-1, keepdims=True, initial=-np.inf)
            lib.copyto(top, 0, where=top == -np.inf)
            weights -= top
            lib.exp(weights, out=weights)
            sums = weights.sum(axis=-1, keepdims=True)
            total[some, part] = (lib.log(sums) + top)[..., 0]
            lib.copyto(sums, 1, where=sums == 0)
            out[some, part] = lib.matmul(weights, v[some])
            out[some, part] /= sums
    return out.reshape(*lead, rows, width), total.reshape(*lead, rows)
