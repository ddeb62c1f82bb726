"""Elementwise ops: each result element depends on one element of each operand, after broadcasting.

The family's ``eval`` uses only the scalar language (`telegrad.ir.xp.ScalarModule`), so one expression serves NumPy,
CuPy and, printed, the fuser's C and CUDA. An op that is a single word of that language names it in ``word``, which
also says how many operands there are, and needs no ``eval`` of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from telegrad.errors import AxisError, DTypeError, GraphError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import DType, Shape, Type, broadcast_shapes, check_shape
from telegrad.ir.value import Number, Operators, V, Value, operator
from telegrad.ir.xp import Array, ArrayModule, ScalarModule

__all__ = [
    "abs",
    "acos",
    "acosh",
    "add",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "clip",
    "copysign",
    "cos",
    "cosh",
    "divide",
    "equal",
    "erf",
    "exp",
    "expm1",
    "floor",
    "floor_divide",
    "greater",
    "greater_equal",
    "hypot",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "nextafter",
    "not_equal",
    "positive",
    "pow",
    "reciprocal",
    "relu",
    "remainder",
    "round",
    "sigmoid",
    "sign",
    "signbit",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "subtract",
    "tan",
    "tanh",
    "trunc",
    "where",
]  # fmt: skip


class Elementwise(Op, abstract=True):
    """The family: operands of one dtype broadcast against each other; the result has their dtype."""

    word: ClassVar[str] = ""
    arity: ClassVar[int] = 1
    kinds: ClassVar[tuple[str, ...]] = ("bool", "uint", "int", "float")
    result: ClassVar[DType | None] = None  # the result's dtype, where it is not the operands'

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(abstract=abstract, **kwargs)
        if cls.word:
            cls.arity = getattr(ScalarModule, cls.word).__code__.co_argcount - 1

    def infer(self, *types: Type) -> Type:
        self.check_arity(types)
        dtype = types[0].dtype
        for type in types[1:]:
            if type.dtype is not dtype:
                raise DTypeError(f"{self.name}({', '.join(map(str, types))}): dtypes must be equal; use astype")
        if dtype.kind not in self.kinds:
            raise DTypeError(f"{self.name}({', '.join(map(str, types))}): takes {' or '.join(self.kinds)} dtypes")
        return Type(self.broadcast(types), self.result or dtype)

    def check_arity(self, types: tuple[Type, ...]) -> None:
        """Raise GraphError unless there is one type for each operand."""
        if len(types) != self.arity:
            raise GraphError(
                f"{self.name} takes {self.arity} operands, not {len(types)}", reason="GRAPH_ARITY", op=self.name
            )

    def broadcast(self, types: tuple[Type, ...]) -> Shape:
        """The common shape of the operands."""
        shape = types[0].shape
        if all(type.shape == shape for type in types):
            return shape
        return check_shape(broadcast_shapes(*(type.shape for type in types), op=self.name), op=self.name)

    def eval(self, xp: ScalarModule, *arrays: Array) -> Array:
        return getattr(xp, self.word)(*arrays)


class Float(Elementwise, abstract=True):
    """Elementwise on floating-point operands only."""

    kinds = ("float",)


class Numeric(Elementwise, abstract=True):
    """Elementwise on numbers, not on booleans."""

    kinds = ("uint", "int", "float")


class Predicate(Elementwise, abstract=True):
    """Elementwise with a boolean result, which has no derivative."""

    result = t.bool_

    def vjp(self, g: Value, out: Value, *inputs: Value) -> tuple[None, ...]:
        return (None,) * len(inputs)


class Stepwise(Elementwise, abstract=True):
    """Elementwise and piecewise constant: the derivative is zero wherever it exists."""

    def vjp(self, g: Value, out: Value, *inputs: Value) -> tuple[None, ...]:
        return (None,) * len(inputs)


@dataclass(frozen=True)
class Constant(Op):
    """A Python number as a 0-d value. May be infinite or NaN."""

    value: Number
    dtype: DType

    def infer(self) -> Type:
        literal_op(self.value, self.dtype)  # refuses what the dtype cannot hold
        return Type((), self.dtype)

    def eval(self, xp: ArrayModule) -> Array:
        return xp.full((), self.value, self.dtype)


@dataclass(frozen=True)
class Iota(Op):
    """0, 1, 2, … along one axis of a shape."""

    shape: Shape
    axis: int
    dtype: DType

    def infer(self) -> Type:
        if not 0 <= self.axis < len(self.shape):
            raise AxisError(f"iota: axis {self.axis} is out of range for {len(self.shape)} axes")
        if self.dtype.kind == "bool":
            raise DTypeError("iota: positions are numbers, not booleans")
        return Type(check_shape(self.shape, op="iota"), self.dtype)

    def eval(self, xp: ArrayModule) -> Array:
        n = self.shape[self.axis]
        shape = tuple(n if a == self.axis else 1 for a in range(len(self.shape)))
        return xp.broadcast_to(xp.reshape(xp.arange(n, self.dtype), shape), self.shape)


def literal_op(number: Number, dtype: DType) -> Constant:
    """The constant op for a Python number in this dtype; DTypeError if the dtype cannot hold it."""
    if dtype.kind == "float":
        return Constant(float(number), dtype)
    if dtype.kind == "bool":
        return Constant(bool(number), dtype)
    if isinstance(number, float):
        raise DTypeError(f"the number {number} does not fit {dtype}; use astype")
    bits = 8 * dtype.itemsize
    low, high = (0, 2**bits) if dtype.kind == "uint" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    if not low <= number < high:
        raise DTypeError(f"the number {number} does not fit {dtype}")
    return Constant(int(number), dtype)


operator(literal_op)


# ---- promotion: what users may mix, the ops may not


def number_dtype(number: Number, dtype: DType) -> DType:
    """The dtype in which a Python number meets an operand of ``dtype``: the operand's, if its kind allows."""
    if isinstance(number, bool):
        return dtype
    if isinstance(number, int):
        return t.int64 if dtype.kind == "bool" else dtype
    return dtype if dtype.kind == "float" else t.float32


