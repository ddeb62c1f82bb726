"""Facts of the elementwise ops. References are Python's own arithmetic and `math`, one element at a time."""

from __future__ import annotations

import math
import operator as py
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from telegrad.errors import AxisError, DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Op
from telegrad.ir.types import DType
from telegrad.ops import elementwise as e

from tests.ops.checks import Array
from tests.ops.operands import Operand, booleans, integers, positive, real, values
from tests.ops.registry.facts import (
    ANY,
    FLOATS,
    INTEGERS,
    NO_AXES,
    NO_MATRICES,
    NO_OPERANDS,
    NO_SUMS,
    NUMBERS,
    ONE_OPERAND,
    SPACINGS,
    Facts,
    Refusal,
    Sample,
    per_result,
    refuse,
    scalars,
    ty,
)

Draw = Callable[..., Operand]

ELEMENTWISE = {**NO_AXES, **NO_MATRICES, **NO_SUMS}
HUGE = 2**40


def small(*shape: int) -> Operand:
    return real(*shape, low=-0.9, high=0.9)


def above_one(*shape: int) -> Operand:
    return real(*shape, low=1.5, high=3.0)


def exponents(*shape: int) -> Operand:
    """Not negative: integers have no negative powers."""
    return real(*shape, low=0.1, high=3.0)


def natural(*shape: int) -> Operand:
    return integers(*shape, low=0)


def _arity(op: Op, *counts: int, dtype: DType) -> list[Refusal]:
    return [refuse(GraphError, f"{op.name} takes . operands, not {n}", op, *[ty(2, dtype=dtype)] * n) for n in counts]


def _wrong_dtype(op: Op, count: int, dtypes: tuple[DType, ...]) -> list[Refusal]:
    wrong = [dtype for dtype in (t.bool_, t.int64, t.float32) if dtype not in dtypes][:1]
    return [
        refuse(DTypeError, f"{op.name}.*: takes (uint|float|bool)", op, *[ty(2, dtype=dtype)] * count)
        for dtype in wrong
    ]


def unary(
    op: Op,
    draw: Draw,
    reference: Callable[..., Any],
    *,
    dtypes: tuple[DType, ...] = FLOATS,
    at: tuple[Any, ...] = (),
    has_gradient: bool = True,
    spacings: Mapping[DType, float] = SPACINGS,
) -> Facts:
    """An op of one operand; ``at`` are its kinks and other special points."""
    samples = [Sample(op, (draw(*shape),)) for shape in ((5,), (2, 3), (), (0,), (2, 0))]
    if at:
        samples.append(Sample(op, (values(*at),), is_smooth=False))
    return Facts(
        samples=tuple(samples),
        refusals=(*_arity(op, 0, 2, 3, dtype=dtypes[0]), *_wrong_dtype(op, 1, dtypes)),
        reference=scalars(reference),
        dtypes=dtypes,
        spacings=spacings,
        is_elementwise=True,
        differentiable=(0,) if has_gradient else (),
        flops=per_result,
        without={**ELEMENTWISE, **ONE_OPERAND, "ties": "an element meets no other"},
    )


SHAPES = (((3,), (3,)), ((2, 3), (3,)), ((1,), (2, 3)), ((2, 1), (1, 3)), ((), (2,)), ((), ()), ((2, 0), (1,)))
"""Of one shape, broadcast on the right, on the left, on both sides; numbers; nothing."""


