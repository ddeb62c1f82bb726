"""Selecting elements and putting them back: slices, gather, scatter, and what ``x[key]`` means.

Indices out of range are an error on every backend, found before anything is written; negative ones count
from the end, once.
"""

from __future__ import annotations

import operator as py
from dataclasses import dataclass
from typing import Any

from telegrad.errors import AxisError, DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Shape, Type, broadcast_shapes, normalize_axis, product
from telegrad.ir.value import Number, Operators, V, Value, operator
from telegrad.ops import elementwise as e
from telegrad.ops.shape import broadcast_to, expand_dims, moveaxis, permute_dims, reshape


def _length(start: int, stop: int, step: int) -> int:
    return len(range(start, stop, step))


class Sliced(Op, abstract=True):
    """Slices with explicit bounds: along axis i the elements ``range(start[i], stop[i], step[i])``."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]

    def taken(self, shape: Shape) -> Shape:
        """The shape of what the slices select from ``shape``; raises if they reach outside."""
        if not len(self.start) == len(self.stop) == len(self.step) == len(shape):
            raise ShapeError(f"{self.name}: bounds must be given for each of {len(shape)} axes")
        sizes: list[int] = []
        for a, (start, stop, step, size) in enumerate(zip(self.start, self.stop, self.step, shape, strict=True)):
            if step == 0:
                raise ShapeError(f"{self.name}: the step of axis {a} is 0")
            n = _length(start, stop, step)
            if n and not (0 <= start < size and 0 <= start + (n - 1) * step < size):
                raise ShapeError(f"{self.name}: axis {a} of size {size} has no {start}:{stop}:{step}")
            sizes.append(n)
        return tuple(sizes)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The bounds as Python slices (a stop of -1 going down means the front)."""
        return tuple(
            slice(a, None if b < 0 else b, s) for a, b, s in zip(self.start, self.stop, self.step, strict=True)
        )


