"""DType and Type: what is known of a value before it is computed.

Shapes are tuples of Python integers, so a product of dimensions never wraps. Promotion follows the
array API standard; where the standard leaves mixed kinds open, the float operand's dtype wins, as in
PyTorch and JAX.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from telegrad.errors import AxisError, DTypeError, ShapeError

MAX_RANK = 32
MAX_ELEMENTS = 2**63 - 1

Shape = tuple[int, ...]


class DType:
    """An element type: ``float32``, ``int64``, ``bool`` and so on. One object each, compared by identity."""

    __slots__ = ("code", "itemsize", "kind", "name")

    def __init__(self, name: str, kind: str, itemsize: int, code: int) -> None:
        self.name = name
        self.kind = kind  # "bool", "uint", "int" or "float"
        self.itemsize = itemsize  # bytes
        self.code = code  # the number on the wire; never reused

    def __repr__(self) -> str:
        return f"telegrad.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        return "bool_" if self.name == "bool" else self.name  # copies are the same object

    @property
    def is_float(self) -> bool:
        """Whether values of this dtype have derivatives."""
        return self.kind == "float"


bool_ = DType("bool", "bool", 1, 1)
int8 = DType("int8", "int", 1, 2)
int16 = DType("int16", "int", 2, 3)
int32 = DType("int32", "int", 4, 4)
int64 = DType("int64", "int", 8, 5)
uint8 = DType("uint8", "uint", 1, 6)
uint16 = DType("uint16", "uint", 2, 7)
uint32 = DType("uint32", "uint", 4, 8)
uint64 = DType("uint64", "uint", 8, 9)
float16 = DType("float16", "float", 2, 10)
bfloat16 = DType("bfloat16", "float", 2, 11)
float32 = DType("float32", "float", 4, 12)
float64 = DType("float64", "float", 8, 13)

DTYPES: tuple[DType, ...] = (
    bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32, float64,
)  # fmt: skip
BY_NAME: dict[str, DType] = {d.name: d for d in DTYPES}
BY_CODE: dict[int, DType] = {d.code: d for d in DTYPES}


def promote(x: DType, y: DType) -> DType:
    """The smallest dtype that holds both, by the array API's table; int with float gives the float.

    Raises DTypeError for uint64 with a signed integer, which no integer dtype holds.
    """
    if x is y:
        return x
    if x.kind == y.kind:
        if x.itemsize == y.itemsize:  # float16 with bfloat16: neither holds the other
            return float32
        return x if x.itemsize > y.itemsize else y
    order = {"bool": 0, "uint": 1, "int": 2, "float": 3}
    low, high = (x, y) if order[x.kind] < order[y.kind] else (y, x)
    if low.kind == "uint" and high.kind == "int":
        size = max(high.itemsize, 2 * low.itemsize)
        if size > 8:
            raise DTypeError(f"{x} and {y} have no common integer dtype; convert one with astype")
        return BY_NAME[f"int{8 * size}"]
    return high


class Type(NamedTuple):
    """The shape and dtype of a value. Written ``float32[2,3]``."""

    shape: Shape
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes in C order."""
        return product(self.shape) * self.dtype.itemsize


def product(numbers: Iterable[int]) -> int:
    """The product of integers, 1 for none."""
    result = 1
    for number in numbers:
        result *= number
    return result


def check_shape(shape: Sequence[int], *, op: str) -> Shape:
    """The shape as a tuple, or ShapeError for a negative size, too many axes, or too many elements."""
    result = tuple(shape)
    if len(result) > MAX_RANK:
        raise ShapeError(f"{op}: {len(result)} axes; at most {MAX_RANK} are allowed", reason="RANK_LIMIT")
    for axis, size in enumerate(result):
        if size < 0:
            raise ShapeError(f"{op}: axis {axis} has negative size {size}", reason="SHAPE_NEGATIVE")
    if product(max(1, size) for size in result) * 16 > MAX_ELEMENTS:
        raise ShapeError(f"{op}: shape {list(result)} has more elements than can be addressed", reason="SHAPE_OVERFLOW")
    return result


def broadcast_shapes(*shapes: Shape, op: str = "broadcast") -> Shape:
    """The common shape by the array API's broadcasting rule; ShapeError names the axis that does not fit."""
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    rank = max(map(len, shapes))
    result: list[int] = []
    for axis in range(rank):
        sizes = [shape[axis - rank + len(shape)] for shape in shapes if axis - rank + len(shape) >= 0]
        wide = [size for size in sizes if size != 1]
        if any(size != wide[0] for size in wide):
            raise ShapeError(
                f"{op}({', '.join(str(list(s)) for s in shapes)}): "
                f"axis {axis - rank} has sizes {tuple(sizes)}; they must be equal or 1"
            )
        result.append(wide[0] if wide else 1)
    return tuple(result)


def normalize_axis(axis: int, rank: int, *, op: str) -> int:
    """The axis counted from the front; AxisError if it is out of range or no integer."""
    try:
        axis = operator.index(axis)
    except TypeError:
        raise AxisError(f"{op}: an axis is an integer, not {axis!r:.80}") from None
    if not -rank <= axis < rank:
        raise AxisError(f"{op}: axis {axis} is out of range for {rank} axes")
    return axis % rank


def normalize_axes(axes: int | Sequence[int] | None, rank: int, *, op: str) -> tuple[int, ...]:
    """The axes counted from the front, sorted; all of them for None. AxisError if out of range or repeated."""
    if axes is None:
        return tuple(range(rank))
    wanted = tuple(axes) if isinstance(axes, Sequence) else (axes,)
    result = tuple(sorted(normalize_axis(axis, rank, op=op) for axis in wanted))
    if len(set(result)) != len(result):
        raise AxisError(f"{op}: axes {wanted} name one axis twice")
    return result