def common(*operands: V | Number) -> tuple[V, ...]:
    """The operands in their common dtype; Python numbers become 0-d operands. At least one is no number."""
    strong: list[V] = []
    weak: list[V] = []
    numbers: list[Number] = []
    for x in operands:
        if isinstance(x, Operators):
            (weak if x.is_weak else strong).append(x)
        elif isinstance(x, (bool, int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
            numbers.append(x)
        else:
            raise DTypeError(f"an operand must be a tensor or a Python number, not {type(x).__name__}")
    leading = strong or weak
    if not leading:
        raise DTypeError("at least one operand must be a tensor")
    dtype = leading[0].dtype
    for x in leading:
        if x.dtype is not dtype:
            dtype = t.promote(dtype, x.dtype)
    if len(strong) == len(operands) and all([x.dtype is dtype for x in strong]):
        return tuple(strong)  # what rules do all the time
    for x in numbers:
        dtype = number_dtype(x, dtype)
    if strong:
        for x in weak:
            if not (x.dtype.kind == dtype.kind or dtype.kind == "float"):
                dtype = number_dtype(1.0 if x.dtype.kind == "float" else 1, dtype)
    like = leading[0]
    return tuple(
        [
            like.literal(x, dtype)  # weak where all operands are
            if not isinstance(x, Operators)
            else x
            if x.dtype is dtype and (not x.is_weak or not strong)
            else Cast(dtype)(x)
            for x in operands
        ]
    )


def inexact(x: V) -> V:
    """x, or x as float32 if it is not floating-point."""
    return x if x.dtype.kind == "float" else astype(x, t.float32)


@dataclass(frozen=True)
class Cast(Op):
    """The same numbers in another dtype, rounded to nearest even or truncated as C does."""

    dtype: DType

    def infer(self, x: Type) -> Type:
        return Type(x.shape, self.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value | None]:
        if not x.dtype.is_float or not self.dtype.is_float:
            return (None,)
        return (Cast(x.dtype)(g),)

    def eval(self, xp: ScalarModule, x: Array) -> Array:
        return xp.astype(x, self.dtype)


def astype(x: V, dtype: DType, /, *, copy: bool = True, device: str | None = None) -> V:
    """x converted to ``dtype``. Without ``copy``, x itself if that is its dtype."""
    if x.dtype is not dtype or x.is_weak:
        return Cast(dtype)(x)
    return x.fresh() if copy else x


# ---- arithmetic


class Add(Numeric):
    """x + y."""

    word = "add"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return g, g


class Subtract(Numeric):
    """x - y."""

    word = "subtract"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return g, -g


class Multiply(Numeric):
    """x * y."""

    word = "multiply"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return g * y, g * x


class Divide(Float):
    """x / y."""

    word = "divide"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        gx = g / y
        return gx, -(gx * out)


class FloorDivide(Numeric):
    """floor(x / y). Piecewise constant."""

    word = "floor_divide"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[None, None]:
        return None, None


class Remainder(Numeric):
    """x - y * floor(x / y): the sign of the divisor."""

    word = "remainder"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return g, -(g * FloorDivide()(x, y))


class Power(Numeric):
    """x**y."""

    word = "power"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value | None, Value | None]:
        if not x.dtype.is_float:
            return None, None
        # at x = y = 0 the derivative is 0 times infinity; the base is kept away from 0 there
        gx = y * Power()(where(logical_and(equal(x, 0), equal(y, 0)), 1, x), y - 1)
        # at x = 0 the limit of x**y log x is 0 for y > 0; log is kept away from 0 so that no NaN is multiplied in
        gy = where(equal(x, 0), where(y >= 0, x.literal(0.0, x.dtype), -math.inf), out * log(where(equal(x, 0), 1, x)))
        return g * gx, g * gy


@dataclass(frozen=True)
class IntegerPower(Numeric):
    """x**exponent for an integer known while tracing, by repeated squaring: no log in its gradient."""

    exponent: int

    def infer(self, *types: Type) -> Type:
        result = super().infer(*types)
        if self.exponent < 0 and not result.dtype.is_float:
            raise DTypeError(f"{result} ** {self.exponent}: a negative power needs a floating-point base")
        if not -1024 <= self.exponent <= 1024:
            raise DTypeError(f"integer_power: exponent {self.exponent} is beyond 1024; use pow")
        return result

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value | None]:
        if self.exponent == 0:
            return (None,)
        if self.exponent == 1:
            return (g,)
        return (g * (x.literal(self.exponent, x.dtype) * IntegerPower(self.exponent - 1)(x)),)

    def eval(self, xp: ScalarModule, *arrays: Array) -> Array:
        (square,) = arrays
        n, result = max(self.exponent, -self.exponent), None
        if n == 0:
            return xp.power(square, xp.literal(0, square))
        while True:
            if n & 1:
                result = square if result is None else xp.multiply(result, square)
            n >>= 1
            if n == 0:
                return xp.reciprocal(result) if self.exponent < 0 else result
            square = xp.multiply(square, square)

    def cost(self, *types: Type) -> Cost:
        return Cost(2 * max(self.exponent, -self.exponent).bit_length() * types[0].size, 2 * types[0].nbytes)