@dataclass(frozen=True)
class Slice(Sliced):
    """The elements that the bounds select."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]

    is_view = True

    def infer(self, x: Type) -> Type:
        return Type(self.taken(x.shape), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (Unslice(self.start, self.stop, self.step, x.shape)(g),)

    def eval(self, xp: Any, x: Any) -> Any:
        return x[self.slices]


@dataclass(frozen=True)
class Unslice(Sliced):
    """Zeros of ``shape`` with x where the bounds select: the transpose of Slice."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]
    shape: Shape

    def infer(self, x: Type) -> Type:
        shape = t.check_shape(self.shape, op="unslice")
        if self.taken(shape) != x.shape:
            raise ShapeError(f"unslice({x}): the bounds select {list(self.taken(shape))} of {list(shape)}")
        return Type(shape, x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (Slice(self.start, self.stop, self.step)(g),)

    def eval(self, xp: Any, x: Any) -> Any:
        result = xp.zeros(self.shape, xp.dtype_of(x))
        result[self.slices] = x
        return result


def _check_indices(op: str, index: Type) -> None:
    if index.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{op}: indices must be integers, not {index}")


@dataclass(frozen=True)
class Gather(Op):
    """x[i, ...] for each index i: the rows of x[n, *rest] at index[*lead] -> [*lead, *rest]."""

    def infer(self, x: Type, index: Type) -> Type:
        _check_indices("gather", index)
        if x.ndim == 0:
            raise ShapeError("gather: a 0-d value has no rows")
        return Type(t.check_shape((*index.shape, *x.shape[1:]), op="gather"), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value, index: Value) -> tuple[Value, None]:
        return ScatterAdd(x.shape[0])(g, index), None

    def eval(self, xp: Any, x: Any, index: Any) -> Any:
        return xp.take(x, index)


@dataclass(frozen=True)
class ScatterAdd(Op):
    """Zeros[rows, *rest] with the rows x[*lead, *rest] added at index[*lead], in the order of the index.

    The transpose of Gather. Rows that are hit several times add up in a fixed order, on every backend.
    """

    rows: int

    def infer(self, x: Type, index: Type) -> Type:
        _check_indices("scatter_add", index)
        if x.shape[: index.ndim] != index.shape:
            raise ShapeError(f"scatter_add({x}, {index}): the first axes of the values must be those of the index")
        return Type(t.check_shape((self.rows, *x.shape[index.ndim :]), op="scatter_add"), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value, index: Value) -> tuple[Value, None]:
        return Gather()(g, index), None

    def eval(self, xp: Any, x: Any, index: Any) -> Any:
        return xp.scatter_add(x, index, self.rows)


@dataclass(frozen=True)
class ScatterSet(Op):
    """x with its rows at index[*lead] replaced by y[*lead, *rest]; of equal indices the last one counts."""

    def infer(self, x: Type, index: Type, y: Type) -> Type:
        _check_indices("scatter_set", index)
        if y.shape != (*index.shape, *x.shape[1:]) or y.dtype is not x.dtype or x.ndim == 0:
            raise ShapeError(f"scatter_set({x}, {index}, {y}): the values do not fit the rows")
        return x

    def vjp(self, g: Value, out: Value, x: Value, index: Value, y: Value) -> tuple[Value, None, Value]:
        # which of the written rows is still there: only the last of equal indices receives a gradient
        n = index.size
        order = reshape(index.bind(_iota(n), ())[0], index.shape)
        blank = index.bind(e.Constant(-1, t.int64), ())[0]
        owner = ScatterSet()(broadcast_to(blank, (x.shape[0],)), index, order)
        wins = e.equal(Gather()(owner, index), order)
        wide = reshape(wins, wins.shape + (1,) * (x.ndim - 1))
        gy = e.where(wide, Gather()(g, index), 0)
        untouched = reshape(e.equal(owner, -1), (x.shape[0],) + (1,) * (x.ndim - 1))
        return e.where(untouched, g, 0), None, gy

    def eval(self, xp: Any, x: Any, index: Any, y: Any) -> Any:
        return xp.scatter_set(x, index, y)


def _iota(n: int) -> Op:
    from telegrad.ops.reduce import Iota

    return Iota((n,), 0, t.int64)


@dataclass(frozen=True)
class TakeAlong(Op):
    """The elements of x at index along one axis; the other axes have equal sizes."""

    axis: int

    def infer(self, x: Type, index: Type) -> Type:
        _check_indices("take_along_axis", index)
        axis = normalize_axis(self.axis, x.ndim, op="take_along_axis")
        if index.ndim != x.ndim or any(
            a != b for i, (a, b) in enumerate(zip(x.shape, index.shape, strict=True)) if i != axis
        ):
            raise ShapeError(f"take_along_axis({x}, {index}): sizes must be equal except along axis {axis}")
        return Type(index.shape, x.dtype)

    def vjp(self, g: Value, out: Value, x: Value, index: Value) -> tuple[Value, None]:
        return AddAlong(self.axis, x.shape[self.axis])(g, index), None

    def eval(self, xp: Any, x: Any, index: Any) -> Any:
        return xp.take_along_axis(x, index, self.axis)


@dataclass(frozen=True)
class AddAlong(Op):
    """Zeros with ``size`` elements along an axis, to which x is added at index: the transpose of TakeAlong."""

    axis: int
    size: int

    def infer(self, x: Type, index: Type) -> Type:
        _check_indices("add_along", index)
        axis = normalize_axis(self.axis, x.ndim, op="add_along")
        if index.shape != x.shape:
            raise ShapeError(f"add_along({x}, {index}): shapes must be equal")
        shape = tuple(self.size if a == axis else n for a, n in enumerate(x.shape))
        return Type(t.check_shape(shape, op="add_along"), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value, index: Value) -> tuple[Value, None]:
        return TakeAlong(self.axis)(g, index), None

    def eval(self, xp: Any, x: Any, index: Any) -> Any:
        return xp.add_along(x, index, self.axis, self.size)

    def cost(self, *types: Type) -> Cost:
        return Cost(types[0].size, 2 * types[0].nbytes + types[1].nbytes)


@dataclass(frozen=True)
class Argsort(Op):
    """The positions that sort x along an axis; equal elements keep their order. NaN comes last."""

    axis: int
    descending: bool = False

    def infer(self, x: Type) -> Type:
        normalize_axis(self.axis, x.ndim, op="argsort")
        return Type(x.shape, t.int64)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[None]:
        return (None,)

    def eval(self, xp: Any, x: Any) -> Any:
        return xp.argsort(x, axis=self.axis, descending=self.descending)


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
    rest = lambda s: tuple(1 if a == at else n for a, n in enumerate(s))  # noqa: E731
    shape = broadcast_shapes(rest(x.shape), rest(indices.shape), op="take_along_axis")
    wide = lambda s: tuple(s[at] if a == at else n for a, n in enumerate(shape))  # noqa: E731
    return TakeAlong(at)(broadcast_to(x, wide(x.shape)), broadcast_to(indices, wide(indices.shape)))


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
    """1 at each index along a new last axis, else 0; an index out of range gives a row of zeros."""
    from telegrad.ops.reduce import Iota

    classes = indices.bind(Iota((num_classes,), 0, indices.dtype), ())[0]
    return e.astype(e.equal(expand_dims(indices, axis=-1), classes), dtype)


# ---- x[key]


def _is_index_list(part: Any) -> bool:
    return isinstance(part, list) or (hasattr(part, "__array__") and not isinstance(part, Operators))


def _parts(x: V, key: Any) -> list[Any]:
    """The key as one part for each axis of x, with None where a new axis goes."""
    parts: list[Any] = list(key) if isinstance(key, tuple) else [key]
    parts = [_as_index(x, p) for p in parts]
    used = sum(1 for p in parts if p is not None and p is not Ellipsis)
    if used > x.ndim:
        raise AxisError(f"{used} indices for {x.ndim} axes of {x.type}")
    dots = [i for i, p in enumerate(parts) if p is Ellipsis]
    if len(dots) > 1:
        raise AxisError("an index can only have one ellipsis")
    at = dots[0] if dots else len(parts)
    return [*parts[:at], *([slice(None)] * (x.ndim - used)), *parts[at + len(dots) :]]


def _as_index(x: V, part: Any) -> Any:
    """One part of a key: an int, a slice, None, Ellipsis or an integer operand."""
    if part is None or part is Ellipsis or isinstance(part, slice):
        return part
    if isinstance(part, bool) or (isinstance(part, Operators) and part.dtype is t.bool_):
        raise GraphError("the shape of x[mask] depends on data, which a graph cannot hold; use where(mask, x, 0)")
    if isinstance(part, Operators):
        return part
    if _is_index_list(part):
        return _constant_index(x, part.tolist() if hasattr(part, "tolist") else part)
    try:
        return py.index(part)
    except TypeError:
        raise GraphError(f"{type(part).__name__} is no index; use integers, slices, None, ... or integer tensors") from None


def _constant_index(x: V, numbers: Any) -> V:
    """Nested lists of ints as an operand made of constants."""
    from telegrad.ops.shape import stack

    if isinstance(numbers, bool):
        raise GraphError("the shape of x[mask] depends on data, which a graph cannot hold; use where(mask, x, 0)")
    if isinstance(numbers, list):
        if not numbers:
            return broadcast_to(x.literal(0, t.int64), (0,))
        return stack([_constant_index(x, n) for n in numbers])  # pyright: ignore[reportUnknownVariableType]
    return x.literal(py.index(numbers), t.int64)


def _bounds(part: Any, size: int, axis: int) -> tuple[int, int, int]:
    if isinstance(part, slice):
        start, stop, step = part.indices(size)
        n = _length(start, stop, step)
        return (start, start + n * step, step) if n else (0, 0, 1)
    if not -size <= part < size:
        raise AxisError(f"index {part} is out of range for axis {axis} of size {size}")
    return part % size, part % size + 1, 1


def _basic(x: V, parts: list[Any]) -> tuple[V, list[Any]]:
    """x after slices and ints; what is left to do: for each axis of the result a part (operand, None or slice)."""
    bounds = [
        (0, x.shape[a], 1) if isinstance(p, Operators) else _bounds(p, x.shape[a], a)
        for a, p in enumerate(p for p in parts if p is not None)
    ]
    starts, stops, steps = zip(*bounds, strict=True) if bounds else ((), (), ())
    whole = all(b == (0, n, 1) for b, n in zip(bounds, x.shape, strict=True))
    return (x if whole else Slice(starts, stops, steps)(x)), parts


@operator
def getitem(x: V, key: Any) -> V:
    """x[key] with ints, slices, None, ... and integer tensors or lists, by NumPy's rules. A mask is refused."""
    parts = _parts(x, key)
    sliced, _ = _basic(x, parts)
    shape: list[int] = []
    indices: list[tuple[int, Any]] = []
    sizes = iter(sliced.shape)
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        size = next(sizes)
        if isinstance(part, Operators):
            indices.append((len(shape), part))
        if not isinstance(part, int):
            shape.append(size)
    result = reshape(sliced, shape)
    return _advanced(result, indices, _is_split(parts)) if indices else result


def _is_split(parts: list[Any]) -> bool:
    """Whether the advanced indices (ints beside arrays count) are separated, so that their axes go to the front."""
    at = [i for i, p in enumerate(parts) if isinstance(p, (int, Operators))]
    return at != list(range(at[0], at[-1] + 1)) if at else False


def _flat_index(x: V, indices: list[tuple[int, Any]]) -> tuple[V, tuple[int, ...], Shape]:
    """The several indices as one into the joined axes; those axes; the shape of the index."""
    axes = tuple(a for a, _ in indices)
    shape = broadcast_shapes(*(i.shape for _, i in indices), op="index")
    if len(indices) == 1:
        return indices[0][1], axes, shape
    flat: Any = None
    for a, index in indices:
        size = x.shape[a]
        one = e.astype(index, t.int64)
        wrapped = e.where(one < 0, one + size, one)
        # out of its own axis must stay out of the joined one: send it beyond the end
        inside = e.logical_and(wrapped >= 0, wrapped < size)
        wrapped = e.where(inside, wrapped, product(x.shape[b] for b in axes) * max(1, size))
        flat = wrapped if flat is None else flat * size + wrapped
    return broadcast_to(flat, shape), axes, shape


def _advanced(x: V, indices: list[tuple[int, Any]], is_split: bool) -> V:
    index, axes, shape = _flat_index(x, indices)
    rest = [a for a in range(x.ndim) if a not in axes]
    front = permute_dims(x, (*axes, *rest))
    joined = reshape(front, (product(x.shape[a] for a in axes), *(x.shape[a] for a in rest)))
    found = Gather()(joined, index)
    if is_split or axes[0] == 0:
        return found
    lead = len(shape)
    return moveaxis(found, tuple(range(lead)), tuple(range(axes[0], axes[0] + lead)))


def set_items(x: V, key: Any, new: V | Number) -> V:
    """x with the elements that ``key`` selects replaced by ``new``, which broadcasts. What ``x[key] = new`` binds."""
    from telegrad.ops.reduce import Iota

    # positions of the selected elements in the flat x, by indexing its own numbering
    numbering = reshape(x.bind(Iota((x.size,), 0, t.int64), ())[0], x.shape)
    where = getitem(numbering, key)
    value = e.astype(new, x.dtype) if isinstance(new, Operators) else x.literal(new, x.dtype)
    if broadcast_shapes(value.shape, where.shape, op="x[key] = y") != where.shape:
        raise ShapeError(f"x[key] = y: y of shape {list(value.shape)} does not fit {list(where.shape)}")
    flat = ScatterSet()(reshape(x, (-1,)), where, broadcast_to(value, where.shape))
    return reshape(flat, x.shape)
