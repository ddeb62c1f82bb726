"""Rows of a table by number, one by one or reduced over bags of them."""

from __future__ import annotations

from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import index as ix
from telegrad.ops import reduce as r
from telegrad.ops import shape as s
from telegrad.ops.control import stop_gradient


def row_number(padding_idx: int | None, classes: int, op: str) -> int | None:
    """padding_idx counted from the front; ShapeError if the table has no such row."""
    if padding_idx is None:
        return None
    if not -classes <= padding_idx < classes:
        raise ShapeError(f"{op}: padding_idx {padding_idx} must be within the {classes} rows")
    return padding_idx % classes


def frequencies(input: V, classes: int, dtype: t.DType) -> V:
    """How often each of the classes occurs in input[...] -> [classes]."""
    flat = s.reshape(input, (-1,))
    return ix.scatter_add(s.broadcast_to(flat.literal(1, dtype), flat.shape), flat, rows=classes)


def _check(input: V, weight: V, op: str) -> None:
    if weight.ndim != 2:
        raise ShapeError(f"{op}: the weight must be [classes, dim], not {weight.type}")
    if input.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{op}: the input must be integers, not {input.type}")


def embedding(input: V, weight: V, padding_idx: int | None = None, scale_grad_by_freq: bool = False) -> V:
    """The rows of weight[classes, dim] at input[...] -> [..., dim].

    Row ``padding_idx`` receives no gradient. With ``scale_grad_by_freq`` the gradient of a row is over the number of
    times that it occurs in the input.
    """
    _check(input, weight, "embedding")
    padding = row_number(padding_idx, weight.shape[0], "embedding")
    rows = ix.take(weight, input, axis=0)
    still = stop_gradient(rows)
    if scale_grad_by_freq:
        count = ix.take(frequencies(input, weight.shape[0], weight.dtype), input, axis=0)
        rows = still + (rows - still) / s.expand_dims(count, axis=-1)
    if padding is not None:
        rows = e.where(s.expand_dims(e.equal(input, padding), axis=-1), still, rows)
    return rows


def embedding_bag(
    input: V,
    weight: V,
    offsets: V | None = None,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    per_sample_weights: V | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> V:
    """The "sum", "mean" or "max" of the rows of weight[classes, dim] in each bag -> [bags, dim]; an empty one is zeros.

    input[bags, n] holds equally long bags; in input[n] they begin at offsets[bags] (with ``include_last_offset``
    followed by n). Occurrences of ``padding_idx`` do not count. Rows are times ``per_sample_weights`` for a sum.
    """
    op = "embedding_bag"
    _check(input, weight, op)
    if mode not in ("sum", "mean", "max"):
        raise GraphError(f"{op}: mode is 'sum', 'mean' or 'max', not {mode!r}")
    if scale_grad_by_freq and mode == "max":
        raise GraphError(f"{op}: scale_grad_by_freq does not go with mode 'max'")
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.shape != input.shape):
        raise GraphError(f"{op}: per_sample_weights need mode 'sum' and the input's shape {list(input.shape)}")
    flat = s.reshape(input, (-1,))
    bag, bags = _bags(input, offsets, include_last_offset, op)
    rows = embedding(flat, weight, padding_idx, scale_grad_by_freq)
    padding = row_number(padding_idx, weight.shape[0], op)
    counts = s.broadcast_to(flat.literal(True, t.bool_), flat.shape)
    if padding is not None:
        counts = e.not_equal(flat, padding)
    if mode == "max":
        return _largest(rows, bag, counts, bags)
    if per_sample_weights is not None:
        rows = rows * s.reshape(per_sample_weights, (flat.size, 1))
    total = ix.scatter_add(e.where(s.expand_dims(counts, axis=-1), rows, 0), bag, rows=bags)
    if mode == "sum":
        return total
    number = ix.scatter_add(e.astype(counts, weight.dtype), bag, rows=bags)
    return total / s.expand_dims(e.maximum(number, 1), axis=-1)


def _bags(input: V, offsets: V | None, include_last_offset: bool, op: str) -> tuple[V, int]:
    """The number of the bag of each element, int64[size], and the number of bags."""
    if input.ndim == 2:
        if offsets is not None:
            raise GraphError(f"{op}: an input of two axes has no offsets: each row is a bag")
        rows, n = input.shape
        number = input.bind(e.Iota((rows,), 0, t.int64), ())[0]
        return s.reshape(s.broadcast_to(s.expand_dims(number, axis=1), (rows, n)), (rows * n,)), rows
    if input.ndim != 1 or offsets is None or offsets.ndim != 1:
        raise ShapeError(f"{op}({input.type}): takes [bags, n], or [n] with offsets of one axis")
    bags = offsets.size - include_last_offset
    if bags < 0:
        raise ShapeError(f"{op}: with include_last_offset there is one offset at least")
    place = input.bind(e.Iota((input.size, 1), 0, t.int64), ())[0]
    begun = place >= s.expand_dims(offsets[:bags], axis=0)
    return r.sum(e.astype(begun, t.int64), axis=1) - 1, bags


def _largest(rows: V, bag: V, counts: V, bags: int) -> V:
    """The largest rows of each bag, by a mask of [bags, n]; the gradient goes to the first of equals."""
    n, dim = rows.shape
    if n == 0:
        return s.broadcast_to(rows.literal(0, rows.dtype), (bags, dim))
    number = bag.bind(e.Iota((bags, 1), 0, t.int64), ())[0]
    mine = e.equal(number, bag) & counts
    choices = e.where(s.expand_dims(mine, axis=-1), s.expand_dims(rows, axis=0), -float("inf"))
    found = ix.take_along_axis(rows, r.argmax(choices, axis=1), axis=0)
    return e.where(s.expand_dims(r.any(mine, axis=1), axis=-1), found, 0)


__all__: list[str] = []
"""The public face is `telegrad.nn.functional`."""