def binary(
    op: Op,
    x: Draw,
    y: Draw,
    reference: Callable[..., Any],
    *,
    dtypes: tuple[DType, ...] = FLOATS,
    differentiable: tuple[int, ...] = (0, 1),
    is_smooth_at_ties: bool = True,
    at: tuple[tuple[float, float], ...] = (),
    spacings: Mapping[DType, float] = SPACINGS,
) -> Facts:
    """An op of two operands of one dtype; ``at`` are special points."""
    tied = y(4)  # in the domain of both
    equal = (lambda rng: tied(np.random.default_rng(7)),) * 2
    samples = [Sample(op, (x(*a), y(*b))) for a, b in SHAPES]
    samples.append(Sample(op, equal, is_smooth=is_smooth_at_ties))
    if at:
        samples.append(Sample(op, tuple([values(*points) for points in zip(*at, strict=True)]), is_smooth=False))
    return Facts(
        samples=tuple(samples),
        refusals=(
            *_arity(op, 1, 3, dtype=dtypes[0]),
            *_wrong_dtype(op, 2, dtypes),
            refuse(DTypeError, "dtypes must be equal; use astype", op, ty(2, dtype=dtypes[0]), ty(2)),
            refuse(
                ShapeError,
                r"\(\[2, 3\], \[4\]\): axis -1 has sizes \(3, 4\); they must be equal or 1",
                op,
                ty(2, 3, dtype=dtypes[0]),
                ty(4, dtype=dtypes[0]),
            ),
            refuse(
                ShapeError,
                "more elements than can be addressed",
                op,
                ty(HUGE, 1, dtype=dtypes[0]),
                ty(1, HUGE, dtype=dtypes[0]),
            ),
        ),
        reference=scalars(reference),
        dtypes=dtypes,
        spacings=spacings,
        is_elementwise=True,
        differentiable=differentiable,
        flops=per_result,
        without=ELEMENTWISE,
    )


def compare(op: Op, reference: Callable[..., bool]) -> Facts:
    """A comparison: of every dtype."""
    return binary(op, integers, integers, reference, dtypes=ANY, differentiable=(), at=SPECIAL)


def logic(op: Op, reference: Callable[..., bool]) -> Facts:
    facts = binary(op, booleans, booleans, reference, dtypes=(t.bool_,), differentiable=())
    return replace(facts, without={**ELEMENTWISE, "ties": "booleans are always tied"})


def bits(op: Op, reference: Callable[..., int], y: Draw = integers) -> Facts:
    dtypes = INTEGERS if y is natural else (*INTEGERS, t.bool_)
    return binary(op, integers, y, reference, dtypes=dtypes, differentiable=())


INF, NAN = math.inf, math.nan
SPECIAL = ((NAN, NAN), (NAN, 1.0), (1.0, NAN), (INF, INF), (INF, -INF), (0.0, -0.0), (-INF, 2.0), (2.0, INF))
BEYOND = ((NAN, 1.0), (1.0, NAN), (INF, INF), (-INF, 2.0), (2.0, INF))
"""Without what Python's arithmetic refuses where IEEE's has an answer."""


def _smaller(x: float, y: float) -> float:
    return x + y if x != x or y != y else min(x, y)


def _larger(x: float, y: float) -> float:
    return x + y if x != x or y != y else max(x, y)


def _sign(x: float) -> float:
    return x if x != x else (x > 0) - (x < 0)


def _log_of_sum(x: float, y: float) -> float:
    return x if x == y and math.isinf(x) else _larger(x, y) + math.log1p(math.exp(-abs(x - y)))


def _power() -> Facts:
    facts = binary(e.Power(), positive, exponents, pow, dtypes=NUMBERS)
    return replace(facts, samples=(*facts.samples, Sample(e.Power(), (positive(2, 3), real(3)))))


def _integer_power() -> Facts:
    facts = unary(e.IntegerPower(3), real, lambda x: x**3, dtypes=NUMBERS, at=(0.0, 1.0, -2.0))
    op = e.IntegerPower
    return replace(
        facts,
        samples=(*facts.samples, *(Sample(op(n), (positive(3),)) for n in (-3, -2, -1, 0, 1, 2, 4, 13))),
        refusals=(
            *facts.refusals,
            refuse(DTypeError, "needs a floating-point base", op(-1), ty(2, dtype=t.int64)),
            refuse(DTypeError, "beyond 1024", op(5000), ty(2)),
        ),
        reference=lambda op, x: scalars(lambda v: v**op.exponent)(op, x),
        spacings={**SPACINGS, t.float16: 8, t.bfloat16: 8},  # each multiplication rounds to 16 bits
        differentiable=lambda op: (0,) if op.exponent else (),
        flops=lambda op, x: 2 * math.ceil(math.log2(abs(op.exponent) + 1)) * math.prod(x.shape),
    )