class Negative(Numeric):
    """-x."""

    word = "negative"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (-g,)


class Abs(Numeric):
    """The derivative at 0 is 0."""

    word = "abs"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * Sign()(x),)


class Sign(Numeric, Stepwise):
    """-1, 0 or 1; NaN for NaN."""

    word = "sign"


class Square(Numeric):
    """x * x."""

    word = "square"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * (x + x),)


class Reciprocal(Float):
    """1 / x."""

    word = "reciprocal"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (-(g * (out * out)),)


class Minimum(Numeric):
    """Of equal operands each receives half of the gradient, as in PyTorch."""

    word = "minimum"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        half = where(equal(x, y), g * g.literal(0.5, g.dtype), 0)
        return where(x < y, g, half), where(y < x, g, half)


class Maximum(Numeric):
    """Of equal operands each receives half of the gradient, as in PyTorch."""

    word = "maximum"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        half = where(equal(x, y), g * g.literal(0.5, g.dtype), 0)
        return where(x > y, g, half), where(y > x, g, half)


# ---- functions of one floating-point operand


class Exp(Float):
    """e**x."""

    word = "exp"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * out,)


class Expm1(Float):
    """e**x - 1, accurate for small x."""

    word = "expm1"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * (out + 1),)


class Log(Float):
    """The natural logarithm."""

    word = "log"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g / x,)


