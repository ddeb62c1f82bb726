"""Sums, means, largest elements and softmax of segments: the rows that have the same index.

What messages along a graph's edges need. The number of segments is given, as a graph's shapes are known before its
data; a segment without a row gives zeros.
"""

from __future__ import annotations

from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import normalize_axis, product
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import shape as s
from telegrad.ops.control import stop_gradient
from telegrad.ops.index import CheckedIndex, Gather, ScatterSet, argsort, scatter_add

REDUCTIONS = ("sum", "add", "mean", "max", "min")


def scatter(src: V, index: V, dim: int = 0, dim_size: int | None = None, reduce: str = "sum") -> V:
    """src[..., E, ...] reduced to [..., dim_size, ...]: out[i] is made of the src[k] with index[k] = i.

    ``reduce`` is "sum" (or "add"), "mean", "max" or "min"; of equals the last one receives the gradient. What no index
    names is zero. IndexRange, when it runs, for an index outside [-dim_size, dim_size).
    """
    if dim_size is None:
        raise GraphError("scatter: say dim_size; a graph's shapes are known before its data")
    if reduce not in REDUCTIONS:
        raise GraphError(f"scatter: reduce is one of {', '.join(REDUCTIONS)}, not {reduce!r}")
    axis = normalize_axis(dim, src.ndim, op="scatter")
    if index.shape != src.shape[axis : axis + 1]:
        raise ShapeError(f"scatter({src.type}, {index.type}): the index must be [{src.shape[axis]}]")
    rows = s.moveaxis(src, axis, 0)
    if reduce == "max":
        out = _largest(rows, index, dim_size)
    elif reduce == "min":
        out = -_largest(-rows, index, dim_size)
    else:
        out = scatter_add(rows, index, rows=dim_size)
    if reduce == "mean":
        count = e.maximum(scatter_add(s.ones_like(rows[(..., *(0,) * (rows.ndim - 1))]), index, rows=dim_size), 1)
        out = out / s.reshape(count, (dim_size, *(1,) * (rows.ndim - 1)))
    return s.moveaxis(out, 0, axis)


def _largest(rows: V, index: V, n: int) -> V:
    """The rows are written in ascending order, so that the largest is the last that counts."""
    width = product(rows.shape[1:])
    column = rows.bind(e.Iota((width,), 0, t.int64), ())[0]
    place = s.reshape(s.expand_dims(CheckedIndex(n)(index), axis=1) * width + column, (-1,))
    flat = s.reshape(rows, (-1,))
    order = argsort(flat)
    zeros = s.broadcast_to(rows.literal(0, rows.dtype), (n * width,))
    found = ScatterSet()(zeros, Gather()(place, order), Gather()(flat, order))
    return s.reshape(found, (n, *rows.shape[1:]))


def scatter_softmax(src: V, index: V, dim_size: int) -> V:
    """exp(src[E, ...]) over its sum in the segment that index[E] names; minus infinity gives 0."""
    if index.shape != src.shape[:1]:
        raise ShapeError(f"scatter_softmax({src.type}, {index.type}): the index must be {list(src.shape[:1])}")
    top = _largest(stop_gradient(src), index, dim_size)
    shift = Gather()(e.where(e.isfinite(top), top, 0), index)
    found = e.exp(src - shift)
    total = Gather()(scatter_add(found, index, rows=dim_size), index)
    return found / e.where(e.equal(total, 0), 1, total)


__all__: list[str] = []
"""The public face is `telegrad.nn.functional`."""