def _where() -> Facts:
    op = e.Where()
    shapes = (
        ((2, 3), (2, 3), (2, 3)),
        ((3, 1), (1, 2), ()),
        ((), (2,), (3, 1)),
        ((), (), ()),
        ((2, 0), (1,), (2, 1)),
    )
    boolean = ty(2, dtype=t.bool_)
    return Facts(
        samples=(
            *(Sample(op, (booleans(*a), real(*b), real(*c))) for a, b, c in shapes),
            Sample(op, (booleans(3), values(1.0, 2.0, 3.0), values(1.0, 2.0, 3.0))),
        ),
        refusals=(
            refuse(DTypeError, "takes a bool condition", op, ty(2), ty(2), ty(2)),
            refuse(DTypeError, "two values of one dtype", op, boolean, ty(2), ty(2, dtype=t.float64)),
            refuse(ShapeError, "they must be equal or 1", op, boolean, ty(3), ty(2)),
            refuse(GraphError, "where takes 3 operands, not 2", op, boolean, ty(2)),
            refuse(
                ShapeError, "more elements than can be addressed", op, ty(HUGE, 1, dtype=t.bool_), ty(1, HUGE), ty()
            ),
        ),
        reference=scalars(lambda condition, x, y: x if condition else y),
        dtypes=ANY,
        is_elementwise=True,
        differentiable=(1, 2),
        flops=per_result,
        without=ELEMENTWISE,
    )


def _cast() -> Facts:
    def reference(op: e.Cast, x: Array) -> Array:
        convert = float if op.dtype.is_float else bool if op.dtype.kind == "bool" else int  # int truncates as C does
        return scalars(convert)(op, x)

    made = [
        Sample(e.Cast(t.float64), (real(3),)),
        Sample(e.Cast(t.float32), (real(2, 3),), is_smooth=False),
        Sample(e.Cast(t.float16), (real(2, 3),), is_smooth=False),
        Sample(e.Cast(t.bfloat16), (values(1.0, 1.0078125, 257.0, -0.3),), is_smooth=False),
        Sample(e.Cast(t.int32), (real(3),)),
        Sample(e.Cast(t.bool_), (integers(5),)),
        Sample(e.Cast(t.float64), (integers(3),)),
        Sample(e.Cast(t.int64), (booleans(3),)),
        Sample(e.Cast(t.float64), (real(),)),
        Sample(e.Cast(t.float64), (real(2, 0),)),
    ]
    return Facts(
        samples=tuple(made),
        refusals=(
            refuse(GraphError, "cast does not take 0 operands", e.Cast(t.float64)),
            refuse(GraphError, "cast does not take 2 operands", e.Cast(t.float64), ty(), ty()),
            refuse(GraphError, "cast does not take 3 operands", e.Cast(t.int8), ty(), ty(), ty()),
        ),
        reference=reference,
        dtypes=ANY,
        is_elementwise=True,
        differentiable=(0,),
        flops=per_result,
        without={**ELEMENTWISE, **ONE_OPERAND, "ties": "an element meets no other"},
    )


def _constant() -> Facts:
    made = ((1.5, t.float64), (-3, t.int64), (True, t.bool_), (INF, t.float64), (0.1, t.float16), (7, t.uint8))
    op = e.Constant
    return Facts(
        samples=tuple(Sample(op(value, dtype)) for value, dtype in made),
        refusals=(
            refuse(DTypeError, "300 does not fit uint8", op(300, t.uint8)),
            refuse(DTypeError, "-1 does not fit uint64", op(-1, t.uint64)),
            refuse(DTypeError, "1.5 does not fit int64", op(1.5, t.int64)),
            refuse(GraphError, "constant does not take 1 operands", op(1, t.int64), ty()),
        ),
        reference=lambda op: np.array(op.value, object),
        dtypes=(),
        differentiable=(),
        flops=lambda op: 1,
        without=NO_OPERANDS,
    )


