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


def _stacked(bias: Array | None, lead: tuple[int, ...]) -> Array | None:
    """bias[..., L, S] with one leading axis, of size 1 where one serves the whole batch."""
    if bias is None or not prod(lead):
        return bias
    is_shared = not any(stride for n, stride in zip(lead, bias.strides, strict=False) if n > 1)
    return bias[(0,) * len(lead)][None] if is_shared else bias.reshape(-1, *bias.shape[-2:])


def attention(
    lib: Any, q: Array, k: Array, v: Array, bias: Array | None, *, scale: float, is_causal: bool
) -> tuple[Array, Array]:
    """q[..., L, E], k[..., S, E], v[..., S, D], bias[..., L, S] -> out[..., L, D], logarithm of the sums [..., L].

    Block sizes depend on shapes alone. A row of minus infinity gives zeros, and minus infinity.
    """
    lead, (rows, size), columns, width = q.shape[:-2], q.shape[-2:], k.shape[-2], v.shape[-1]
    batch = prod(lead)
    q, k, v = q.reshape(batch, rows, size), k.reshape(batch, columns, size), v.reshape(batch, columns, width)
    bias = _stacked(bias, lead)
    out, total = lib.empty((batch, rows, width), q.dtype), lib.empty((batch, rows), q.dtype)
    each = columns * q.dtype.itemsize
    for some in _blocks(batch, each * rows):
        keys = k[some].swapaxes(1, 2)
        for part in _blocks(rows, each * (some.stop - some.start)):
            weights = lib.matmul(q[some, part], keys)
            weights *= weights.dtype.type(scale)
            if bias is not None:
                weights += bias[some if len(bias) > 1 else slice(None), part]
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


def attention_gradient(
    lib: Any,
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    total: Array,
    row: Array,
    bias: Array | None,
    *,
    scale: float,
    is_causal: bool,
) -> tuple[Array, Array, Array]:
    """The gradients of q, k, v from g[..., L, D], total[..., L] and row[..., L] (`AttentionGradient`).

    The blocks of queries, over which dk and dv are summed, depend on the shapes of one matrix alone.
    """
    lead, (rows, size), columns, width = q.shape[:-2], q.shape[-2:], k.shape[-2], v.shape[-1]
    batch = prod(lead)
    g, q, k, v = (x.reshape(batch, *x.shape[-2:]) for x in (g, q, k, v))
    total, row = total.reshape(batch, rows, 1), row.reshape(batch, rows, 1)
    bias = _stacked(bias, lead)
    dq, dk, dv = lib.empty((batch, rows, size), q.dtype), lib.zeros(k.shape, q.dtype), lib.zeros(v.shape, q.dtype)
    factor = q.dtype.type(scale)
    each = columns * q.dtype.itemsize
    parts = list(_blocks(rows, each))
    for some in _blocks(batch, each * min(rows, max(1, BLOCK_BYTES // max(1, each)))):
        keys, values = k[some].swapaxes(1, 2), v[some].swapaxes(1, 2)
        for part in parts:
            weights = lib.matmul(q[some, part], keys)
            weights *= factor
            if bias is not None:
                weights += bias[some if len(bias) > 1 else slice(None), part]
            weights -= total[some, part]
            lib.exp(weights, out=weights)
            hidden = lib.broadcast_to(total[some, part] == -np.inf, weights.shape)
            if is_causal:
                seen = np.arange(columns) <= np.arange(part.start, part.stop)[:, None]
                hidden = hidden | lib.asarray(~seen)
            lib.copyto(weights, 0, where=hidden)
            dv[some] += lib.matmul(weights.swapaxes(1, 2), g[some, part])
            slope = lib.matmul(g[some, part], values)
            slope -= row[some, part]
            weights *= slope
            dq[some, part] = lib.matmul(weights, k[some])
            dk[some] += lib.matmul(weights.swapaxes(1, 2), q[some, part])
    dq *= factor
    dk *= factor
    return dq.reshape(*lead, rows, size), dk.reshape(*lead, columns, size), dv.reshape(*lead, columns, width)