class Log1p(Float):
    """log(1 + x), accurate for small x."""

    word = "log1p"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g / (x + 1),)


class Log2(Float):
    """The logarithm to base 2."""

    word = "log2"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g / (x * math.log(2)),)


class Log10(Float):
    """The logarithm to base 10."""

    word = "log10"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g / (x * math.log(10)),)


class Sqrt(Float):
    """The square root."""

    word = "sqrt"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g / (out + out),)


class Sin(Float):
    """The sine of x radians."""

    word = "sin"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * Cos()(x),)


class Cos(Float):
    """The cosine of x radians."""

    word = "cos"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (-(g * Sin()(x)),)


class Tan(Float):
    """The tangent of x radians."""

    word = "tan"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * (out * out + 1),)


class Asin(Float):
    """The angle in [-pi/2, pi/2] whose sine is x."""

    word = "asin"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g / Sqrt()(1 - x * x),)


class Acos(Float):
    """The angle in [0, pi] whose cosine is x."""

    word = "acos"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (-(g / Sqrt()(1 - x * x)),)


class Atan(Float):
    """The angle in [-pi/2, pi/2] whose tangent is x."""

    word = "atan"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g / (x * x + 1),)


class Sinh(Float):
    """The hyperbolic sine."""

    word = "sinh"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * Cosh()(x),)


class Cosh(Float):
    """The hyperbolic cosine."""

    word = "cosh"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * Sinh()(x),)


class Tanh(Float):
    """The hyperbolic tangent."""

    word = "tanh"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * (1 - out * out),)


class Asinh(Float):
    """The inverse hyperbolic sine."""

    word = "asinh"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g / Sqrt()(x * x + 1),)


class Acosh(Float):
    """The inverse hyperbolic cosine."""

    word = "acosh"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g / (Sqrt()(x - 1) * Sqrt()(x + 1)),)


class Atanh(Float):
    """The inverse hyperbolic tangent."""

    word = "atanh"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g / (1 - x * x),)


class Atan2(Float):
    """The angle of the point (x, y), in [-pi, pi]."""

    word = "atan2"

    def vjp(self, g: Value, out: Value, y: Value, x: Value) -> tuple[Value, Value]:
        scale = g / (x * x + y * y)
        return scale * x, -(scale * y)


class Hypot(Float):
    """sqrt(x**2 + y**2) without overflow. The derivative at the origin is 0."""

    word = "hypot"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        safe = where(equal(out, 0), 1, out)
        return g * (x / safe), g * (y / safe)


class Logaddexp(Float):
    """log(exp(x) + exp(y)) without overflow; softplus and log-sigmoid are written with it."""

    word = "logaddexp"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        # sigmoid of the difference, and not exp(x - out): infinity with infinity gives a gradient of half each
        p = Sigmoid()(where(logical_and(equal(x, y), isinf(x)), 0, x - y))
        return g * p, g * (1 - p)


class Erf(Float):
    """The error function."""

    word = "erf"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * (Exp()(-(x * x)) * (2 / math.sqrt(math.pi))),)


class Sigmoid(Float):
    """1 / (1 + exp(-x)), from exp(-|x|) so that nothing overflows: hence a primitive."""

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * (out * (1 - out)),)

    def eval(self, xp: ScalarModule, *arrays: Array) -> Array:
        (x,) = arrays
        one = xp.literal(1, x)
        e = xp.exp(xp.negative(xp.abs(x)))
        return xp.divide(xp.where(xp.signbit(x), e, one), xp.add(e, one))


