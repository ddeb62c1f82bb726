"""Ops that move elements and compute nothing: reshape, broadcast, permute, join, pad.

An op's axes count from the front and are sorted, so that equal ops are equal; the functions normalise what users give.
"""

from __future__ import annotations

import operator as py
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from telegrad.errors import AxisError, DTypeError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Shape, Type, broadcast_shapes, check_shape, normalize_axes, normalize_axis, product
from telegrad.ir.value import Number, Operators, V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops.slices import Slice

__all__ = [
    "broadcast_arrays", "broadcast_to", "concat", "conj", "empty_like", "expand_dims", "flatten", "flip", "full_like",
    "imag", "matrix_transpose", "moveaxis", "ones_like", "pad", "permute_dims", "real", "repeat", "reshape", "roll",
    "squeeze", "stack", "tile", "tril", "triu", "unstack", "zeros_like",
]  # fmt: skip


def check_axis(axis: int, rank: int, *, op: str) -> None:
    """Raise AxisError unless an op's axis counts from the front and is there."""
    if not 0 <= axis < rank:
        raise AxisError(f"{op}: axis {axis} is out of range for {rank} axes")


def check_axes(axes: tuple[int, ...], rank: int, *, op: str) -> None:
    """Raise AxisError unless an op's axes count from the front, are there, and are sorted without repetition."""
    if normalize_axes(axes, rank, op=op) != axes:
        raise AxisError(f"{op}: axes {axes} must be sorted and counted from the front")


class Move(Op, abstract=True):
    """The family: no arithmetic, and no memory traffic either where the result is a view."""

    infer: ClassVar[Callable[..., Type]]

    def cost(self, *types: Type) -> Cost:
        out = self.infer(*types)
        return Cost(0, 0 if self.is_view else sum(x.nbytes for x in types) + out.nbytes)


