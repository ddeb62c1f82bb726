"""Basic slices with explicit bounds: taking them, putting them into zeros, and replacing them in a value.

The three are each other's derivatives, so slicing differentiates to any order.
"""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.errors import DTypeError, ShapeError
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Shape, Type, broadcast_shapes, check_shape
from telegrad.ir.value import Value
from telegrad.ir.xp import Array, ArrayModule


def slice_length(start: int, stop: int, step: int) -> int:
    """The length of range(start, stop, step). (``len`` fails beyond 2**63, and bounds come from the network.)"""
    return max(0, -((start - stop) // step)) if step > 0 else max(0, -((stop - start) // -step))


class Sliced(Op, abstract=True):
    """The family: along axis i the elements ``range(start[i], stop[i], step[i])``, all of which are there."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]

    def taken(self, shape: Shape) -> Shape:
        """The shape of what the slices select from ``shape``; ShapeError if they reach outside."""
        if not len(self.start) == len(self.stop) == len(self.step) == len(shape):
            raise ShapeError(f"{self.name}: bounds must be given for each of {len(shape)} axes")
        sizes: list[int] = []
        for a, (start, stop, step, size) in enumerate(zip(self.start, self.stop, self.step, shape, strict=True)):
            if step == 0:
                raise ShapeError(f"{self.name}: the step of axis {a} is 0")
            n = slice_length(start, stop, step)
            if n and not (0 <= start < size and 0 <= start + (n - 1) * step < size):
                raise ShapeError(f"{self.name}: axis {a} of size {size} has no {start}:{stop}:{step}")
            sizes.append(n)
        return tuple(sizes)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The bounds as Python slices, in which a stop before the front is written None."""
        found: list[slice] = []
        for start, stop, step in zip(self.start, self.stop, self.step, strict=True):
            if slice_length(start, stop, step) == 0:
                found.append(slice(0, 0))
            else:
                found.append(slice(start, None if stop < 0 else stop, step))
        return tuple(found)


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

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return x[self.slices]

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 0)


@dataclass(frozen=True)
class Unslice(Sliced):
    """Zeros of ``shape`` with x where the bounds select: the transpose of Slice."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]
    shape: Shape

    def infer(self, x: Type) -> Type:
        shape = check_shape(self.shape, op="unslice")
        if self.taken(shape) != x.shape:
            raise ShapeError(f"unslice({x}): the bounds select {list(self.taken(shape))} of {list(shape)}")
        return Type(shape, x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (Slice(self.start, self.stop, self.step)(g),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        result = xp.zeros(self.shape, xp.dtype_of(x))
        result[self.slices] = x
        return result

    def cost(self, *types: Type) -> Cost:
        return Cost(0, types[0].nbytes + self.infer(*types).nbytes)


@dataclass(frozen=True)
class SliceSet(Sliced):
    """x with the elements that the bounds select replaced by y, which broadcasts to them."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]

    def infer(self, x: Type, y: Type) -> Type:
        if x.dtype is not y.dtype:
            raise DTypeError(f"slice_set({x}, {y}): dtypes must be equal; use astype")
        taken = self.taken(x.shape)
        if broadcast_shapes(y.shape, taken, op="slice_set") != taken:
            raise ShapeError(f"slice_set({x}, {y}): the bounds select {list(taken)}, to which y does not broadcast")
        return x

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return self(g, g.literal(0, g.dtype)), Slice(self.start, self.stop, self.step)(g)

    def eval(self, xp: ArrayModule, x: Array, y: Array) -> Array:
        result = xp.copy(x)
        result[self.slices] = y
        return result

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 2 * types[0].nbytes + 2 * types[1].nbytes)