class Relu(Float):
    """max(x, 0). A primitive because its derivative at 0 is 0, where that of maximum is one half."""

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (where(x <= 0, 0, g),)

    def eval(self, xp: ScalarModule, *arrays: Array) -> Array:
        (x,) = arrays
        return xp.maximum(x, xp.literal(0, x))


# ---- rounding, predicates, logic, bits


class Floor(Numeric, Stepwise):
    """The largest integer not above x."""

    word = "floor"


class Ceil(Numeric, Stepwise):
    """The smallest integer not below x."""

    word = "ceil"


class Trunc(Numeric, Stepwise):
    """The integer nearest to x towards zero."""

    word = "trunc"


class Round(Numeric, Stepwise):
    """To the nearest integer, ties to even."""

    word = "round"


class Nextafter(Float):
    """The next number after x in the direction of y. It moves with x, one step away."""

    word = "nextafter"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, None]:
        return g, None


class Copysign(Float):
    """The magnitude of x with the sign of y."""

    word = "copysign"

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, None]:
        return g * (Sign()(x) * where(Signbit()(y), -1, x.literal(1.0, x.dtype))), None


class Equal(Predicate):
    """x == y."""

    word = "equal"


class NotEqual(Predicate):
    """x != y."""

    word = "not_equal"


class Less(Predicate):
    """x < y."""

    word = "less"


class LessEqual(Predicate):
    """x <= y."""

    word = "less_equal"


class Greater(Predicate):
    """x > y."""

    word = "greater"


class GreaterEqual(Predicate):
    """x >= y."""

    word = "greater_equal"


class Isnan(Predicate):
    """Whether x is NaN."""

    word = "isnan"


class Isinf(Predicate):
    """Whether x is an infinity."""

    word = "isinf"


class Isfinite(Predicate):
    """Whether x is neither NaN nor infinite."""

    word = "isfinite"


class Signbit(Predicate):
    """Whether the sign bit is set."""

    kinds = ("float",)
    word = "signbit"


class LogicalAnd(Predicate):
    """Whether both are true."""

    kinds = ("bool",)
    word = "logical_and"


class LogicalOr(Predicate):
    """Whether one or both are true."""

    kinds = ("bool",)
    word = "logical_or"


class LogicalXor(Predicate):
    """Whether exactly one is true."""

    kinds = ("bool",)
    word = "logical_xor"


class LogicalNot(Predicate):
    """Whether x is false."""

    kinds = ("bool",)
    word = "logical_not"


class Bitwise(Stepwise, abstract=True):
    """Elementwise on bits: integers and booleans."""

    kinds = ("bool", "uint", "int")


class BitwiseAnd(Bitwise):
    """The bits that are set in both."""

    word = "bitwise_and"


class BitwiseOr(Bitwise):
    """The bits that are set in one or both."""

    word = "bitwise_or"


class BitwiseXor(Bitwise):
    """The bits that are set in exactly one."""

    word = "bitwise_xor"


class BitwiseInvert(Bitwise):
    """Every bit flipped."""

    word = "bitwise_invert"


class BitwiseLeftShift(Bitwise):
    """x * 2**y, bits beyond the dtype lost."""

    kinds = ("uint", "int")
    word = "bitwise_left_shift"


class BitwiseRightShift(Bitwise):
    """floor(x / 2**y)."""

    kinds = ("uint", "int")
    word = "bitwise_right_shift"


class Where(Elementwise):
    """x1 where the condition holds, else x2."""

    word = "where"

    def infer(self, *types: Type) -> Type:
        self.check_arity(types)
        condition, x1, x2 = types
        if condition.dtype is not t.bool_ or x1.dtype is not x2.dtype:
            raise DTypeError(f"where({condition}, {x1}, {x2}): takes a bool condition and two values of one dtype")
        return Type(self.broadcast(types), x1.dtype)

    def vjp(self, g: Value, out: Value, condition: Value, x1: Value, x2: Value) -> tuple[None, Value, Value]:
        return None, where(condition, g, 0), where(condition, 0, g)


