"""What ``x[key]`` and ``x[key] = y`` mean: NumPy's rules for integers, slices, None, ... and integer arrays.

Integers and slices become one `Slice`; integer arrays, joined into one index over their axes, one `Gather`. The shape
of the result is known from the key alone, so a boolean mask is refused.
"""

from __future__ import annotations

import operator as py
from collections.abc import Sequence
from typing import Any

from telegrad.errors import AxisError, DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import Shape, product
from telegrad.ir.value import Number, Operators, V, operator
from telegrad.ops import elementwise as e
from telegrad.ops.index import CheckedIndex, Gather, ScatterSet
from telegrad.ops.shape import broadcast_to, moveaxis, permute_dims, reshape, stack
from telegrad.ops.slices import Slice, SliceSet, slice_length

_MASK = "the shape of x[mask] depends on data, which a graph cannot hold; use where(mask, x, 0)"

Part = Any
"""A part of a key once read: an int, a slice, None, or an integer operand."""


@operator
def getitem(x: V, key: Any) -> V:
    """x[key] with ints, slices, None, ... and integer tensors or lists, by NumPy's rules. A mask is refused."""
    parts = _parts(x, key)
    bounds = _bounds(x, parts)
    sliced = x if _is_whole(bounds, x.shape) else Slice(*_columns(bounds))(x)
    shape: list[int] = []
    arrays: list[tuple[int, V]] = []
    sizes = iter(sliced.shape)
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        size = next(sizes)
        if isinstance(part, Operators):
            arrays.append((len(shape), part))  # pyright: ignore[reportArgumentType]
        if not isinstance(part, int):
            shape.append(size)
    result = reshape(sliced, shape)
    return _gathered(result, arrays, is_split=_is_split(parts)) if arrays else result


def set_items(x: V, key: Any, new: V | Number) -> V:
    """x with the elements that ``key`` selects replaced by ``new``, which broadcasts. What ``x[key] = new`` binds."""
    parts = _parts(x, key)
    value = e.astype(new, x.dtype) if isinstance(new, Operators) else x.literal(new, x.dtype)
    if any(isinstance(part, Operators) for part in parts):
        return _scattered(x, key, value)
    bounds = _bounds(x, parts)
    taken = tuple(slice_length(*b) for b in bounds)
    sizes = iter(taken)
    selected = tuple(1 if p is None else next(sizes) for p in parts)
    shape = tuple(size for p, size in zip(parts, selected, strict=True) if not isinstance(p, int))
    _check_assigned(value, shape)
    # axes that the key makes, and those it drops, have size 1: in value they become those of the slice
    wide = value if value.ndim == 0 else reshape(broadcast_to(value, shape), taken)
    return SliceSet(*_columns(bounds))(x, wide)


def _scattered(x: V, key: Any, value: V) -> V:
    # positions of the selected elements in the flat x, by indexing its own numbering
    numbering = reshape(x.bind(e.Iota((x.size,), 0, t.int64), ())[0], x.shape)
    positions = getitem(numbering, key)
    _check_assigned(value, positions.shape)
    flat = ScatterSet()(reshape(x, (-1,)), positions, broadcast_to(value, positions.shape))
    return reshape(flat, x.shape)


def _check_assigned(value: Operators, shape: Shape) -> None:
    lead = len(shape) - value.ndim
    if lead < 0 or any(size not in (1, shape[lead + a]) for a, size in enumerate(value.shape)):
        raise ShapeError(f"x[key] = y: y of shape {list(value.shape)} does not broadcast to x[key], {list(shape)}")


# ---- reading the key


def _parts(x: Operators, key: Any) -> list[Part]:
    """The key as one part for each axis of x, with None where a new axis goes."""
    given: Sequence[Any] = key if isinstance(key, tuple) else (key,)
    parts = [_part(x, part) for part in given]
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if used > x.ndim:
        raise AxisError(f"{used} indices are too many for the {x.ndim} axes of a {x.type}")
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        raise AxisError("an index can only have one ellipsis")
    at = dots[0] if dots else len(parts)
    return [*parts[:at], *([slice(None)] * (x.ndim - used)), *parts[at + len(dots) :]]