@dataclass(frozen=True)
class Reshape(Move):
    """The same elements in C order under another shape (without -1: the function resolves it)."""

    shape: Shape

    is_view = True

    def infer(self, x: Type) -> Type:
        shape = check_shape(self.shape, op="reshape")
        if product(shape) != x.size:
            raise ShapeError(f"reshape({x}) to {list(shape)}: {x.size} elements do not make {product(shape)}")
        return Type(shape, x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (Reshape(x.shape)(g),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.reshape(x, self.shape)


@dataclass(frozen=True)
class BroadcastTo(Move):
    """x repeated along axes of size 1, and along new axes in front."""

    shape: Shape

    is_view = True

    def infer(self, x: Type) -> Type:
        shape = check_shape(self.shape, op="broadcast_to")
        if broadcast_shapes(x.shape, shape, op="broadcast_to") != shape:
            raise ShapeError(f"broadcast_to({x}): does not broadcast to {list(shape)}")
        return Type(shape, x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g,)  # autodiff sums over what was broadcast

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.broadcast_to(x, self.shape)


@dataclass(frozen=True)
class Permute(Move):
    """The axes in another order: axis i of the result is axis ``axes[i]`` of x."""

    axes: tuple[int, ...]

    is_view = True

    def infer(self, x: Type) -> Type:
        if sorted(self.axes) != list(range(x.ndim)):
            raise AxisError(f"permute_dims({x}): {self.axes} is no order of {x.ndim} axes")
        return Type(tuple(x.shape[a] for a in self.axes), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (Permute(tuple(self.axes.index(a) for a in range(x.ndim)))(g),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.transpose(x, self.axes)


@dataclass(frozen=True)
class Concat(Move):
    """Values joined along an existing axis."""

    axis: int

    def infer(self, *xs: Type) -> Type:
        if not xs:
            raise ShapeError("concat: at least one value is needed")
        axis = self.axis
        check_axis(axis, xs[0].ndim, op="concat")
        for x in xs[1:]:
            if x.dtype is not xs[0].dtype:
                raise DTypeError(f"concat({', '.join(map(str, xs))}): dtypes must be equal")
            if x.ndim != xs[0].ndim or any(
                a != b for i, (a, b) in enumerate(zip(x.shape, xs[0].shape, strict=True)) if i != axis
            ):
                raise ShapeError(f"concat({', '.join(map(str, xs))}): sizes must be equal except along axis {axis}")
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        return Type(check_shape(shape, op="concat"), xs[0].dtype)

    def vjp(self, g: Value, out: Value, *xs: Value) -> tuple[Value, ...]:
        found: list[Value] = []
        start = 0
        for x in xs:
            stop = start + x.shape[self.axis]
            begin = tuple(start if a == self.axis else 0 for a in range(x.ndim))
            end = tuple(stop if a == self.axis else size for a, size in enumerate(x.shape))
            found.append(Slice(begin, end, (1,) * x.ndim)(g))
            start = stop
        return tuple(found)

    def eval(self, xp: ArrayModule, *xs: Array) -> Array:
        return xp.concatenate(xs, axis=self.axis)


@dataclass(frozen=True)
class Flip(Move):
    """The order of the elements reversed along axes."""

    axes: tuple[int, ...]

    is_view = True

    def infer(self, x: Type) -> Type:
        check_axes(self.axes, x.ndim, op="flip")
        return x

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (Flip(self.axes)(g),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.flip(x, axis=self.axes)


@dataclass(frozen=True)
class Pad(Move):
    """x with ``before[i]`` and ``after[i]`` copies of a constant around axis i."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: Number = 0

    def infer(self, x: Type) -> Type:
        if not len(self.before) == len(self.after) == x.ndim or min((*self.before, *self.after, 0)) < 0:
            raise ShapeError(f"pad({x}): widths {self.before} and {self.after} must be {x.ndim} numbers not below 0")
        e.literal_op(self.value, x.dtype)
        shape = [b + size + a for b, size, a in zip(self.before, x.shape, self.after, strict=True)]
        return Type(check_shape(shape, op="pad"), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        end = tuple(b + size for b, size in zip(self.before, x.shape, strict=True))
        return (Slice(self.before, end, (1,) * x.ndim)(g),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.pad(x, tuple(zip(self.before, self.after, strict=True)), self.value)


class Triangle(Move, abstract=True):
    """One triangle of each matrix, zeros in the other."""

    k: int

    def infer(self, x: Type) -> Type:
        if x.ndim < 2:
            raise ShapeError(f"{self.name}({x}): takes a matrix or a stack of them")
        return x


@dataclass(frozen=True)
class Tril(Triangle):
    """The elements on and below the k-th diagonal."""

    k: int = 0

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (Tril(self.k)(g),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.tril(x, self.k)


@dataclass(frozen=True)
class Triu(Triangle):
    """The elements on and above the k-th diagonal."""

    k: int = 0

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (Triu(self.k)(g),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.triu(x, self.k)


# ---- the public functions


def as_shape(shape: int | Sequence[int]) -> Shape:
    """The sizes as a tuple of Python integers; ShapeError if one is no integer."""
    try:
        return (py.index(shape),) if hasattr(shape, "__index__") else tuple([py.index(s) for s in shape])  # type: ignore
    except TypeError:
        raise ShapeError(f"a shape is an integer or a sequence of them, not {shape!r:.80}") from None


def reshape(x: V, /, shape: int | Sequence[int], *, copy: bool | None = None) -> V:
    """The same elements in C order under another shape; one size may be -1."""
    sizes = list(as_shape(shape))
    if sizes.count(-1) > 1:
        raise ShapeError(f"reshape({x.type}): only one size of {sizes} may be -1")
    if -1 in sizes:
        known = product(s for s in sizes if s != -1)
        if known == 0 or x.size % known:
            raise ShapeError(f"reshape({x.type}): {x.size} elements do not divide into {sizes}")
        sizes[sizes.index(-1)] = x.size // known
    if tuple(sizes) != x.shape:
        return Reshape(tuple(sizes))(x)
    return x.fresh() if copy else x


def broadcast_to(x: V, /, shape: int | Sequence[int]) -> V:
    """x repeated along axes of size 1, and along new axes in front."""
    sizes = as_shape(shape)
    return x if sizes == x.shape else BroadcastTo(sizes)(x)


def broadcast_arrays(*arrays: V) -> list[V]:
    """The arrays broadcast to their common shape."""
    if not arrays:
        return []
    shape = broadcast_shapes(*(x.shape for x in arrays), op="broadcast_arrays")
    return [broadcast_to(x, shape) for x in arrays]


def permute_dims(x: V, /, axes: Sequence[int]) -> V:
    """The axes in another order: axis i of the result is axis ``axes[i]`` of x."""
    if len(axes) != x.ndim:
        raise AxisError(f"permute_dims({x.type}): {tuple(axes)} is no order of {x.ndim} axes")
    order = tuple(normalize_axis(a, x.ndim, op="permute_dims") for a in axes)
    return x if order == tuple(range(x.ndim)) else Permute(order)(x)


def matrix_transpose(x: V, /) -> V:
    """The last two axes swapped."""
    if x.ndim < 2:
        raise ShapeError(f"matrix_transpose({x.type}): takes a matrix or a stack of them")
    return Permute((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))(x)


def moveaxis(x: V, source: int | Sequence[int], destination: int | Sequence[int], /) -> V:
    """Axes moved to other positions; the rest keep their order."""
    sources = (source,) if isinstance(source, int) else tuple(source)
    targets = (destination,) if isinstance(destination, int) else tuple(destination)
    if len(sources) != len(targets):
        raise AxisError(f"moveaxis: {len(sources)} sources and {len(targets)} destinations")
    sources = tuple(normalize_axis(a, x.ndim, op="moveaxis") for a in sources)
    targets = tuple(normalize_axis(a, x.ndim, op="moveaxis") for a in targets)
    if len(set(sources)) != len(sources) or len(set(targets)) != len(targets):
        raise AxisError(f"moveaxis: {sources} to {targets} names an axis twice")
    order = [a for a in range(x.ndim) if a not in sources]
    for target, a in sorted(zip(targets, sources, strict=True)):
        order.insert(target, a)
    return permute_dims(x, order)


def expand_dims(x: V, /, axis: int | tuple[int, ...] = 0) -> V:
    """x with new axes of size 1 at the given positions of the result."""
    axes = (axis,) if isinstance(axis, int) else axis
    new = normalize_axes(axes, x.ndim + len(axes), op="expand_dims")
    sizes = iter(x.shape)
    return Reshape(tuple(1 if a in new else next(sizes) for a in range(x.ndim + len(axes))))(x)


def squeeze(x: V, /, axis: int | tuple[int, ...]) -> V:
    """x without the given axes, which must have size 1."""
    axes = normalize_axes(axis, x.ndim, op="squeeze")
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(f"squeeze({x.type}): axis {a} has size {x.shape[a]}, not 1")
    return reshape(x, tuple(size for a, size in enumerate(x.shape) if a not in axes))


def flatten(x: V, /, start_dim: int = 0, end_dim: int = -1) -> V:
    """Axes ``start_dim`` to ``end_dim`` joined into one."""
    if x.ndim == 0:
        return Reshape((1,))(x)
    start, end = (normalize_axis(a, x.ndim, op="flatten") for a in (start_dim, end_dim))
    if start > end:
        raise AxisError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return reshape(x, (*x.shape[:start], product(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def concat(arrays: Sequence[V], /, *, axis: int | None = 0) -> V:
    """The arrays joined along an axis, in their common dtype; flattened first if it is None."""
    if not arrays:
        raise ShapeError("concat: at least one array is needed")
    if axis is None:
        arrays, axis = [reshape(x, (-1,)) for x in arrays], 0
    if len(arrays) == 1:
        normalize_axis(axis, arrays[0].ndim, op="concat")
        return arrays[0].fresh()
    same = e.common(*arrays)
    return Concat(normalize_axis(axis, same[0].ndim, op="concat"))(*same)


def stack(arrays: Sequence[V], /, *, axis: int = 0) -> V:
    """The arrays joined along a new axis."""
    if not arrays:
        raise ShapeError("stack: at least one array is needed")
    for x in arrays:
        if x.shape != arrays[0].shape:
            raise ShapeError(f"stack: shapes {list(arrays[0].shape)} and {list(x.shape)} differ")
    at = normalize_axis(axis, arrays[0].ndim + 1, op="stack")
    return concat([expand_dims(x, axis=at) for x in arrays], axis=at)


def unstack(x: V, /, *, axis: int = 0) -> tuple[V, ...]:
    """The slices of x along an axis."""
    moved = moveaxis(x, axis, 0)
    return tuple(moved[i] for i in range(moved.shape[0]))


def flip(x: V, /, *, axis: int | tuple[int, ...] | None = None) -> V:
    """The order of the elements reversed along axes."""
    axes = normalize_axes(axis, x.ndim, op="flip")
    return Flip(axes)(x) if axes else x


def roll(x: V, /, shift: int | tuple[int, ...], *, axis: int | tuple[int, ...] | None = None) -> V:
    """The elements shifted along axes, those pushed out at the end coming in at the front."""
    if axis is None:
        if not isinstance(shift, int):
            raise AxisError("roll: several shifts need several axes")
        return reshape(roll(reshape(x, (-1,)), shift, axis=0), x.shape)
    axes = (axis,) if isinstance(axis, int) else axis
    shifts = (shift,) * len(axes) if isinstance(shift, int) else shift
    if len(shifts) != len(axes):
        raise AxisError(f"roll: {len(shifts)} shifts for {len(axes)} axes")
    for a, s in zip(axes, shifts, strict=True):
        at = normalize_axis(a, x.ndim, op="roll")
        n = x.shape[at]
        cut = (-s) % n if n else 0
        if cut:
            head = tuple([slice(None)] * at)
            x = concat([x[(*head, slice(cut, None))], x[(*head, slice(None, cut))]], axis=at)
    return x


def tile(x: V, repetitions: Sequence[int], /) -> V:
    """x repeated as a whole along each axis."""
    reps = (1,) * max(0, x.ndim - len(repetitions)) + tuple(repetitions)
    shape = (1,) * (len(reps) - x.ndim) + x.shape
    spread = reshape(x, tuple(s for size in shape for s in (1, size)))
    wide = broadcast_to(spread, tuple(s for r, size in zip(reps, shape, strict=True) for s in (r, size)))
    return reshape(wide, tuple(r * size for r, size in zip(reps, shape, strict=True)))


def repeat(x: V, repeats: int | Sequence[int] | V, /, *, axis: int | None = None) -> V:
    """Each element of x ``repeats`` times, along an axis or of the flattened x: so many for all, or one for each.

    A tensor of ``repeats`` is read, for it decides the shape; inside `tg.function` give Python integers.
    """
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    at = normalize_axis(axis, x.ndim, op="repeat")
    if isinstance(repeats, Operators):
        if repeats.dtype.kind not in ("int", "uint") or repeats.ndim > 1:
            raise DTypeError(f"repeat: repeats must be integers in at most one axis, not {repeats.type}")
        repeats = repeats.concrete("the shape of repeat(x, repeats)")
    times = as_shape(repeats)  # type: ignore[arg-type]
    if any(n < 0 for n in times):
        raise ShapeError(f"repeat: repeats must not be negative, as {min(times)} is")
    if not isinstance(repeats, int) and len(times) != 1:
        return _repeated_each(x, times, at)
    (repeats,) = times
    wide = broadcast_to(expand_dims(x, axis=at + 1), (*x.shape[: at + 1], repeats, *x.shape[at + 1 :]))
    return reshape(wide, (*x.shape[:at], x.shape[at] * repeats, *x.shape[at + 1 :]))


def _repeated_each(x: V, times: Shape, axis: int) -> V:
    if len(times) != x.shape[axis]:
        raise ShapeError(f"repeat({x.type}): axis {axis} has {x.shape[axis]} elements, and repeats {len(times)}")
    head = (slice(None),) * axis
    pieces = [
        broadcast_to(x[(*head, slice(i, i + 1))], (*x.shape[:axis], n, *x.shape[axis + 1 :]))
        for i, n in enumerate(times)
        if n
    ]
    return concat(pieces, axis=axis) if pieces else x[(*head, slice(0, 0))]


def pad(x: V, /, pad_width: Sequence[tuple[int, int]], *, value: Number = 0) -> V:
    """x with (before, after) copies of a constant around each axis."""
    return Pad(tuple([py.index(b) for b, _ in pad_width]), tuple([py.index(a) for _, a in pad_width]), value)(x)


def tril(x: V, /, *, k: int = 0) -> V:
    """The elements on and below the k-th diagonal of each matrix, zeros above."""
    return Tril(k)(x)


def triu(x: V, /, *, k: int = 0) -> V:
    """The elements on and above the k-th diagonal of each matrix, zeros below."""
    return Triu(k)(x)


def full_like(x: V, /, fill_value: Number, *, dtype: t.DType | None = None, device: str | None = None) -> V:
    """A value of x's shape, and dtype unless another is given, filled with one number."""
    return BroadcastTo(x.shape)(x.literal(fill_value, dtype or x.dtype))


def zeros_like(x: V, /, *, dtype: t.DType | None = None, device: str | None = None) -> V:
    """Zeros of x's shape and dtype."""
    return full_like(x, 0, dtype=dtype)


def ones_like(x: V, /, *, dtype: t.DType | None = None, device: str | None = None) -> V:
    """Ones of x's shape and dtype."""
    return full_like(x, 1, dtype=dtype)


def empty_like(x: V, /, *, dtype: t.DType | None = None, device: str | None = None) -> V:
    """Zeros of x's shape and dtype: memory that nobody has written is never shown."""
    return full_like(x, 0, dtype=dtype)


# ---- the parts of a complex number, for programs that also run on libraries that have them; here all are real


def conj(x: V, /) -> V:
    """x: the conjugate of a real number is itself."""
    return _number(x, "conj").fresh()


def real(x: V, /) -> V:
    """x: a real number is its own real part."""
    return _number(x, "real").fresh()


def imag(x: V, /) -> V:
    """Zeros of x's shape and dtype: the imaginary part of real numbers."""
    return zeros_like(_number(x, "imag"))


def _number(x: V, op: str) -> V:
    if x.dtype is t.bool_:
        raise DTypeError(f"{op}({x.type}): takes numbers; use astype")
    return x