# ---- the public functions, in the array API's order


def _float1(op: Op, x: V) -> V:
    return op(inexact(x))


@operator
def abs(x: V, /) -> V:
    """|x|. The derivative at 0 is 0."""
    return x.fresh() if x.dtype.kind in ("bool", "uint") else Abs()(x)


def acos(x: V, /) -> V:
    """The angle in [0, pi] whose cosine is x."""
    return _float1(Acos(), x)


def acosh(x: V, /) -> V:
    """The inverse hyperbolic cosine of x."""
    return _float1(Acosh(), x)


@operator
def add(x1: V | Number, x2: V | Number, /) -> V:
    """x1 + x2; of booleans, their logical or."""
    x, y = common(x1, x2)
    return LogicalOr()(x, y) if x.dtype is t.bool_ else Add()(x, y)


def asin(x: V, /) -> V:
    """The angle in [-pi/2, pi/2] whose sine is x."""
    return _float1(Asin(), x)


def asinh(x: V, /) -> V:
    """The inverse hyperbolic sine of x."""
    return _float1(Asinh(), x)


def atan(x: V, /) -> V:
    """The angle in [-pi/2, pi/2] whose tangent is x."""
    return _float1(Atan(), x)


def atan2(x1: V | Number, x2: V | Number, /) -> V:
    """The angle of the point (x2, x1), in [-pi, pi]."""
    x, y = common(x1, x2)
    return Atan2()(inexact(x), inexact(y))


def atanh(x: V, /) -> V:
    """The inverse hyperbolic tangent of x."""
    return _float1(Atanh(), x)


def _bits(op: Op, boolean: Op | None, x1: V | Number, x2: V | Number) -> V:
    x, y = common(x1, x2)
    return boolean(x, y) if boolean is not None and x.dtype is t.bool_ else op(x, y)


@operator
def bitwise_and(x1: V | Number, x2: V | Number, /) -> V:
    """The bitwise and of integers, the logical and of booleans."""
    return _bits(BitwiseAnd(), LogicalAnd(), x1, x2)


@operator
def bitwise_left_shift(x1: V | Number, x2: V | Number, /) -> V:
    """x1 * 2**x2 for integers."""
    return _bits(BitwiseLeftShift(), None, x1, x2)


@operator
def bitwise_invert(x: V, /) -> V:
    """Every bit of x flipped; the logical not of booleans."""
    return LogicalNot()(x) if x.dtype is t.bool_ else BitwiseInvert()(x)


@operator
def bitwise_or(x1: V | Number, x2: V | Number, /) -> V:
    """The bitwise or of integers, the logical or of booleans."""
    return _bits(BitwiseOr(), LogicalOr(), x1, x2)


@operator
def bitwise_right_shift(x1: V | Number, x2: V | Number, /) -> V:
    """x1 // 2**x2 for integers."""
    return _bits(BitwiseRightShift(), None, x1, x2)


@operator
def bitwise_xor(x1: V | Number, x2: V | Number, /) -> V:
    """The bitwise exclusive or of integers, the logical one of booleans."""
    return _bits(BitwiseXor(), LogicalXor(), x1, x2)


def ceil(x: V, /) -> V:
    """The smallest integer not below x, in x's dtype."""
    return Ceil()(x) if x.dtype.is_float else x.fresh()


def clip(x: V, /, min: V | Number | None = None, max: V | Number | None = None) -> V:
    """x limited to [min, max]. Inside the limits the gradient passes, outside it goes to the limit."""
    if min is None and max is None:
        return x.fresh()
    result = x
    if min is not None:
        result = where(less(x, min), min, x)
    if max is not None:
        result = where(greater(result, max), max, result)
    return astype(result, x.dtype)


def copysign(x1: V | Number, x2: V | Number, /) -> V:
    """The magnitude of x1 with the sign of x2."""
    return Copysign()(*common(x1, x2))


def cos(x: V, /) -> V:
    """The cosine of x radians."""
    return _float1(Cos(), x)