def _part(x: Operators, part: Any) -> Part:
    """One part of a key as an int, a slice, None, Ellipsis or an integer operand."""
    if part is None or part is Ellipsis or isinstance(part, slice):
        return part  # pyright: ignore[reportUnknownVariableType]
    if isinstance(part, Operators):
        if part.dtype is t.bool_:
            raise GraphError(_MASK)
        if part.dtype.kind not in ("int", "uint"):
            raise DTypeError(f"an index must be integers, not {part.type}")
        return part
    if isinstance(part, bool):
        raise GraphError(_MASK)
    try:
        return py.index(part)
    except TypeError:
        pass
    if hasattr(part, "reshape") and hasattr(part, "tolist"):  # an array of NumPy's kind
        return reshape(_constant_index(x, part.reshape(-1).tolist()), part.shape)
    if isinstance(part, (list, range)):
        return _constant_index(x, list(part))  # pyright: ignore[reportUnknownArgumentType]
    raise GraphError(f"{type(part).__name__} is no index; use integers, slices, None, ... or integer tensors")


def _constant_index(x: Operators, numbers: list[Any]) -> Operators:
    """Nested lists of ints as an operand made of constants."""
    if not numbers:
        return broadcast_to(x.literal(0, t.int64), (0,))
    rows: list[Operators] = []
    for number in numbers:
        if isinstance(number, bool):
            raise GraphError(_MASK)
        if isinstance(number, list):
            rows.append(_constant_index(x, number))  # pyright: ignore[reportUnknownArgumentType]
            continue
        try:
            rows.append(x.literal(py.index(number), t.int64))
        except TypeError:
            raise DTypeError(f"an index must be integers, not {number!r:.80}") from None
    return stack(rows)


# ---- slices and integers


def _bounds(x: Operators, parts: list[Part]) -> list[tuple[int, int, int]]:
    """Start, stop and step along each axis of x; all of an axis that an array indexes."""
    axes = [part for part in parts if part is not None]
    return [_axis_bounds(part, size, axis) for axis, (part, size) in enumerate(zip(axes, x.shape, strict=True))]


def _axis_bounds(part: Part, size: int, axis: int) -> tuple[int, int, int]:
    if isinstance(part, Operators):
        return 0, size, 1
    if isinstance(part, slice):
        try:
            start, stop, step = part.indices(size)
        except (TypeError, ValueError) as error:
            raise AxisError(f"axis {axis}: {error}") from None
        n = slice_length(start, stop, step)
        return (start, start + n * step, step) if n else (0, 0, 1)
    if not -size <= part < size:
        raise AxisError(f"index {part} is out of range for axis {axis} of size {size}")
    return part % size, part % size + 1, 1


def _columns(bounds: list[tuple[int, int, int]]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return tuple(b[0] for b in bounds), tuple(b[1] for b in bounds), tuple(b[2] for b in bounds)


def _is_whole(bounds: list[tuple[int, int, int]], shape: Shape) -> bool:
    return all(b == (0, size, 1) for b, size in zip(bounds, shape, strict=True))


# ---- integer arrays


def _is_split(parts: list[Part]) -> bool:
    """Whether the array indices (ints beside arrays count) are separated, so that their axes go to the front."""
    at = [i for i, part in enumerate(parts) if isinstance(part, (int, Operators))]
    return at != list(range(at[0], at[-1] + 1))


def _gathered(x: V, arrays: list[tuple[int, V]], *, is_split: bool) -> V:
    """x indexed by arrays along some of its axes."""
    axes = tuple(a for a, _ in arrays)
    index = _joined([(x.shape[a], i) for a, i in arrays])
    lead = index.ndim
    rest = [a for a in range(x.ndim) if a not in axes]
    front = permute_dims(x, (*axes, *rest))
    joined = reshape(front, (product(x.shape[a] for a in axes), *(x.shape[a] for a in rest)))
    found = Gather()(joined, index)
    if is_split or axes[0] == 0:
        return found
    return moveaxis(found, tuple(range(lead)), tuple(range(axes[0], axes[0] + lead)))


def _joined(arrays: list[tuple[int, V]]) -> V:
    """One index into the joined axes, from the size of each axis and its own index, which broadcast."""
    if len(arrays) == 1:
        return arrays[0][1]
    flat: V | None = None
    for size, index in arrays:
        one = CheckedIndex(size)(index)
        flat = one if flat is None else flat * size + one
    assert flat is not None
    return flat
