"""Selecting and placing elements along an axis by the rules of PyTorch's methods.

The index of `gather` and `scatter` has as many axes as the tensor and may be shorter along the others;
`telegrad.take_along_axis` is the array API's form, in which those broadcast. An index out of range is an IndexRange
before anything is written; negative ones are out of range.
"""

from __future__ import annotations

from collections.abc import Sequence

from telegrad import ops
from telegrad.errors import ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import Shape, normalize_axis, product
from telegrad.ir.value import Number, Operators, V
from telegrad.ops import elementwise as e
from telegrad.ops.index import CheckedIndex, ScatterAdd, ScatterSet
from telegrad.ops.shape import BroadcastTo


def split(x: V, split_size_or_sections: int | Sequence[int], dim: int = 0) -> list[V]:
    """Pieces along an axis: of one size but for the last, or of the sizes named."""
    at = normalize_axis(dim, x.ndim, op="split")
    n = x.shape[at]
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        if size < 1:
            raise ShapeError(f"split: a piece of {size} elements; use a size of at least 1")
        sizes = [min(size, n - start) for start in range(0, max(n, 1), size)]
    else:
        sizes = list(split_size_or_sections)
        if sum(sizes) != n or min(sizes, default=0) < 0:
            raise ShapeError(f"split({x.type}): {sizes} do not add up to the {n} elements of axis {at}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [narrow(x, at, start, size) for start, size in zip(starts, sizes, strict=True)]


def chunk(x: V, chunks: int, dim: int = 0) -> list[V]:
    """At most so many pieces along an axis, of one size but for the last."""
    if chunks < 1:
        raise ShapeError(f"chunk: {chunks} pieces; use at least 1")
    at = normalize_axis(dim, x.ndim, op="chunk")
    return split(x, max(1, -(-x.shape[at] // chunks)), at)


def unbind(x: V, dim: int = 0) -> tuple[V, ...]:
    """The slices along an axis."""
    return ops.unstack(x, axis=dim)


def narrow(x: V, dim: int, start: int, length: int) -> V:
    """``length`` elements along an axis, from ``start`` on."""
    at = normalize_axis(dim, x.ndim, op="narrow")
    if min(start, length) < 0 or start + length > x.shape[at]:
        raise ShapeError(f"narrow({x.type}): axis {at} has no {length} elements from {start} on")
    return x[(*[slice(None)] * at, slice(start, start + length))]


def select(x: V, dim: int, index: int) -> V:
    """The slice at one index along an axis."""
    return x[(*[slice(None)] * normalize_axis(dim, x.ndim, op="select"), index)]


def index_select(x: V, dim: int, index: V) -> V:
    """The slices along an axis at index[n]."""
    return ops.take(x, index, axis=dim)


def take(x: V, indices: V, axis: int | None = None) -> V:
    """The elements at ``indices`` along an axis, or of the flattened x."""
    return ops.take(x, indices, axis=axis)


def masked_fill(x: V, mask: V, value: V | Number) -> V:
    """x with ``value`` where the mask holds."""
    return e.where(mask, e.astype(value, x.dtype) if isinstance(value, Operators) else x.literal(value, x.dtype), x)


def masked_select(x: V, mask: V) -> V:
    """The elements where the mask holds, in C order. How many there are is read; TraceError inside `tg.function`."""
    wide, chosen = ops.broadcast_arrays(x, mask)
    return wide[chosen]


def where(x: V, condition: V, other: V | Number) -> V:
    """x where the condition holds, else ``other``."""
    return e.where(condition, x, other)


def gather(x: V, dim: int, index: V) -> V:
    """out[i, j] = x[index[i, j], j] for dim 0. Along other axes index may be shorter than x."""
    at = _check_along("gather", x, dim, index)
    cut = tuple(slice(None) if a == at else slice(0, n) for a, n in enumerate(index.shape))
    return ops.take_along_axis(x[cut], CheckedIndex(x.shape[at], wraps=False)(index), axis=at)


def scatter(x: V, dim: int, index: V, src: V | Number) -> V:
    """x with out[index[i, j], j] = src[i, j] for dim 0. Of equal indices the last counts."""
    at = _check_along("scatter", x, dim, index)
    new = e.astype(src, x.dtype) if isinstance(src, Operators) else BroadcastTo(index.shape)(x.literal(src, x.dtype))
    flat = ScatterSet()(ops.reshape(x, (x.size,)), _positions(x.shape, at, index), _front("scatter", new, index))
    return ops.reshape(flat, x.shape)


def scatter_add(x: V, dim: int, index: V, src: V) -> V:
    """x with src[i, j] added at [index[i, j], j] for dim 0, in the order of src."""
    at = _check_along("scatter_add", x, dim, index)
    added = _front("scatter_add", e.astype(src, x.dtype), index)
    return x + ops.reshape(ScatterAdd(x.size)(added, _positions(x.shape, at, index)), x.shape)


def _check_along(op: str, x: Operators, dim: int, index: Operators) -> int:
    """The axis from the front, if index lies within x along all others."""
    at = normalize_axis(dim, x.ndim, op=op)
    if index.ndim != x.ndim or any(n > x.shape[a] for a, n in enumerate(index.shape) if a != at):
        raise ShapeError(f"{op}({x.type}, {index.type}): the index must lie within x along all axes but {at}")
    return at


def _positions(shape: Shape, axis: int, index: V) -> V:
    """The places in C order of a value of this shape that the index names along one axis."""
    place: V = CheckedIndex(shape[axis], wraps=False)(index) * product(shape[axis + 1 :])
    for a, n in enumerate(index.shape):
        if a != axis and n > 1:
            along = index.bind(e.Iota((n,), 0, t.int64), ())[0] * product(shape[a + 1 :])
            place = place + ops.reshape(along, (-1, *(1,) * (index.ndim - a - 1)))
    return place


def _front(op: str, src: V, index: V) -> V:
    """The elements of src that have an index."""
    if src.ndim != index.ndim or any(n > m for n, m in zip(index.shape, src.shape, strict=True)):
        raise ShapeError(f"{op}({src.type}, {index.type}): the index must lie within the values")
    return src[tuple(slice(0, n) for n in index.shape)]