def cosh(x: V, /) -> V:
    """The hyperbolic cosine of x."""
    return _float1(Cosh(), x)


@operator
def divide(x1: V | Number, x2: V | Number, /) -> V:
    """x1 / x2; integers are divided as float32."""
    x, y = common(x1, x2)
    return Divide()(inexact(x), inexact(y))


def equal(x1: V | Number, x2: V | Number, /) -> V:
    """Whether x1 == x2, elementwise."""
    return Equal()(*common(x1, x2))


def erf(x: V, /) -> V:
    """The error function, 2 / sqrt(pi) times the integral of exp(-s**2) from 0 to x."""
    return _float1(Erf(), x)


def exp(x: V, /) -> V:
    """e**x."""
    return _float1(Exp(), x)


def expm1(x: V, /) -> V:
    """e**x - 1, accurate for small x."""
    return _float1(Expm1(), x)


def floor(x: V, /) -> V:
    """The largest integer not above x, in x's dtype."""
    return Floor()(x) if x.dtype.is_float else x.fresh()


@operator
def floor_divide(x1: V | Number, x2: V | Number, /) -> V:
    """floor(x1 / x2)."""
    return FloorDivide()(*common(x1, x2))


@operator
def greater(x1: V | Number, x2: V | Number, /) -> V:
    """Whether x1 > x2, elementwise."""
    return Greater()(*common(x1, x2))


@operator
def greater_equal(x1: V | Number, x2: V | Number, /) -> V:
    """Whether x1 >= x2, elementwise."""
    return GreaterEqual()(*common(x1, x2))


def hypot(x1: V | Number, x2: V | Number, /) -> V:
    """sqrt(x1**2 + x2**2) without overflow."""
    return Hypot()(*common(x1, x2))


def isfinite(x: V, /) -> V:
    """Whether x is neither NaN nor infinite."""
    return Isfinite()(x)


def isinf(x: V, /) -> V:
    """Whether x is an infinity."""
    return Isinf()(x)


def isnan(x: V, /) -> V:
    """Whether x is NaN."""
    return Isnan()(x)


@operator
def less(x1: V | Number, x2: V | Number, /) -> V:
    """Whether x1 < x2, elementwise."""
    return Less()(*common(x1, x2))


@operator
def less_equal(x1: V | Number, x2: V | Number, /) -> V:
    """Whether x1 <= x2, elementwise."""
    return LessEqual()(*common(x1, x2))


def log(x: V, /) -> V:
    """The natural logarithm of x."""
    return _float1(Log(), x)


def log1p(x: V, /) -> V:
    """log(1 + x), accurate for small x."""
    return _float1(Log1p(), x)


def log2(x: V, /) -> V:
    """The logarithm of x to base 2."""
    return _float1(Log2(), x)


def log10(x: V, /) -> V:
    """The logarithm of x to base 10."""
    return _float1(Log10(), x)


def logaddexp(x1: V | Number, x2: V | Number, /) -> V:
    """log(exp(x1) + exp(x2)) without overflow."""
    x, y = common(x1, x2)
    return Logaddexp()(inexact(x), inexact(y))


def logical_and(x1: V | Number, x2: V | Number, /) -> V:
    """Whether both x1 and x2 are true."""
    return LogicalAnd()(*common(x1, x2))


def logical_not(x: V, /) -> V:
    """Whether x is false."""
    return LogicalNot()(x)


def logical_or(x1: V | Number, x2: V | Number, /) -> V:
    """Whether x1 or x2 is true."""
    return LogicalOr()(*common(x1, x2))


def logical_xor(x1: V | Number, x2: V | Number, /) -> V:
    """Whether exactly one of x1 and x2 is true."""
    return LogicalXor()(*common(x1, x2))


def maximum(x1: V | Number, x2: V | Number, /) -> V:
    """The larger of x1 and x2; NaN if either is NaN."""
    x, y = common(x1, x2)
    return LogicalOr()(x, y) if x.dtype is t.bool_ else Maximum()(x, y)


