"""Selecting elements by index and putting them back: gather, scatter, sort.

Indices out of range are an error on every backend, found before anything is written; negative ones count
from the end, once. What ``x[key]`` means is in `telegrad.ops.indexing`.
"""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.errors import DTypeError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Type, broadcast_shapes, normalize_axis
from telegrad.ir.value import V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops.shape import broadcast_to, check_axis, expand_dims, moveaxis, reshape

__all__ = ["argsort", "one_hot", "scatter_add", "sort", "take", "take_along_axis"]


def _check_indices(op: str, index: Type) -> None:
    if index.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{op}: indices must be integers, not {index}")


def _check_numbers(op: str, x: Type) -> None:
    if x.dtype.kind == "bool":
        raise DTypeError(f"{op}({x}): takes numbers; use astype")


@dataclass(frozen=True)
class CheckedIndex(Op):
    """An index as int64, counted from the front. IndexRange unless in [0, size), or in [-size, size) if it wraps."""

    size: int
    wraps: bool = True

    def infer(self, index: Type) -> Type:
        _check_indices("checked_index", index)
        if self.size < 0:
            raise ShapeError(f"checked_index: an axis has no size {self.size}")
        return Type(index.shape, t.int64)

    def vjp(self, g: Value, out: Value, index: Value) -> tuple[None]:
        return (None,)

    def eval(self, xp: ArrayModule, index: Array) -> Array:
        if self.wraps:
            return xp.wrapped_index(index, self.size)
        return xp.checked_index(index, self.size, wraps=False)


@dataclass(frozen=True)
class Gather(Op):
    """x[i, ...] for each index i: the rows of x[n, *rest] at index[*lead] -> [*lead, *rest]."""

    def infer(self, x: Type, index: Type) -> Type:
        _check_indices("gather", index)
        if x.ndim == 0:
            raise ShapeError("gather: a 0-d value has no rows")
        return Type(t.check_shape((*index.shape, *x.shape[1:]), op="gather"), x.dtype)

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 2 * self.infer(*types).nbytes + types[1].nbytes)

    def vjp(self, g: Value, out: Value, x: Value, index: Value) -> tuple[Value, None]:
        return ScatterAdd(x.shape[0])(g, index), None

    def eval(self, xp: ArrayModule, x: Array, index: Array) -> Array:
        return xp.take(x, index)


@dataclass(frozen=True)
class ScatterAdd(Op):
    """Zeros[rows, *rest] with the rows x[*lead, *rest] added at index[*lead], in the order of the index.

    The transpose of Gather. Rows that are hit several times add up in a fixed order, on every backend.
    """

    rows: int

    def infer(self, x: Type, index: Type) -> Type:
        _check_indices("scatter_add", index)
        _check_numbers("scatter_add", x)
        if x.shape[: index.ndim] != index.shape:
            raise ShapeError(f"scatter_add({x}, {index}): the first axes of the values must be those of the index")
        return Type(t.check_shape((self.rows, *x.shape[index.ndim :]), op="scatter_add"), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value, index: Value) -> tuple[Value, None]:
        return Gather()(g, index), None

    def eval(self, xp: ArrayModule, x: Array, index: Array) -> Array:
        return xp.scatter_add(x, index, self.rows)

    def cost(self, *types: Type) -> Cost:
        return Cost(types[0].size, 2 * types[0].nbytes + types[1].nbytes + self.infer(*types).nbytes)


@dataclass(frozen=True)
class ScatterSet(Op):
    """x with its rows at index[*lead] replaced by y[*lead, *rest]; of equal indices the last one counts."""

    def infer(self, x: Type, index: Type, y: Type) -> Type:
        _check_indices("scatter_set", index)
        if y.dtype is not x.dtype:
            raise DTypeError(f"scatter_set({x}, {index}, {y}): dtypes must be equal; use astype")
        if x.ndim == 0 or y.shape != (*index.shape, *x.shape[1:]):
            raise ShapeError(f"scatter_set({x}, {index}, {y}): the values do not fit the rows")
        return x

    def vjp(self, g: Value, out: Value, x: Value, index: Value, y: Value) -> tuple[Value, None, Value]:
        # which of the written rows is still there: only the last of equal indices receives a gradient
        order = reshape(index.bind(e.Iota((index.size,), 0, t.int64), ())[0], index.shape)
        nobody = broadcast_to(index.literal(-1, t.int64), (x.shape[0],))
        owner = ScatterSet()(nobody, index, order)
        wins = e.equal(Gather()(owner, index), order)
        wide = reshape(wins, wins.shape + (1,) * (x.ndim - 1))
        gy = e.where(wide, Gather()(g, index), 0)
        untouched = reshape(e.equal(owner, -1), (x.shape[0],) + (1,) * (x.ndim - 1))
        return e.where(untouched, g, 0), None, gy

    def eval(self, xp: ArrayModule, x: Array, index: Array, y: Array) -> Array:
        return xp.scatter_set(x, index, y)

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 2 * types[0].nbytes + types[1].nbytes + 2 * types[2].nbytes)


