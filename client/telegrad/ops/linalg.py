"""Products of matrices and what is written with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from telegrad.errors import DTypeError, ShapeError
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import DType, Type, broadcast_shapes, check_shape, normalize_axis, product
from telegrad.ir.value import V, Value, operator
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops import reduce as r
from telegrad.ops.reduce import Sum
from telegrad.ops.shape import (
    BroadcastTo,
    Pad,
    expand_dims,
    matrix_transpose,
    moveaxis,
    reshape,
    roll,
)

__all__ = ["cross", "diag", "diag_embed", "kron", "matmul", "outer", "tensordot", "vecdot"]


@dataclass(frozen=True)
class Matmul(Op):
    """x[..., n, k] @ y[..., k, m] -> [..., n, m]; the leading axes broadcast."""

    uses_blas: ClassVar[bool] = True

    def infer(self, x: Type, y: Type) -> Type:
        if x.dtype is not y.dtype or x.dtype.kind == "bool":
            raise DTypeError(f"matmul({x}, {y}): takes two matrices of one numeric dtype")
        if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-2]:
            raise ShapeError(
                f"matmul({x}, {y}): the last axis of the first and the second to last of the second must be equal"
            )
        lead = broadcast_shapes(x.shape[:-2], y.shape[:-2], op="matmul")
        return Type(check_shape((*lead, x.shape[-2], y.shape[-1]), op="matmul"), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        if y.ndim == 2 and x.ndim > 2:  # the rows of all batches are the rows of one product: no sum over batches
            rows, grows = reshape(x, (-1, x.shape[-1])), reshape(g, (-1, g.shape[-1]))
            if rows.size and grows.size:
                return Matmul()(g, matrix_transpose(y)), Matmul()(matrix_transpose(rows), grows)
        return Matmul()(g, matrix_transpose(y)), Matmul()(matrix_transpose(x), g)

    def eval(self, xp: ArrayModule, x: Array, y: Array) -> Array:
        return xp.matmul(x, y)

    def cost(self, *types: Type) -> Cost:
        out = self.infer(*types)
        moved = types[0].nbytes + types[1].nbytes + out.nbytes
        return Cost(2 * out.size * types[0].shape[-1], moved)


@operator
def matmul(x1: V, x2: V, /) -> V:
    """The matrix product; stacks of matrices broadcast, and a vector is a row on the left, a column on the right."""
    x, y = e.common(x1, x2)
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError(f"matmul({x.type}, {y.type}): takes vectors or matrices; use * for numbers")
    rows, columns = x.ndim == 1, y.ndim == 1
    if rows:
        x = reshape(x, (1, x.size))
    if columns:
        y = reshape(y, (y.size, 1))
    out = Matmul()(x, y)
    shape = list(out.shape)
    if columns:
        del shape[-1]
    if rows:
        del shape[-1 if columns else -2]
    return reshape(out, shape)


def vecdot(x1: V, x2: V, /, *, axis: int = -1) -> V:
    """The sum of the products along an axis."""
    x, y = e.common(x1, x2)
    if not -min(x.ndim, y.ndim) <= axis < 0:
        raise ShapeError(f"vecdot({x.type}, {y.type}): axis {axis} must be negative and within both")
    if x.shape[axis] != y.shape[axis]:
        raise ShapeError(f"vecdot({x.type}, {y.type}): sizes along axis {axis} must be equal")
    z = x * y
    return Sum((z.ndim + axis,))(z)


def tensordot(x1: V, x2: V, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> V:
    """The sum of products over pairs of axes: the last and first n, or those named."""
    x, y = e.common(x1, x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(x.ndim, y.ndim):
            raise ShapeError(f"tensordot({x.type}, {y.type}): both must have {axes} axes to sum over")
        left, right = tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes))
    else:
        left = tuple(normalize_axis(a, x.ndim, op="tensordot") for a in axes[0])
        right = tuple(normalize_axis(a, y.ndim, op="tensordot") for a in axes[1])
    if [x.shape[a] for a in left] != [y.shape[a] for a in right]:
        raise ShapeError(f"tensordot({x.type}, {y.type}): axes {left} and {right} have different sizes")
    n = product(x.shape[a] for a in left)
    xs = moveaxis(x, left, tuple(range(x.ndim - len(left), x.ndim)))
    ys = moveaxis(y, right, tuple(range(len(right))))
    lead, tail = xs.shape[: x.ndim - len(left)], ys.shape[len(right) :]
    flat = Matmul()(reshape(xs, (product(lead), n)), reshape(ys, (n, product(tail))))
    return reshape(flat, (*lead, *tail))


def outer(x1: V, x2: V, /) -> V:
    """x1[i] * x2[j] as a matrix."""
    x, y = e.common(x1, x2)
    return reshape(x, (-1, 1)) * reshape(y, (1, -1))


def diagonal(x: V, /, *, offset: int = 0) -> V:
    """x[..., i, i + offset] for each i: the diagonal of each matrix, or one above or below it."""
    if x.ndim < 2:
        raise ShapeError(f"diagonal({x.type}): takes a matrix or a stack of them")
    n, m = x.shape[-2:]
    start = offset if offset >= 0 else -offset * m
    length = max(0, min(n, m - offset) if offset >= 0 else min(n + offset, m))
    flat = reshape(x, (*x.shape[:-2], n * m))
    return flat[..., start : start + length * (m + 1) : m + 1] if length else flat[..., :0]


def trace(x: V, /, *, offset: int = 0, dtype: DType | None = None) -> V:
    """The sum of a diagonal of each matrix; integers are summed in 64 bits."""
    return r.sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def diag_embed(x: V, /, *, offset: int = 0) -> V:
    """x[..., n] as the diagonal, or one above or below it, of square matrices [..., n + |offset|, n + |offset|]."""
    if x.ndim == 0:
        raise ShapeError(f"diag_embed({x.type}): takes a vector or a stack of them")
    *lead, n = x.shape
    none = (0,) * len(lead)
    # in rows of n + 1 the diagonal is the first column; what is left over at the end are n zeros
    rows = Pad((*none, 0, 0), (*none, 0, n), 0)(expand_dims(x, axis=-1))
    square = reshape(reshape(rows, (*lead, n * (n + 1)))[..., : n * n], (*lead, n, n))
    if offset == 0:
        return square
    above, below = max(offset, 0), max(-offset, 0)
    return Pad((*none, below, above), (*none, above, below), 0)(square)


def diag(x: V, /, offset: int = 0) -> V:
    """The matrix with x[n] on a diagonal, or that diagonal of the matrix x[n, m]."""
    if x.ndim not in (1, 2):
        raise ShapeError(f"diag({x.type}): takes a vector or a matrix; diag_embed and linalg.diagonal take stacks")
    return diag_embed(x, offset=offset) if x.ndim == 1 else diagonal(x, offset=offset)


def identity_like(x: V, n: int | None = None) -> V:
    """The identity matrix [n, n] in x's dtype; n is by default the size of x's last axis."""
    return diag_embed(BroadcastTo((x.shape[-1] if n is None else n,))(x.literal(1, x.dtype)))


def cross(x1: V, x2: V, /, *, axis: int = -1) -> V:
    """The vector product along an axis, which has size 3 in both; the others broadcast."""
    x, y = e.common(x1, x2)
    if x.ndim != y.ndim and axis >= 0:
        raise ShapeError(f"cross({x.type}, {y.type}): axis {axis} must be negative where the ranks differ")
    at, other = (normalize_axis(axis, z.ndim, op="cross") for z in (x, y))
    if x.shape[at] != 3 or y.shape[other] != 3:
        raise ShapeError(f"cross({x.type}, {y.type}): axis {axis} must have size 3 in both")
    return roll(x, -1, axis=at) * roll(y, -2, axis=other) - roll(x, -2, axis=at) * roll(y, -1, axis=other)


def kron(x1: V, x2: V, /) -> V:
    """The Kronecker product: each element of x1 times all of x2, as blocks; axes are added in front to match ranks."""
    x, y = e.common(x1, x2)
    rank = max(x.ndim, y.ndim)
    a, b = ((1,) * (rank - z.ndim) + z.shape for z in (x, y))
    blocks = reshape(x, tuple(s for size in a for s in (size, 1))) * reshape(
        y, tuple(s for size in b for s in (1, size))
    )
    return reshape(blocks, tuple(m * n for m, n in zip(a, b, strict=True)))