def minimum(x1: V | Number, x2: V | Number, /) -> V:
    """The smaller of x1 and x2; NaN if either is NaN."""
    x, y = common(x1, x2)
    return LogicalAnd()(x, y) if x.dtype is t.bool_ else Minimum()(x, y)


@operator
def multiply(x1: V | Number, x2: V | Number, /) -> V:
    """x1 * x2; of booleans, their logical and."""
    x, y = common(x1, x2)
    return LogicalAnd()(x, y) if x.dtype is t.bool_ else Multiply()(x, y)


@operator
def negative(x: V, /) -> V:
    """-x."""
    return Negative()(x)


def nextafter(x1: V | Number, x2: V | Number, /) -> V:
    """The next number after x1 in the direction of x2."""
    return Nextafter()(*common(x1, x2))


def not_equal(x1: V | Number, x2: V | Number, /) -> V:
    """Whether x1 != x2, elementwise."""
    return NotEqual()(*common(x1, x2))


def positive(x: V, /) -> V:
    """x."""
    return x.fresh()


@operator
def pow(x1: V | Number, x2: V | Number, /) -> V:
    """x1**x2. A Python integer as exponent is part of the graph and costs multiplications only."""
    if isinstance(x1, Operators) and isinstance(x2, int) and not isinstance(x2, bool) and -16 <= x2 <= 16:
        if x2 == 1:
            return x1.fresh()
        return Square()(x1) if x2 == 2 else IntegerPower(x2)(x1)
    return Power()(*common(x1, x2))


def reciprocal(x: V, /) -> V:
    """1 / x."""
    return _float1(Reciprocal(), x)


@operator
def remainder(x1: V | Number, x2: V | Number, /) -> V:
    """x1 - x2 * floor(x1 / x2), with the sign of x2."""
    return Remainder()(*common(x1, x2))


def round(x: V, /) -> V:
    """x to the nearest integer, ties to even, in x's dtype."""
    return Round()(x) if x.dtype.is_float else x.fresh()


def sign(x: V, /) -> V:
    """-1, 0 or 1; NaN for NaN."""
    return Sign()(x)


def signbit(x: V, /) -> V:
    """Whether the sign bit of x is set."""
    return Signbit()(x)


def sin(x: V, /) -> V:
    """The sine of x radians."""
    return _float1(Sin(), x)


def sinh(x: V, /) -> V:
    """The hyperbolic sine of x."""
    return _float1(Sinh(), x)


def square(x: V, /) -> V:
    """x * x."""
    return Square()(x)


def sqrt(x: V, /) -> V:
    """The square root of x."""
    return _float1(Sqrt(), x)


@operator
def subtract(x1: V | Number, x2: V | Number, /) -> V:
    """x1 - x2."""
    return Subtract()(*common(x1, x2))


def tan(x: V, /) -> V:
    """The tangent of x radians."""
    return _float1(Tan(), x)


def tanh(x: V, /) -> V:
    """The hyperbolic tangent of x."""
    return _float1(Tanh(), x)


def trunc(x: V, /) -> V:
    """The integer nearest to x towards zero, in x's dtype."""
    return Trunc()(x) if x.dtype.is_float else x.fresh()


def where(condition: V, x1: V | Number, x2: V | Number, /) -> V:
    """x1 where the condition holds, else x2. DTypeError unless the condition is a tensor of booleans."""
    if not isinstance(condition, Operators):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DTypeError(f"where: the condition must be a tensor of booleans, not {type(condition).__name__}")
    if isinstance(x1, Operators) or isinstance(x2, Operators):
        x, y = common(x1, x2)
    else:
        dtype = number_dtype(x2, number_dtype(x1, t.bool_))
        x, y = condition.literal(x1, dtype), condition.literal(x2, dtype)
    return Where()(condition, x, y)


def sigmoid(x: V, /) -> V:
    """1 / (1 + exp(-x)), without overflow."""
    return _float1(Sigmoid(), x)


def relu(x: V, /) -> V:
    """max(x, 0), with derivative 0 at 0."""
    return Relu()(x)
