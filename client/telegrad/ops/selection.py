"""What has a shape that data decides: the places of the elements that are not zero, and the different elements.

A graph holds static shapes, so the one number that is missing is read before the graph is built: outside a trace that
is a round trip; inside it is a TraceError, unless the caller says ``size``. All else happens on the server, and what
is selected is a gather, through which gradients flow.
"""

from __future__ import annotations

from typing import Generic, NamedTuple

from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import Shape
from telegrad.ir.value import Number, Operators, V
from telegrad.ops import elementwise as e
from telegrad.ops.index import Gather, ScatterSet, argsort
from telegrad.ops.reduce import count_nonzero, cumulative_sum
from telegrad.ops.shape import broadcast_to, concat, reshape

__all__ = ["nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values"]


class UniqueAllResult(NamedTuple, Generic[V]):
    """The different elements, where each stands first, which of them each element is, and how often they occur."""

    values: V
    indices: V
    inverse_indices: V
    counts: V


class UniqueCountsResult(NamedTuple, Generic[V]):
    """The different elements, and how often they occur."""

    values: V
    counts: V


class UniqueInverseResult(NamedTuple, Generic[V]):
    """The different elements, and which of them each element is."""

    values: V
    inverse_indices: V


def nonzero(x: V, /, *, size: int | None = None, fill_value: Number = 0) -> tuple[V, ...]:
    """For each axis of x the indices of its elements that are not zero (or not False), in C order, as int64.

    Their number is read from x; inside `tg.function`, where it is not known, ``size`` says how many there shall be:
    those beyond are left out, and missing ones are ``fill_value``. ShapeError for a 0-d x.
    """
    if x.ndim == 0:
        raise ShapeError(f"nonzero({x.type}): takes at least one axis; use reshape(x, (1,))")
    mask = reshape(x if x.dtype is t.bool_ else e.not_equal(x, 0), (x.size,))
    n = how_many(mask, "the shape of nonzero(x)") if size is None else _size(size, "nonzero")
    places = true_places(mask, n)
    if size is None:
        return unravelled(places, x.shape)
    are_there = e.less(_iota(x, n), count_nonzero(mask))
    return tuple([e.where(are_there, axis, fill_value) for axis in unravelled(places, x.shape)])


def unique_all(x: V, /, *, size: int | None = None) -> UniqueAllResult[V]:
    """The different elements of x in ascending order: (values, indices of the first of each in the flattened x,
    inverse_indices of x's shape with ``values[inverse_indices] == x``, counts). Each NaN counts as one of its own.

    Their number is read from x; inside `tg.function` ``size`` says it: missing ones repeat the last with count 0, and
    values beyond are left out.
    """
    if size is not None and x.size == 0 and size:
        raise ShapeError(f"unique_all({x.type}): has no {size} elements")
    flat = reshape(x, (x.size,))
    order = argsort(flat)
    line = Gather()(flat, order)
    behind = e.not_equal(line[1:], line[:-1])
    starts_group = concat([broadcast_to(x.literal(True, t.bool_), (min(1, x.size),)), behind])
    n = how_many(starts_group, "the shape of unique_all(x)") if size is None else _size(size, "unique_all")
    bounds = true_places(starts_group, n + 1, missing=x.size)
    starts = bounds[:-1] if size is None else e.minimum(bounds[:-1], x.size - 1)
    group = cumulative_sum(e.astype(starts_group, t.int64)) - 1
    inverse = reshape(ScatterSet()(group, order, group), x.shape)
    counts = bounds[1:] - bounds[:-1]
    return UniqueAllResult(Gather()(line, starts), Gather()(order, starts), inverse, counts)


def unique_counts(x: V, /, *, size: int | None = None) -> UniqueCountsResult[V]:
    """The different elements of x in ascending order, and how often they occur. See `unique_all`."""
    values, _, _, counts = unique_all(x, size=size)
    return UniqueCountsResult(values, counts)


def unique_inverse(x: V, /, *, size: int | None = None) -> UniqueInverseResult[V]:
    """The different elements of x in ascending order, and of x's shape which of them each is. See `unique_all`."""
    values, _, inverse, _ = unique_all(x, size=size)
    return UniqueInverseResult(values, inverse)


def unique_values(x: V, /, *, size: int | None = None) -> V:
    """The different elements of x in ascending order. See `unique_all`."""
    return unique_all(x, size=size).values


# ---- what masks are made of


def how_many(mask: Operators, asker: str) -> int:
    """How many elements of the mask are true, read from it now. TraceError where it is not known."""
    return int(count_nonzero(mask).concrete(asker))


def true_places(mask: V, n: int, *, missing: int = 0) -> V:
    """The places of the first n true elements of mask[size], in order; ``missing`` for those that are not there."""
    rank = cumulative_sum(e.astype(mask, t.int64)) - 1
    slot = e.where(mask, e.minimum(rank, n), n)  # the last slot takes what nobody wants
    nothing = broadcast_to(mask.literal(missing, t.int64), (n + 1,))
    return ScatterSet()(nothing, slot, _iota(mask, mask.size))[:n]


def unravelled(places: V, shape: Shape) -> tuple[V, ...]:
    """For each axis of ``shape`` the indices of places in C order."""
    found: list[V] = []
    for a, size in enumerate(shape):
        stride = t.product(shape[a + 1 :])
        row = places if stride == 1 else places // max(1, stride)
        found.append(row if a == 0 else row % max(1, size))
    return tuple(found)


def _iota(like: V, n: int) -> V:
    return like.bind(e.Iota((n,), 0, t.int64), ())[0]


def _size(size: int, op: str) -> int:
    if size < 0:
        raise GraphError(f"{op}: size must not be negative, as {size} is")
    return size