@dataclass(frozen=True)
class TakeAlong(Op):
    """The elements of x at index along one axis; the other axes have equal sizes."""

    axis: int

    def infer(self, x: Type, index: Type) -> Type:
        _check_indices("take_along_axis", index)
        axis = self.axis
        check_axis(axis, x.ndim, op="take_along_axis")
        if index.ndim != x.ndim or any(
            a != b for i, (a, b) in enumerate(zip(x.shape, index.shape, strict=True)) if i != axis
        ):
            raise ShapeError(f"take_along_axis({x}, {index}): sizes must be equal except along axis {axis}")
        return Type(index.shape, x.dtype)

    def vjp(self, g: Value, out: Value, x: Value, index: Value) -> tuple[Value, None]:
        return AddAlong(self.axis, x.shape[self.axis])(g, index), None

    def eval(self, xp: ArrayModule, x: Array, index: Array) -> Array:
        return xp.take_along_axis(x, index, self.axis)

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 2 * self.infer(*types).nbytes + types[1].nbytes)


@dataclass(frozen=True)
class AddAlong(Op):
    """Zeros with ``size`` elements along an axis, to which x is added at index: the transpose of TakeAlong."""

    axis: int
    size: int

    def infer(self, x: Type, index: Type) -> Type:
        _check_indices("add_along", index)
        _check_numbers("add_along", x)
        axis = self.axis
        check_axis(axis, x.ndim, op="add_along")
        if index.shape != x.shape:
            raise ShapeError(f"add_along({x}, {index}): shapes must be equal")
        shape = tuple(self.size if a == axis else n for a, n in enumerate(x.shape))
        return Type(t.check_shape(shape, op="add_along"), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value, index: Value) -> tuple[Value, None]:
        return TakeAlong(self.axis)(g, index), None

    def eval(self, xp: ArrayModule, x: Array, index: Array) -> Array:
        return xp.add_along(x, index, self.axis, self.size)

    def cost(self, *types: Type) -> Cost:
        return Cost(types[0].size, 2 * types[0].nbytes + types[1].nbytes + self.infer(*types).nbytes)


@dataclass(frozen=True)
class Argsort(Op):
    """The positions that sort x along an axis; equal elements keep their order. NaN comes last."""

    axis: int
    descending: bool = False

    def infer(self, x: Type) -> Type:
        check_axis(self.axis, x.ndim, op="argsort")
        return Type(x.shape, t.int64)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[None]:
        return (None,)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.argsort(x, axis=self.axis, descending=self.descending)

    def cost(self, *types: Type) -> Cost:
        (x,) = types
        return Cost(x.size * max(1, x.shape[self.axis].bit_length()), 2 * x.nbytes + 8 * x.size)


# ---- the public functions


def take(x: V, indices: V, /, *, axis: int | None = None) -> V:
    """The elements of x at ``indices`` (any shape) along an axis, of the flattened x if it is None."""
    if axis is None:
        return Gather()(reshape(x, (-1,)), indices)
    at = normalize_axis(axis, x.ndim, op="take")
    found = Gather()(moveaxis(x, at, 0), indices)
    lead = indices.ndim
    return moveaxis(found, tuple(range(lead)), tuple(range(at, at + lead)))


def take_along_axis(x: V, indices: V, /, *, axis: int = -1) -> V:
    """x at ``indices`` along an axis: out[i, j] = x[i, indices[i, j]]. The other axes broadcast."""
    if x.ndim != indices.ndim:
        raise ShapeError(f"take_along_axis({x.type}, {indices.type}): both must have the same number of axes")
    at = normalize_axis(axis, x.ndim, op="take_along_axis")
    x_rest, index_rest = ((*v.shape[:at], 1, *v.shape[at + 1 :]) for v in (x, indices))
    shape = broadcast_shapes(x_rest, index_rest, op="take_along_axis")
    wide = broadcast_to(x, (*shape[:at], x.shape[at], *shape[at + 1 :]))
    return TakeAlong(at)(wide, broadcast_to(indices, (*shape[:at], indices.shape[at], *shape[at + 1 :])))


def scatter_add(x: V, indices: V, /, *, rows: int) -> V:
    """Zeros of ``rows`` rows, to which x's rows are added at ``indices``; the order of addition is fixed."""
    return ScatterAdd(rows)(x, indices)


def argsort(x: V, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> V:
    """The positions that sort x along an axis; equal elements keep their order."""
    return Argsort(normalize_axis(axis, x.ndim, op="argsort"), descending)(x)


def sort(x: V, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> V:
    """x sorted along an axis; gradients go back to where the elements came from."""
    return take_along_axis(x, argsort(x, axis=axis, descending=descending), axis=axis)


def one_hot(indices: V, num_classes: int, /, *, dtype: t.DType = t.float32) -> V:
    """1 at each index along a new last axis, 0 elsewhere. IndexRange for an index that is no class."""
    known = expand_dims(CheckedIndex(num_classes, wraps=False)(indices), axis=-1)
    classes = known.bind(e.Iota((num_classes,), 0, t.int64), ())[0]
    return e.astype(e.equal(known, classes), dtype)
