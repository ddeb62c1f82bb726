"""What ``x[key]`` and ``x[key] = y`` mean: NumPy's rules for integers, slices, None, ... and integer arrays.

Integers and slices become one `Slice`; integer arrays, joined into one index over their axes, one `Gather`. The shape
of the result is known from the key alone, but for a boolean mask: how many elements it selects is read from it first,
which inside a trace is refused. ``x[mask] = y`` needs no such number where y is the same for all of them.
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
from telegrad.ops.selection import how_many, nonzero, true_places
from telegrad.ops.shape import broadcast_to, expand_dims, moveaxis, permute_dims, reshape, stack
from telegrad.ops.slices import Slice, SliceSet, slice_length

_MASK = "the shape of x[mask]"

Part = Any
"""A part of a key once read: an int, a slice, None, or an integer operand."""


@operator
def getitem(x: V, key: Any) -> V:
    """x[key] with ints, slices, None, ..., integer tensors or lists, and boolean masks, by NumPy's rules."""
    if isinstance(key, bool):
        return expand_dims(x)[: int(key)]
    mask = _sole_mask(key)
    if mask is not None:
        return _masked(x, mask)
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
    value = e.astype(new, x.dtype) if isinstance(new, Operators) else x.literal(new, x.dtype)
    mask = _sole_mask(x.literal(key, t.bool_) if isinstance(key, bool) else key)
    if mask is not None:
        check_mask(mask.shape, x.shape[: mask.ndim])
        if value.ndim <= x.ndim - mask.ndim:
            _check_assigned(value, x.shape[mask.ndim :])
            return e.where(_over(mask, x.ndim), value, x) if mask.size else x
        return _scattered(x, key, value)
    parts = _parts(x, key)
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


# ---- masks


def _sole_mask(key: Any) -> Any:
    """The mask, if the key is one and nothing else but an ellipsis behind it."""
    given: Sequence[Any] = key if isinstance(key, tuple) else (key,)
    if len(given) == 2 and given[1] is Ellipsis:
        given = given[:1]
    if len(given) != 1:
        return None
    key = given[0]
    return key if isinstance(key, Operators) and key.dtype is t.bool_ else None


def check_mask(mask: Shape, axes: Shape) -> None:
    """Raise AxisError unless a mask of this shape selects from axes of these sizes; of size 0 it selects nothing."""
    if len(mask) != len(axes) or any(m not in (n, 0) for m, n in zip(mask, axes, strict=True)):
        raise AxisError(f"a mask of shape {list(mask)} does not fit axes of sizes {list(axes)}")


def _over(mask: V, ndim: int) -> V:
    """The mask with axes of size 1 behind it, so that it broadcasts over those that it does not name."""
    return reshape(mask, mask.shape + (1,) * (ndim - mask.ndim))


def _masked(x: V, mask: V) -> V:
    check_mask(mask.shape, x.shape[: mask.ndim])
    flat = reshape(mask, (mask.size,))
    places = true_places(flat, how_many(flat, _MASK))
    return Gather()(reshape(x, (product(x.shape[: mask.ndim]), *x.shape[mask.ndim :])), places)


def _check_assigned(value: Operators, shape: Shape) -> None:
    lead = len(shape) - value.ndim
    if lead < 0 or any(size not in (1, shape[lead + a]) for a, size in enumerate(value.shape)):
        raise ShapeError(f"x[key] = y: y of shape {list(value.shape)} does not broadcast to x[key], {list(shape)}")


# ---- reading the key


def _parts(x: Operators, key: Any) -> list[Part]:
    """The key as one part for each axis of x, with None where a new axis goes."""
    given: Sequence[Any] = key if isinstance(key, tuple) else (key,)
    parts = [_part(x, part) for part in given]
    used = sum(_axes_of(part) for part in parts)
    if used > x.ndim:
        raise AxisError(f"{used} indices are too many for the {x.ndim} axes of a {x.type}")
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        raise AxisError("an index can only have one ellipsis")
    at = dots[0] if dots else len(parts)
    parts = [*parts[:at], *([slice(None)] * (x.ndim - used)), *parts[at + len(dots) :]]
    found: list[Part] = []
    axis = 0
    for part in parts:
        n = _axes_of(part)
        if isinstance(part, Operators) and part.dtype is t.bool_:
            check_mask(part.shape, x.shape[axis : axis + n])
            if n == 0:
                raise GraphError("a 0-d mask stands alone in its key: x[mask]")
            found.extend(nonzero(part))
        else:
            found.append(part)
        axis += n
    return found


def _axes_of(part: Part) -> int:
    """How many axes of x the part of a key takes."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, Operators) and part.dtype is t.bool_ else 1


def _part(x: Operators, part: Any) -> Part:
    """One part of a key as an int, a slice, None, Ellipsis or an integer operand."""
    if part is None or part is Ellipsis or isinstance(part, slice):
        return part  # pyright: ignore[reportUnknownVariableType]
    if isinstance(part, Operators):
        if part.dtype.kind not in ("bool", "int", "uint"):
            raise DTypeError(f"an index must be integers, not {part.type}")
        return part
    if isinstance(part, bool):
        return x.literal(part, t.bool_)
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
            raise GraphError("a mask is a tensor of booleans, not a list of them; use asarray")
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
