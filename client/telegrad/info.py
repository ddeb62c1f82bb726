"""Facts about dtypes and devices, as the array API asks for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from telegrad import context
from telegrad.errors import DTypeError
from telegrad.ir import types
from telegrad.ir.types import DTYPES, DType, promote
from telegrad.tensor import Tensor

__array_api_version__ = "2024.12"

e = math.e
inf = math.inf
nan = math.nan
newaxis = None
pi = math.pi


@dataclass(frozen=True)
class FloatInfo:
    """Limits of a floating-point dtype."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True)
class IntegerInfo:
    """Limits of an integer dtype."""

    bits: int
    max: int
    min: int
    dtype: DType


# bits of the significand's fraction, largest exponent
_FLOATS = {types.float16: (10, 15), types.bfloat16: (7, 127), types.float32: (23, 127), types.float64: (52, 1023)}


def _dtype(x: Any) -> DType:
    return x.dtype if isinstance(x, Tensor) else x


def finfo(type: DType | Tensor, /) -> FloatInfo:
    """The limits of a floating-point dtype."""
    dtype = _dtype(type)
    if dtype not in _FLOATS:
        raise DTypeError(f"finfo takes a floating-point dtype, not {dtype}")
    fraction, exponent = _FLOATS[dtype]
    largest = (2.0 - 2.0**-fraction) * 2.0**exponent
    return FloatInfo(8 * dtype.itemsize, 2.0**-fraction, largest, -largest, 2.0 ** (1 - exponent), dtype)


def iinfo(type: DType | Tensor, /) -> IntegerInfo:
    """The limits of an integer dtype."""
    dtype = _dtype(type)
    bits = 8 * dtype.itemsize
    if dtype.kind == "uint":
        return IntegerInfo(bits, 2**bits - 1, 0, dtype)
    if dtype.kind != "int":
        raise DTypeError(f"iinfo takes an integer dtype, not {dtype}")
    return IntegerInfo(bits, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), dtype)


_KINDS: dict[str, tuple[str, ...]] = {
    "bool": ("bool",),
    "signed integer": ("int",),
    "unsigned integer": ("uint",),
    "integral": ("int", "uint"),
    "real floating": ("float",),
    "complex floating": (),
    "numeric": ("int", "uint", "float"),
}


def isdtype(dtype: DType, kind: DType | str | tuple[DType | str, ...]) -> bool:
    """Whether the dtype is of a kind: a dtype, a word such as "integral", or any of a tuple of them."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, DType):
        return dtype is kind
    if kind not in _KINDS:
        raise DTypeError(f"isdtype: {kind!r} is no kind; use one of {', '.join(_KINDS)}")
    return dtype.kind in _KINDS[kind]


def can_cast(from_: DType | Tensor, to: DType, /) -> bool:
    """Whether promotion alone turns the one into the other."""
    source = _dtype(from_)
    try:
        return promote(source, to) is to and (source.kind == to.kind or source.kind in ("uint",) or source is to)
    except DTypeError:
        return False


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that arrays of these shapes broadcast to. ShapeError names the axis that does not fit."""
    return types.broadcast_shapes(*[tuple(shape) for shape in shapes], op="broadcast_shapes") if shapes else ()


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype that these operands have together; Python numbers yield to dtypes of their kind."""
    from telegrad.ops.elementwise import number_dtype

    strong = [_dtype(x) for x in arrays_and_dtypes if isinstance(x, (Tensor, DType))]
    if not strong:
        raise DTypeError("result_type needs at least one tensor or dtype")
    result = strong[0]
    for dtype in strong[1:]:
        result = promote(result, dtype)
    for x in arrays_and_dtypes:
        if not isinstance(x, (Tensor, DType)):
            result = number_dtype(x, result)
    return result


class _Info:
    """What this array namespace offers."""

    def capabilities(self) -> dict[str, Any]:
        """Outside `tg.function` a shape may depend on data: it is read then."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": types.MAX_RANK}

    def default_device(self) -> str:
        """The device of the current session."""
        return context.current_session().backend

    def default_dtypes(self, *, device: str | None = None) -> dict[str, DType]:
        """The dtypes that Python numbers get. Complex ones are not offered."""
        return {"real floating": types.float32, "integral": types.int64, "indexing": types.int64}

    def dtypes(self, *, device: str | None = None, kind: str | tuple[str, ...] | None = None) -> dict[str, DType]:
        """The standard's dtypes by name, of all kinds or of some; float16 and bfloat16 are offered beside them."""
        found = [d for d in DTYPES if d not in (types.float16, types.bfloat16)]
        return {d.name: d for d in found if kind is None or isdtype(d, kind)}

    def devices(self) -> list[str]:
        """The devices of the current session."""
        return [context.current_session().backend]


def __array_namespace_info__() -> _Info:
    """What this array namespace offers: dtypes, devices, capabilities."""
    return _Info()
