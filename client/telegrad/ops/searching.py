"""Where elements stand in a sorted line, and what is written with that: membership, differences, the largest few."""

from __future__ import annotations

import math
from dataclasses import dataclass

from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Type, normalize_axes, normalize_axis
from telegrad.ir.value import V
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops.index import AddAlong, argsort, sort, take, take_along_axis
from telegrad.ops.reduce import argmax, cumulative_sum
from telegrad.ops.shape import concat, full_like, moveaxis, permute_dims, reshape, zeros_like

__all__ = ["diff", "isin", "median", "mode", "quantile", "searchsorted", "topk"]


@dataclass(frozen=True)
class Searchsorted(Op):
    """How many elements of a sorted line[n] stand before each of x: those below it; with ``right`` those not above."""

    right: bool = False

    def infer(self, line: Type, x: Type) -> Type:
        if line.ndim != 1:
            raise ShapeError(f"searchsorted({line}, {x}): the sorted elements must have one axis")
        if line.dtype is not x.dtype or x.dtype.kind == "bool":
            raise DTypeError(f"searchsorted({line}, {x}): takes numbers of one dtype")
        return Type(x.shape, t.int64)

    def vjp(self, g: object, out: object, line: object, x: object) -> tuple[None, None]:
        return None, None

    def eval(self, xp: ArrayModule, line: Array, x: Array) -> Array:
        return xp.searchsorted(line, x, right=self.right)

    def cost(self, *types: Type) -> Cost:
        line, x = types
        return Cost(x.size * max(1, line.size.bit_length()), line.nbytes + x.nbytes + 8 * x.size)


def searchsorted(x1: V, x2: V, /, *, side: str = "left", sorter: V | None = None) -> V:
    """Where each of x2 would stand in x1[n], which is sorted (or is by ``sorter``): before or behind its equals.

    int64 of x2's shape. NaN stands behind all numbers. ShapeError unless x1 has one axis.
    """
    if side not in ("left", "right"):
        raise GraphError(f"searchsorted: side is 'left' or 'right', not {side!r}")
    if x1.ndim != 1:
        raise ShapeError(f"searchsorted({x1.type}, {x2.type}): the sorted elements must have one axis")
    line, x = e.common(x1 if sorter is None else take(x1, sorter, axis=0), x2)
    return Searchsorted(side == "right")(line, x)


def isin(x1: V, x2: V, /, *, invert: bool = False) -> V:
    """Whether each element of x1 is one of x2's, or with ``invert`` is none. NaN is no element of anything."""
    x, y = e.common(x1, x2)
    if x.dtype.kind == "bool":
        x, y = e.astype(x, t.uint8), e.astype(y, t.uint8)
    if y.size == 0:
        found = e.not_equal(x, x) & e.equal(x, x)
    else:
        line = sort(reshape(y, (y.size,)))
        place = e.minimum(Searchsorted()(line, x), y.size - 1)
        found = e.equal(take(line, place, axis=0), x)
    return ~found if invert else found


def diff(x: V, /, *, axis: int = -1, n: int = 1, prepend: V | None = None, append: V | None = None) -> V:
    """Each element minus the one before it along an axis, ``n`` times; ``prepend`` and ``append`` are joined first."""
    if n < 0:
        raise GraphError(f"diff: n must not be negative, as {n} is")
    at = normalize_axis(axis, x.ndim, op="diff")
    parts = [part for part in (prepend, x, append) if part is not None]
    if len(parts) > 1:
        x = concat(e.common(*parts), axis=at)
    lead = (slice(None),) * at
    for _ in range(n):
        after, before = x[(*lead, slice(1, None))], x[(*lead, slice(None, -1))]
        x = e.not_equal(after, before) if x.dtype.kind == "bool" else after - before
    return x


def topk(x: V, k: int, /, *, axis: int = -1, largest: bool = True) -> tuple[V, V]:
    """(the ``k`` largest elements along an axis in order, or the smallest, and their places as int64).

    Of equals the first comes first. Gradients go back to where the elements came from. ShapeError for more than there
    are.
    """
    at = normalize_axis(axis, x.ndim, op="topk")
    if not 0 <= k <= x.shape[at]:
        raise ShapeError(f"topk({x.type}): axis {at} has no {k} elements")
    places = argsort(x, axis=at, descending=largest)[((slice(None),) * at + (slice(None, k),))]
    return take_along_axis(x, places, axis=at), places


def median(x: V, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> V:
    """The middle element over axes, the mean of the two in the middle of an even number; NaN where there is one.

    In floating point. The gradient goes to the elements in the middle. ShapeError where there are no elements.
    """
    return quantile(x, 0.5, axis=axis, keepdims=keepdims)


def quantile(x: V, q: float, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> V:
    """The element below which a part ``q`` of all lies, over axes, linear between two elements; NaN where there is one.

    With n elements it stands at q * (n - 1) in their order (Hyndman and Fan 1996, definition 7, as NumPy's default).
    GraphError for a q outside [0, 1], ShapeError where there are no elements.
    """
    if not 0.0 <= q <= 1.0:
        raise GraphError(f"quantile: q must be from 0 to 1, which {q} is not")
    x = e.inexact(x)
    axes = normalize_axes(axis, x.ndim, op="quantile")
    rest = tuple(a for a in range(x.ndim) if a not in axes)
    kept = tuple(1 if a in axes else size for a, size in enumerate(x.shape))
    n = t.product(x.shape[a] for a in axes)
    if n == 0:
        raise ShapeError(f"quantile({x.type}): no elements over axes {axes}")
    lines = sort(reshape(permute_dims(x, (*rest, *axes)), (*(x.shape[a] for a in rest), n)))
    place = q * (n - 1)
    low = int(place)
    below, above = lines[..., low], lines[..., min(low + 1, n - 1)]
    found = below + (above - below) * (place - low) if place > low else below
    found = e.where(e.isnan(lines[..., -1]), math.nan, found)
    return reshape(found, kept) if keepdims else found


def mode(x: V, /, *, axis: int = -1, keepdims: bool = False) -> tuple[V, V]:
    """(the most common element along an axis, the smallest of several, how often it is there).

    The gradient goes to one of its places. ShapeError where there are no elements.
    """
    at = normalize_axis(axis, x.ndim, op="mode")
    if x.shape[at] == 0:
        raise ShapeError(f"mode({x.type}): no elements along axis {at}")
    lines = sort(moveaxis(x, at, -1))
    n = lines.shape[-1]
    is_new = e.not_equal(lines[..., 1:], lines[..., :-1])
    group = cumulative_sum(e.astype(is_new, t.int64), axis=-1)
    group = concat([zeros_like(group[..., :1]) if n > 1 else full_like(lines, 0, dtype=t.int64), group], axis=-1)
    counts = AddAlong(lines.ndim - 1, n)(full_like(group, 1), group)
    mine = take_along_axis(counts, group, axis=-1)
    place = argmax(mine, axis=-1, keepdims=True)
    value, count = take_along_axis(lines, place, axis=-1), take_along_axis(mine, place, axis=-1)
    if keepdims:
        return moveaxis(value, -1, at), moveaxis(count, -1, at)
    return value[..., 0], count[..., 0]