def _iota() -> Facts:
    op = e.Iota
    shapes = ((2, 3), 1), ((2, 3), 0), ((0,), 0), ((3, 1, 2), 2), ((2, 0), 0)
    return Facts(
        samples=tuple(
            Sample(op(shape, axis, dtype)) for (shape, axis), dtype in zip(shapes, (*FLOATS, t.uint8), strict=True)
        ),
        refusals=(
            refuse(ShapeError, "iota: axis 0 has negative size -1", op((-1,), 0, t.int64)),
            refuse(ShapeError, "more elements than can be addressed", op((2**62,), 0, t.int64)),
            refuse(AxisError, "iota: axis 1", op((2,), 1, t.int64)),
            refuse(DTypeError, "not booleans", op((2,), 0, t.bool_)),
        ),
        reference=lambda op: np.indices(op.shape)[op.axis],
        dtypes=(),
        differentiable=(),
        flops=lambda op: math.prod(op.shape),
        without=NO_OPERANDS,
    )


ROUGH = {**SPACINGS, t.float64: 32, t.float32: 32}
"""For functions whose relative error grows where they are near 0."""

ROWS = [
    # arithmetic
    binary(e.Add(), real, real, py.add, dtypes=NUMBERS, at=SPECIAL, spacings=ROUGH),
    binary(e.Subtract(), real, real, py.sub, dtypes=NUMBERS, at=SPECIAL, spacings=ROUGH),
    binary(e.Multiply(), real, real, py.mul, dtypes=NUMBERS, at=SPECIAL),
    binary(e.Divide(), real, positive, py.truediv, at=BEYOND),
    binary(e.FloorDivide(), real, above_one, py.floordiv, dtypes=NUMBERS, differentiable=(), is_smooth_at_ties=False),
    binary(e.Remainder(), real, above_one, py.mod, dtypes=NUMBERS, is_smooth_at_ties=False, spacings=ROUGH),
    _power(),
    _integer_power(),
    unary(e.Negative(), real, py.neg, dtypes=NUMBERS, at=(0.0, -0.0, INF, NAN)),
    unary(e.Abs(), real, abs, dtypes=NUMBERS, at=(0.0, -0.0, -INF, NAN)),
    unary(e.Sign(), real, _sign, dtypes=NUMBERS, at=(0.0, -0.0, -INF, NAN), has_gradient=False),
    unary(e.Square(), real, lambda x: x * x, dtypes=NUMBERS, at=(0.0, -INF, NAN)),
    unary(e.Reciprocal(), positive, lambda x: 1 / x, at=(INF, -INF, NAN)),
    binary(e.Minimum(), real, real, _smaller, dtypes=NUMBERS, is_smooth_at_ties=False, at=SPECIAL),
    binary(e.Maximum(), real, real, _larger, dtypes=NUMBERS, is_smooth_at_ties=False, at=SPECIAL),
    # functions
    unary(e.Exp(), real, math.exp, at=(0.0, -INF, INF, NAN)),
    unary(e.Expm1(), real, math.expm1, at=(0.0, 1e-4, -INF, NAN)),
    unary(e.Log(), positive, math.log, at=(1.0, INF, NAN), spacings=ROUGH),
    unary(e.Log1p(), positive, math.log1p, at=(0.0, 1e-4, INF, NAN)),
    unary(e.Log2(), positive, math.log2, at=(1.0, 8.0, INF, NAN), spacings=ROUGH),
    unary(e.Log10(), positive, math.log10, at=(1.0, 1000.0, INF, NAN), spacings=ROUGH),
    unary(e.Sqrt(), positive, math.sqrt, at=(0.0, INF, NAN)),
    unary(e.Sin(), real, math.sin, at=(0.0, NAN)),
    unary(e.Cos(), real, math.cos, at=(0.0, NAN), spacings=ROUGH),
    unary(e.Tan(), small, math.tan, at=(0.0, NAN)),
    unary(e.Asin(), small, math.asin, at=(0.0, 1.0, -1.0, NAN)),
    unary(e.Acos(), small, math.acos, at=(0.0, 1.0, -1.0, NAN)),
    unary(e.Atan(), real, math.atan, at=(0.0, INF, NAN)),
    unary(e.Sinh(), real, math.sinh, at=(0.0, NAN)),
    unary(e.Cosh(), real, math.cosh, at=(0.0, NAN)),
    unary(e.Tanh(), real, math.tanh, at=(0.0, INF, 30.0, NAN)),
    unary(e.Asinh(), real, math.asinh, at=(0.0, INF, NAN)),
    unary(e.Acosh(), above_one, math.acosh, at=(1.0, INF, NAN)),
    unary(e.Atanh(), small, math.atanh, at=(0.0, NAN)),
    binary(e.Atan2(), real, positive, math.atan2, at=(*SPECIAL, (-0.0, 1.0), (0.0, -1.0))),
    binary(e.Hypot(), real, positive, math.hypot, at=(*SPECIAL, (INF, NAN), (3e4, 3e4))),
    binary(e.Logaddexp(), real, real, _log_of_sum, at=SPECIAL, spacings=ROUGH),
    unary(e.Erf(), real, math.erf, at=(0.0, 6.0, -INF, NAN)),
    unary(e.Sigmoid(), real, lambda x: 1 / (1 + math.exp(-x)), at=(0.0, 40.0, -40.0, INF, NAN)),
    unary(e.Relu(), real, lambda x: x if x > 0 or x != x else 0.0, at=(0.0, -INF, INF, NAN)),
    # rounding
    unary(e.Floor(), real, math.floor, dtypes=NUMBERS, at=(1.0, -1.0, -0.5), has_gradient=False),
    unary(e.Ceil(), real, math.ceil, dtypes=NUMBERS, at=(1.0, -1.0, -0.5), has_gradient=False),
    unary(e.Trunc(), real, math.trunc, dtypes=NUMBERS, at=(1.0, -1.0, -0.5), has_gradient=False),
    unary(e.Round(), real, round, dtypes=NUMBERS, at=(0.5, 1.5, -2.5), has_gradient=False),
    binary(e.Nextafter(), real, real, math.nextafter, differentiable=(0,), at=BEYOND[:3]),
    binary(e.Copysign(), real, real, math.copysign, differentiable=(0,), at=SPECIAL[1:]),
    # predicates, logic, bits, choice
    compare(e.Equal(), py.eq),
    compare(e.NotEqual(), py.ne),
    compare(e.Less(), py.lt),
    compare(e.LessEqual(), py.le),
    compare(e.Greater(), py.gt),
    compare(e.GreaterEqual(), py.ge),
    unary(e.Isnan(), real, math.isnan, dtypes=ANY, at=(NAN, INF, 0.0), has_gradient=False),
    unary(e.Isinf(), real, math.isinf, dtypes=ANY, at=(NAN, -INF, 0.0), has_gradient=False),
    unary(e.Isfinite(), real, math.isfinite, dtypes=ANY, at=(NAN, INF, 0.0), has_gradient=False),
    unary(e.Signbit(), real, lambda x: math.copysign(1, x) < 0, at=(-0.0, 0.0, -INF), has_gradient=False),
    logic(e.LogicalAnd(), lambda x, y: x and y),
    logic(e.LogicalOr(), lambda x, y: x or y),
    logic(e.LogicalXor(), py.ne),
    unary(e.LogicalNot(), booleans, py.not_, dtypes=(t.bool_,), has_gradient=False),
    bits(e.BitwiseAnd(), py.and_),
    bits(e.BitwiseOr(), py.or_),
    bits(e.BitwiseXor(), py.xor),
    unary(
        e.BitwiseInvert(),
        integers,
        lambda x: not x if isinstance(x, bool) else ~x,
        dtypes=(*INTEGERS, t.bool_),
        has_gradient=False,
    ),
    bits(e.BitwiseLeftShift(), py.lshift, natural),
    bits(e.BitwiseRightShift(), py.rshift, natural),
    _where(),
    _cast(),
    _constant(),
    _iota(),
]
