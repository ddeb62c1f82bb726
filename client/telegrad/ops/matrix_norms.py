"""Norms of vectors and matrices, and what is told by singular values: the condition number and the rank."""

from __future__ import annotations

import math

from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import normalize_axes, product
from telegrad.ir.value import Operators, V
from telegrad.ops import elementwise as e
from telegrad.ops import reduce as r
from telegrad.ops.control import stop_gradient
from telegrad.ops.decompositions import svdvals
from telegrad.ops.shape import expand_dims, full_like
from telegrad.ops.systems import default_rtol, inv

__all__: list[str] = []  # users find these in telegrad.linalg

Order = int | float | str


def _check_float(op: str, x: Operators) -> None:
    if not x.dtype.is_float:
        raise DTypeError(f"{op}({x.type}): takes a floating-point dtype; use astype")


def vector_norm(
    x: V, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, ord: int | float = 2
) -> V:
    """sum(|x| ** ord) ** (1 / ord) over axes; the largest or smallest |x| for inf or -inf, the count of x != 0 for 0.

    The gradient at a vector of zeros is 0, and elements that are 0 have none. 16-bit floats are computed in float32.
    """
    _check_float("vector_norm", x)
    if isinstance(ord, str) or ord != ord:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise GraphError(f"vector_norm({x.type}): ord must be a number, not {ord!r:.40}")
    axes = normalize_axes(axis, x.ndim, op="vector_norm")
    return e.astype(_vector_norm(r.widened(x), axes, keepdims, float(ord)), x.dtype)


def _vector_norm(x: V, axes: tuple[int, ...], keepdims: bool, order: float) -> V:
    if order == math.inf:
        if product(x.shape[a] for a in axes) == 0:
            return r.Sum(axes, keepdims)(x)
        return r.Max(axes, keepdims)(e.abs(x))
    if order == -math.inf:
        return r.Min(axes, keepdims)(e.abs(x))
    if order == 0:
        return e.astype(r.Sum(axes, keepdims)(e.astype(e.not_equal(x, 0), t.int64)), x.dtype)
    if order == 1:
        return r.Sum(axes, keepdims)(e.abs(x))
    if order == 2:
        total = r.Sum(axes, keepdims)(e.square(x))
        none = e.equal(total, 0)
        return e.where(none, 0.0, e.sqrt(e.where(none, 1, total)))
    size = e.abs(x)
    zero = e.equal(x, 0)
    powers = e.where(zero, 0.0 if order > 0 else math.inf, e.pow(e.where(zero, 1, size), order))
    total = r.Sum(axes, keepdims)(powers)
    none = e.equal(total, 0)
    return e.where(none, 0.0 if order > 0 else math.inf, e.pow(e.where(none, 1, total), 1.0 / order))


def matrix_norm(x: V, /, *, keepdims: bool = False, ord: Order = "fro") -> V:
    """The norm of each matrix x[..., m, n].

    "fro": the root of the sum of squares; "nuc": the sum of the singular values; 2 and -2: the largest and the smallest
    of them; 1 and -1: the largest and smallest sum of |x| over a column; inf and -inf: over a row.
    """
    _check_float("matrix_norm", x)
    if x.ndim < 2:
        raise ShapeError(f"matrix_norm({x.type}): takes a matrix or a stack of them")
    if ord == "fro":
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord not in ("nuc", 1, -1, 2, -2, math.inf, -math.inf):
        raise GraphError(f"matrix_norm: ord must be 'fro', 'nuc', 1, 2, inf or one of these negated, not {ord!r:.40}")
    if ord in ("nuc", 2, -2):
        values = svdvals(x)
        found = r.sum(values, axis=-1) if ord == "nuc" else _extreme(values, x, is_largest=ord == 2)
    else:
        sums = r.sum(e.abs(x), axis=-2 if ord in (1, -1) else -1)
        found = _extreme(sums, x, is_largest=ord in (1, math.inf))
    return expand_dims(found, axis=(-2, -1)) if keepdims else found


def _extreme(values: V, x: V, *, is_largest: bool) -> V:
    if values.shape[-1] == 0 and is_largest:
        return r.sum(values, axis=-1)
    if values.shape[-1] == 0:
        raise ShapeError(f"matrix_norm({x.type}): no elements to find the smallest of")
    return r.max(values, axis=-1) if is_largest else r.min(values, axis=-1)


def cond(x: V, /, p: Order | None = None) -> V:
    """The condition number of each matrix: `matrix_norm` of x times that of its inverse.

    By default, and for 2 and -2, it is the ratio of the extreme singular values and x[..., m, n] need not be square.
    """
    if p is None or p in (2, -2):
        values = svdvals(x)
        if values.shape[-1] == 0:
            raise ShapeError(f"cond({x.type}): a matrix without elements has no condition number")
        largest, smallest = values[..., 0], values[..., -1]
        return smallest / largest if p == -2 else largest / smallest
    return matrix_norm(x, ord=p) * matrix_norm(inv(x), ord=p)


def matrix_rank(x: V, /, *, rtol: float | V | None = None) -> V:
    """How many singular values of each x[..., m, n] are above ``rtol`` times the largest, as int64.

    ``rtol`` is for all or for each matrix, by default max(m, n) times the spacing of floats at 1.
    """
    values = svdvals(stop_gradient(x))
    if values.shape[-1] == 0:
        return e.astype(r.sum(full_like(values, 0), axis=-1), t.int64)
    if isinstance(rtol, Operators):
        rtol = expand_dims(rtol, axis=-1)
    return r.count_nonzero(values > values[..., :1] * (default_rtol(x) if rtol is None else rtol), axis=-1)
