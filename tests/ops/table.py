"""CASES: one row per op. What is generated from a row is in `test_ops`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from telegrad.ir import types as t
from telegrad.ir.op import Op
from telegrad.ops import (
    attention,
    control,
    convolution,
    cross_entropy,
    decompositions,
    determinants,
    index,
    linalg,
    pooling,
    probability,
    random,
    reduce,
    searching,
    shape,
    slices,
    sparse,
    systems,
)
from telegrad.ops import elementwise as e

from tests.ops.checks import Array

Operand = Callable[[np.random.Generator], Array]


def real(*shape: int, low: float = -2.0, high: float = 2.0) -> Operand:
    """Uniform float64 numbers."""
    return lambda rng: rng.uniform(low, high, shape)


def positive(*shape: int) -> Operand:
    return real(*shape, low=0.5, high=2.0)


def values(*numbers: Any, dtype: Any = np.float64) -> Operand:
    """These very numbers."""
    return lambda rng: np.array(numbers, dtype)


def number(x: Any, dtype: Any = np.int64) -> Operand:
    """A 0-d operand."""
    return lambda rng: np.array(x, dtype)


def integers(*shape: int, low: int = -4, high: int = 5, dtype: Any = np.int64) -> Operand:
    return lambda rng: rng.integers(low, high, shape).astype(dtype)


def booleans(*shape: int) -> Operand:
    return lambda rng: rng.integers(0, 2, shape) == 1


def definite(*shape: int) -> Operand:
    """Stacks of positive definite matrices, the upper triangle being noise: ops read the lower."""

    def make(rng: np.random.Generator) -> Array:
        x = rng.uniform(-1.0, 1.0, shape)
        return np.tril(x @ np.swapaxes(x, -1, -2) + np.eye(shape[-1])) + np.triu(rng.uniform(-1.0, 1.0, shape), 1)

    return make


def regular(*shape: int) -> Operand:
    """Stacks of matrices, not symmetric, that are far from singular."""
    return lambda rng: rng.uniform(-1.0, 1.0, shape) + 3.0 * np.eye(*shape[-2:])


def with_singular_values(*numbers: float, rows: int, columns: int) -> Operand:
    """A matrix with these singular values."""

    def make(rng: np.random.Generator) -> Array:
        u, _, vt = np.linalg.svd(rng.normal(size=(rows, columns)), full_matrices=False)
        return (u * np.array(numbers)) @ vt

    return make


def key(rng: np.random.Generator) -> Array:
    return rng.integers(0, 2**32, 4, dtype=np.uint64).astype(np.uint32)


@dataclass(frozen=True)
class Case:
    """An op, its operands, and NumPy's word for it, if there is one. ``tolerance`` is that of the gradients.

    ``is_smooth`` says whether finite differences mean anything at these operands.
    """

    op: Op
    operands: tuple[Operand, ...] = ()
    expected: Callable[..., Any] | None = None
    tolerance: float = 1e-6
    is_smooth: bool = True


def case(
    op: Op,
    *operands: Operand,
    expected: Callable[..., Any] | None = None,
    tolerance: float = 1e-6,
    is_smooth: bool = True,
) -> Case:
    return Case(op, operands, expected, tolerance, is_smooth)


def _unary(op: Op, operand: Operand, expected: Callable[..., Any]) -> list[Case]:
    return [case(op, operand, expected=expected)]


def _binary(op: Op, x: Callable[..., Operand], y: Callable[..., Operand], expected: Any) -> list[Case]:
    """Both operands of one shape, and broadcast on the right, on the left, and on both sides."""
    shapes = [((3,), (3,)), ((2, 3), (3,)), ((1,), (2, 3)), ((2, 1), (1, 3)), ((), (2,))]
    return [case(op, x(*a), y(*b), expected=expected) for a, b in shapes]


def _erf(x: Array) -> Array:
    import math

    return np.vectorize(math.erf, otypes=[float])(x)


def _softmax(x: Array, axis: int) -> Array:
    p = np.exp(x - x.max(axis=axis, keepdims=True))
    return p / p.sum(axis=axis, keepdims=True)


def _scatter_add(x: Array, i: Array, rows: int) -> Array:
    out = np.zeros((rows, *x.shape[i.ndim :]))
    np.add.at(out, i, x)
    return out


def _scatter_set(x: Array, i: Array, y: Array) -> Array:
    out = x.copy()
    for at in np.ndindex(i.shape):
        out[i[at]] = y[at]
    return out


def _add_along(x: Array, i: Array) -> Array:
    out = np.zeros((x.shape[0], 4))
    for a, b in np.ndindex(x.shape):
        out[a, i[a, b]] += x[a, b]
    return out


def _unsliced(x: Array) -> Array:
    out = np.zeros((5, 4))
    out[4:0:-2, 1:3] = x
    return out


def _slice_set(x: Array, y: Array) -> Array:
    out = x.copy()
    out[3:0:-2, 1:3] = y
    return out


def _cross_entropy(x: Array, labels: Array) -> list[Array]:
    total = np.log(np.exp(x).sum(1))
    return [total - np.take_along_axis(x, labels[:, None], 1)[:, 0], total]


def _mirrored(x: Array) -> Array:
    return np.tril(x) + np.swapaxes(np.tril(x, -1), -1, -2)


def _triangle(x: Array, op: systems.TriangularSolve) -> Array:
    x = np.tril(x) if op.lower else np.triu(x)
    if op.unit:
        x = x - x * np.eye(x.shape[-1]) + np.eye(x.shape[-1])
    return np.swapaxes(x, -1, -2) if op.transposed else x


def _sparse_matmul(values: Array, rows: Array, columns: Array, x: Array) -> Array:
    matrix = np.zeros((3, 4))
    np.add.at(matrix, (rows, columns), values)
    return matrix @ x


def _expm(x: Array) -> Array:
    """By the series, for small matrices."""
    total = term = np.broadcast_to(np.eye(x.shape[-1]), x.shape)
    for k in range(1, 60):
        term = term @ x / k
        total = total + term
    return total


_ZEROS = values([0.0, 2.0, -1.5], [0.0, 0.0, 3.0], [1.0, 2.0, 0.5])  # one zero in a line, two, none


def _attention(q: Array, k: Array, v: Array) -> list[Array]:
    scores = q @ k.T * 0.7
    return [_softmax(scores, -1) @ v, np.log(np.exp(scores).sum(-1))]


def _windows(op: type[Any], *, weight: bool = False, size: bool = False) -> list[Case]:
    """One, two and three axes, with strides, uneven padding, dilation, groups, and no samples."""
    cases: list[Case] = []
    for n, channels, outputs, groups, spatial, kernel, stride, before, after, dilation in (
        (2, 2, 3, 1, (5,), (3,), (1,), (0,), (0,), (1,)),
        (2, 4, 2, 2, (6,), (2,), (2,), (1,), (0,), (2,)),
        (1, 2, 2, 2, (4, 5), (3, 2), (2, 1), (1, 0), (2, 1), (1, 2)),
        (1, 1, 2, 1, (3, 2, 3), (2, 1, 2), (1, 1, 2), (0, 0, 1), (1, 0, 0), (1, 1, 1)),
        (0, 2, 2, 1, (4,), (2,), (1,), (0,), (0,), (1,)),
    ):
        geometry = (stride, before, after, dilation, groups)
        out = convolution.positions("", spatial, kernel, stride, before, after, dilation)
        x, w, y = real(n, channels, *spatial), real(outputs, channels // groups, *kernel), real(n, outputs, *out)
        if weight:
            cases.append(case(op(*geometry, kernel=kernel), x, y))
        elif size:
            cases.append(case(op(*geometry, size=spatial), y, w))
        else:
            cases.append(case(op(*geometry), x, w))
    return cases


CASES: dict[str, list[Case]] = {
    # arithmetic
    "add": _binary(e.Add(), real, real, np.add),
    "subtract": _binary(e.Subtract(), real, real, np.subtract),
    "multiply": _binary(e.Multiply(), real, real, np.multiply),
    "divide": _binary(e.Divide(), real, positive, np.divide),
    "floor_divide": [
        *_binary(e.FloorDivide(), real, positive, np.floor_divide),
        case(e.FloorDivide(), integers(5), integers(5, low=1)),
    ],
    "remainder": [
        *_binary(e.Remainder(), real, positive, np.remainder),
        case(e.Remainder(), integers(5), integers(5, low=1)),
    ],
    "power": [
        *_binary(e.Power(), positive, real, np.power),
        case(e.Power(), integers(4), integers(4, low=0), expected=np.power),
    ],
    "integer_power": [
        case(e.IntegerPower(n), positive(3), expected=lambda x, n=n: x**n) for n in (-3, -2, -1, 0, 1, 3, 4, 13)
    ]
    + [case(e.IntegerPower(3), values(-1.0, 0.0, 2.0), expected=lambda x: x**3)],
    "negative": _unary(e.Negative(), real(3), np.negative),
    "abs": _unary(e.Abs(), real(4), np.abs),
    "sign": _unary(e.Sign(), real(4), np.sign),
    "square": _unary(e.Square(), real(4), np.square),
    "reciprocal": _unary(e.Reciprocal(), positive(3), np.reciprocal),
    "minimum": [
        *_binary(e.Minimum(), real, real, np.minimum),
        case(e.Minimum(), integers(4), integers(4), expected=np.minimum),
    ],
    "maximum": [
        *_binary(e.Maximum(), real, real, np.maximum),
        case(e.Maximum(), integers(4), integers(4), expected=np.maximum),
    ],
    # functions
    "exp": _unary(e.Exp(), real(3), np.exp),
    "expm1": _unary(e.Expm1(), real(3), np.expm1),
    "log": _unary(e.Log(), positive(3), np.log),
    "log1p": _unary(e.Log1p(), positive(3), np.log1p),
    "log2": _unary(e.Log2(), positive(3), np.log2),
    "log10": _unary(e.Log10(), positive(3), np.log10),
    "sqrt": _unary(e.Sqrt(), positive(3), np.sqrt),
    "sin": _unary(e.Sin(), real(3), np.sin),
    "cos": _unary(e.Cos(), real(3), np.cos),
    "tan": _unary(e.Tan(), real(3, low=-1.2, high=1.2), np.tan),
    "asin": _unary(e.Asin(), real(3, low=-0.9, high=0.9), np.arcsin),
    "acos": _unary(e.Acos(), real(3, low=-0.9, high=0.9), np.arccos),
    "atan": _unary(e.Atan(), real(3), np.arctan),
    "sinh": _unary(e.Sinh(), real(3), np.sinh),
    "cosh": _unary(e.Cosh(), real(3), np.cosh),
    "tanh": _unary(e.Tanh(), real(3), np.tanh),
    "asinh": _unary(e.Asinh(), real(3), np.arcsinh),
    "acosh": _unary(e.Acosh(), real(3, low=1.5, high=3.0), np.arccosh),
    "atanh": _unary(e.Atanh(), real(3, low=-0.9, high=0.9), np.arctanh),
    "atan2": _binary(e.Atan2(), real, positive, np.arctan2),
    "hypot": _binary(e.Hypot(), real, positive, np.hypot),
    "logaddexp": [
        *_binary(e.Logaddexp(), real, real, np.logaddexp),
        case(e.Logaddexp(), values(0.0, 1.5), values(0.0, 1.5), expected=np.logaddexp),
    ],
    "erf": _unary(e.Erf(), real(3), _erf),
    "sigmoid": _unary(e.Sigmoid(), real(4, low=-5.0, high=5.0), lambda x: 1 / (1 + np.exp(-x))),
    "relu": _unary(e.Relu(), real(4), lambda x: np.maximum(x, 0)),
    # rounding, predicates, logic, bits, choice
    "floor": _unary(e.Floor(), real(4), np.floor),
    "ceil": _unary(e.Ceil(), real(4), np.ceil),
    "trunc": _unary(e.Trunc(), real(4), np.trunc),
    "round": [
        case(e.Round(), real(4), expected=np.round),
        case(e.Round(), values(0.5, 1.5, -2.5), expected=np.round, is_smooth=False),
    ],
    "nextafter": _binary(e.Nextafter(), real, real, np.nextafter),
    "copysign": _binary(e.Copysign(), real, real, np.copysign),
    "equal": [case(e.Equal(), integers(6), integers(6), expected=np.equal), case(e.Equal(), real(2, 1), real(3))],
    "not_equal": [case(e.NotEqual(), integers(6), integers(6), expected=np.not_equal)],
    "less": [*_binary(e.Less(), real, real, np.less), case(e.Less(), booleans(4), booleans(4), expected=np.less)],
    "less_equal": [case(e.LessEqual(), integers(6), integers(6), expected=np.less_equal)],
    "greater": [case(e.Greater(), real(2, 3), real(3), expected=np.greater)],
    "greater_equal": [case(e.GreaterEqual(), integers(6), integers(6), expected=np.greater_equal)],
    "isnan": [
        case(e.Isnan(), values(1.0, np.nan, np.inf), expected=np.isnan),
        case(e.Isnan(), integers(3), expected=np.isnan),
    ],
    "isinf": [case(e.Isinf(), values(1.0, np.nan, -np.inf), expected=np.isinf)],
    "isfinite": [case(e.Isfinite(), values(1.0, np.nan, np.inf), expected=np.isfinite)],
    "signbit": [case(e.Signbit(), values(1.0, -0.0, -np.inf), expected=np.signbit)],
    "logical_and": [case(e.LogicalAnd(), booleans(5), booleans(5), expected=np.logical_and)],
    "logical_or": [case(e.LogicalOr(), booleans(5), booleans(5), expected=np.logical_or)],
    "logical_xor": [case(e.LogicalXor(), booleans(5), booleans(5), expected=np.logical_xor)],
    "logical_not": [case(e.LogicalNot(), booleans(5), expected=np.logical_not)],
    "bitwise_and": [case(e.BitwiseAnd(), integers(5), integers(5), expected=np.bitwise_and)],
    "bitwise_or": [case(e.BitwiseOr(), integers(5), integers(5), expected=np.bitwise_or)],
    "bitwise_xor": [case(e.BitwiseXor(), integers(5), integers(5), expected=np.bitwise_xor)],
    "bitwise_invert": [case(e.BitwiseInvert(), integers(5), expected=np.invert)],
    "bitwise_left_shift": [case(e.BitwiseLeftShift(), integers(5), integers(5, low=0), expected=np.left_shift)],
    "bitwise_right_shift": [case(e.BitwiseRightShift(), integers(5), integers(5, low=0), expected=np.right_shift)],
    "where": [
        case(e.Where(), booleans(2, 3), real(2, 3), real(2, 3), expected=np.where),
        case(e.Where(), booleans(3, 1), real(1, 2), real(), expected=np.where),
        case(e.Where(), booleans(), real(2), real(3, 1), expected=np.where),
    ],
    "cast": [
        case(e.Cast(t.float64), real(3), expected=lambda x: x),
        case(e.Cast(t.int32), real(3), expected=lambda x: x.astype(np.int32)),
        case(e.Cast(t.float64), integers(3), expected=lambda x: x.astype(np.float64)),
    ],
    "constant": [
        case(e.Constant(v, d), expected=lambda v=v: np.asarray(v))
        for v, d in ((1.5, t.float64), (-3, t.int64), (True, t.bool_), (float("inf"), t.float64))
    ],
    "iota": [
        case(e.Iota((2, 3), 1, t.int64), expected=lambda: np.array([[0, 1, 2]] * 2)),
        case(e.Iota((0,), 0, t.float64)),
    ],
    # reductions
    "sum": [
        case(reduce.Sum(axes, keep), real(2, 3, 2), expected=lambda x, a=axes, k=keep: x.sum(axis=a, keepdims=k))
        for axes in ((), (0,), (1, 2), (0, 1, 2))
        for keep in (False, True)
    ]
    + [
        case(reduce.Sum((0,)), real(0, 2), expected=lambda x: x.sum(0)),
        case(reduce.Sum((0,)), integers(4), expected=np.sum),
    ],
    "prod": [
        *[
            case(reduce.Prod(axes, keep), real(2, 3, 2), expected=lambda x, a=axes, k=keep: x.prod(axis=a, keepdims=k))
            for axes in ((), (0, 2), (0, 1, 2))
            for keep in (False, True)
        ],
        case(reduce.Prod((1,)), _ZEROS, expected=lambda x: x.prod(1)),
        case(reduce.Prod((0,)), real(5), expected=np.prod),
        case(reduce.Prod((0,)), real(0, 2), expected=lambda x: x.prod(0)),
        case(reduce.Prod((1,)), real(0, 2), expected=lambda x: x.prod(1)),
    ],
    "max": [
        case(reduce.Max(axes, keep), real(2, 3, 2), expected=lambda x, a=axes, k=keep: x.max(axis=a, keepdims=k))
        for axes in ((0,), (1, 2), (0, 1, 2))
        for keep in (False, True)
    ]
    + [case(reduce.Max((1,)), real(0, 2))],
    "min": [
        case(reduce.Min(axes, keep), real(2, 3, 2), expected=lambda x, a=axes, k=keep: x.min(axis=a, keepdims=k))
        for axes in ((0,), (1, 2), (0, 1, 2))
        for keep in (False, True)
    ]
    + [case(reduce.Min((1,)), integers(2, 3), expected=lambda x: x.min(1))],
    "all_true": [
        case(reduce.AllTrue((1,), k), booleans(3, 2), expected=lambda x, k=k: x.all(1, keepdims=k))
        for k in (False, True)
    ],
    "any_true": [
        case(reduce.AnyTrue((0, 1)), booleans(3, 2), expected=np.any),
        case(reduce.AnyTrue((0,)), booleans(0, 2)),
    ],
    "argmax": [
        case(reduce.Argmax(1), integers(3, 8), expected=lambda x: x.argmax(1)),
        case(reduce.Argmax(0), real(3, 2)),
    ],
    "argmin": [
        case(reduce.Argmin(1), integers(3, 8), expected=lambda x: x.argmin(1)),
        case(reduce.Argmin(1), real(0, 2)),
    ],
    "cumulative_sum": [case(reduce.CumulativeSum(a), real(2, 3), expected=lambda x, a=a: x.cumsum(a)) for a in (0, 1)]
    + [case(reduce.CumulativeSum(0), real(0, 2))],
    "cumulative_prod": [
        case(reduce.CumulativeProd(a), real(2, 5), expected=lambda x, a=a: x.cumprod(a)) for a in (0, 1)
    ]
    + [
        case(reduce.CumulativeProd(1), _ZEROS, expected=lambda x: x.cumprod(1)),
        case(reduce.CumulativeProd(1), real(2, 0)),
        case(reduce.CumulativeProd(0), real(1)),
    ],
    # moving elements
    "reshape": [
        case(shape.Reshape((3, 2)), real(2, 3), expected=lambda x: x.reshape(3, 2)),
        case(shape.Reshape((0, 5)), real(2, 0)),
        case(shape.Reshape(()), real(1, 1)),
    ],
    "broadcast_to": [
        case(shape.BroadcastTo((2, 3, 2)), real(3, 1), expected=lambda x: np.broadcast_to(x, (2, 3, 2))),
        case(shape.BroadcastTo((2, 0)), real(1)),
        case(shape.BroadcastTo((3,)), real()),
    ],
    "permute": [
        case(shape.Permute((2, 0, 1)), real(2, 3, 2), expected=lambda x: x.transpose(2, 0, 1)),
        case(shape.Permute(()), real()),
    ],
    "concat": [
        case(shape.Concat(1), real(2, 1), real(2, 3), real(2, 0), expected=lambda *x: np.concatenate(x, 1)),
        case(shape.Concat(0), real(2), expected=lambda x: x),
    ],
    "flip": [case(shape.Flip(a), real(2, 3), expected=lambda x, a=a: np.flip(x, a)) for a in ((), (1,), (0, 1))],
    "pad": [
        case(
            shape.Pad((1, 0), (0, 2), 1.5),
            real(2, 2),
            expected=lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=1.5),
        ),
        case(shape.Pad((2,), (0,)), real(0)),
    ],
    "tril": [case(shape.Tril(k), real(3, 4), expected=lambda x, k=k: np.tril(x, k)) for k in (-1, 0, 2)]
    + [case(shape.Tril(), real(2, 2, 2))],
    "triu": [case(shape.Triu(k), real(3, 4), expected=lambda x, k=k: np.triu(x, k)) for k in (-1, 0, 2)],
    "slice": [
        case(slices.Slice((4, 0), (-2, 3), (-2, 1)), real(5, 4), expected=lambda x: x[4::-2, 0:3]),
        case(slices.Slice((0, 3), (0, 4), (1, 1)), real(2, 4), expected=lambda x: x[:0, 3:4]),
        case(slices.Slice((-3,), (-5,), (1,)), real(4), expected=lambda x: x[:0]),
        case(slices.Slice((), (), ()), real(), expected=lambda x: x),
    ],
    "unslice": [
        case(slices.Unslice((4, 1), (0, 3), (-2, 1), (5, 4)), real(2, 2), expected=_unsliced),
        case(slices.Unslice((1,), (1,), (1,), (3,)), real(0)),
    ],
    "slice_set": [
        case(slices.SliceSet((3, 1), (0, 3), (-2, 1)), real(4, 3), real(2, 2), expected=_slice_set),
        case(slices.SliceSet((3, 1), (0, 3), (-2, 1)), real(4, 3), real(2, 1), expected=_slice_set),
        case(slices.SliceSet((3, 1), (0, 3), (-2, 1)), real(4, 3), real(), expected=_slice_set),
    ],
    # products of matrices
    "matmul": [
        case(linalg.Matmul(), real(*a), real(*b), expected=np.matmul)
        for a, b in (
            ((2, 3), (3, 2)),
            ((2, 2, 3), (3, 2)),
            ((2, 3), (2, 3, 1)),
            ((2, 1, 1, 3), (2, 3, 2)),
            ((0, 3), (3, 2)),
            ((2, 0), (0, 3)),
            ((0, 2, 3), (3, 1)),
        )
    ]
    + [case(linalg.Matmul(), integers(2, 3), integers(3, 2), expected=np.matmul)],
    "attention": [
        case(attention.Attention(0.7), real(3, 2), real(4, 2), real(4, 3), expected=_attention),
        case(attention.Attention(0.5, True), real(2, 3, 2), real(2, 4, 2), real(2, 4, 1)),
        case(attention.Attention(1.0), real(2, 2, 3, 2), real(2, 2, 2, 2), real(2, 2, 2, 2), real(2, 2, 3, 2)),
        case(attention.Attention(1.0), real(0, 3, 2), real(0, 2, 2), real(0, 2, 2)),
        case(attention.Attention(1.0), real(2, 3, 0), real(2, 2, 0), real(2, 2, 2)),
    ],
    # windows
    "convolution": _windows(convolution.Convolution),
    "convolution_input": _windows(convolution.ConvolutionInput, size=True),
    "convolution_weight": _windows(convolution.ConvolutionWeight, weight=True),
    "window_argmax": [
        case(
            pooling.WindowArgmax((2,), (1,), (0,), (0,), (1,)),
            values([[1.0, 3.0, 3.0, np.nan, 2.0]]),
            expected=lambda x: np.array([[[1, 1, 3, 3]]]),
        ),
        case(
            pooling.WindowArgmax((3,), (2,), (1,), (1,), (1,)),
            values([[-np.inf, -np.inf, -np.inf, 0.0, -1.0]]),
            expected=lambda x: np.array([[[0, 3, 3]]]),
        ),
        case(pooling.WindowArgmax((2, 3), (2, 1), (1, 1), (0, 1), (1, 1)), integers(2, 1, 3, 4)),
        case(pooling.WindowArgmax((2, 1, 2), (1, 1, 2), (0, 0, 0), (0, 0, 0), (1, 1, 1)), real(0, 2, 3, 2, 2)),
    ],
    # linear algebra: what only its shape makes a case of its own is in test_linalg
    "symmetric": [case(decompositions.Symmetric(), real(2, 3, 3), expected=_mirrored, is_smooth=False)],
    "cholesky": [
        case(decompositions.Cholesky(), definite(*s), expected=lambda x: np.linalg.cholesky(_mirrored(x)))
        for s in ((1, 1), (3, 3), (2, 3, 3), (0, 0), (0, 2, 2))
    ],
    "qr": [
        case(decompositions.Qr(), regular(*s), expected=lambda x: list(np.linalg.qr(x)))
        for s in ((3, 3), (4, 2), (2, 2, 4), (2, 3, 2), (3, 0), (0, 3), (0, 2, 2))
    ]
    + [case(decompositions.Qr(True), regular(2, 3), expected=lambda x: list(np.linalg.qr(x, "complete")))],
    "eigh": [
        case(decompositions.Eigh(), definite(*s), expected=lambda x: list(np.linalg.eigh(x)), tolerance=1e-5)
        for s in ((1, 1), (3, 3), (2, 2, 2), (0, 0))
    ],
    "eigvalsh": [
        case(decompositions.Eigvalsh(), definite(*s), expected=np.linalg.eigvalsh, tolerance=1e-5)
        for s in ((3, 3), (2, 2, 2), (0, 0))
    ],
    "svd": [
        case(decompositions.Svd(), regular(*s), expected=lambda x: list(np.linalg.svd(x, False)), tolerance=1e-5)
        for s in ((3, 3), (2, 2, 3), (2, 3, 2), (0, 3), (0, 2, 2))
    ]
    + [case(decompositions.Svd(True), regular(2, 2), expected=lambda x: list(np.linalg.svd(x)), tolerance=1e-5)],
    "svdvals": [
        case(decompositions.Svdvals(), regular(*s), expected=np.linalg.svdvals, tolerance=1e-5)
        for s in ((3, 3), (2, 2, 3), (3, 2), (3, 0))
    ],
    "solve": [
        case(systems.Solve(), regular(*a), real(*b), expected=np.linalg.solve)
        for a, b in (
            ((3, 3), (3, 2)),
            ((2, 3, 3), (3, 1)),
            ((2, 2), (3, 2, 1)),
            ((2, 1, 2, 2), (3, 2, 2)),
            ((0, 0), (0, 2)),
            ((2, 2), (2, 0)),
        )
    ],
    "triangular_solve": [
        case(op, regular(3, 3), real(2, 3, 2), expected=lambda x, y, op=op: np.linalg.solve(_triangle(x, op), y))
        for op in (systems.TriangularSolve(*flags) for flags in product((False, True), repeat=3))
    ]
    + [
        case(systems.TriangularSolve(True), regular(*a), real(*b))
        for a, b in (((2, 1, 2, 2), (2, 1)), ((0, 0), (0, 1)))
    ],
    "inv": [
        case(systems.Inv(), regular(*s), expected=np.linalg.inv) for s in ((1, 1), (3, 3), (2, 2, 2), (0, 0), (0, 2, 2))
    ],
    "slogdet": [
        case(determinants.Slogdet(), regular(*s), expected=lambda x: list(np.linalg.slogdet(x)))
        for s in ((1, 1), (3, 3), (2, 2, 2), (0, 0))
    ],
    "det": [
        case(determinants.Det(), x, expected=np.linalg.det)
        for x in (
            real(1, 1),
            real(3, 3),
            real(2, 4, 4),
            real(0, 0),
            with_singular_values(2.0, 1.0, 0.0, rows=3, columns=3),
            with_singular_values(2.0, 0.0, 0.0, rows=3, columns=3),
            with_singular_values(1.0, 1.0, 1.0, rows=3, columns=3),
            number(np.zeros((2, 2)), dtype=np.float64),
        )
    ],
    "cofactor": [
        case(
            determinants.Cofactor(),
            regular(*s),
            expected=lambda x: np.linalg.det(x)[..., None, None] * np.swapaxes(np.linalg.inv(x), -1, -2),
            tolerance=1e-5,
        )
        for s in ((1, 1), (3, 3), (2, 2, 2), (0, 0))
    ],
    "pinv": [
        case(systems.Pinv(1e-10), regular(*s), expected=np.linalg.pinv)
        for s in ((3, 3), (4, 2), (2, 4), (2, 2, 3), (3, 0), (0, 2, 2))
    ],
    "pinv_above": [
        case(systems.PinvAbove(), regular(*s), real(*s[:-2], low=0.0, high=1e-3), expected=np.linalg.pinv)
        for s in ((2, 2), (2, 2, 3), (0, 2, 2), (2, 3, 0))
    ],
    "matrix_exp": [
        case(systems.MatrixExp(), real(*s), expected=_expm, tolerance=1e-5) for s in ((1, 1), (3, 3), (2, 2, 2), (0, 0))
    ],
    # sparse
    "sparse_matmul": [
        case(sparse.SparseMatmul(3), real(n), number(rows), number(columns), real(4, k), expected=_sparse_matmul)
        for n, rows, columns, k in (
            (4, [2, 0, 2, 2], [0, 3, 0, 1], 2),
            (1, [1], [3], 1),
            (2, [0, 0], [1, 2], 0),
            (0, [], [], 3),
        )
    ],
    "sampled_matmul": [
        case(
            sparse.SampledMatmul(),
            real(3, k),
            real(4, k),
            number(rows),
            number(columns),
            expected=lambda x, y, rows, columns: np.einsum("ik,ik->i", x[rows], y[columns]),
        )
        for rows, columns, k in (([2, 0, 2, 2], [0, 3, 0, 1], 2), ([0], [1], 1), ([0, 0], [1, 2], 0), ([], [], 3))
    ],
    # by index
    "checked_index": [
        case(index.CheckedIndex(4), integers(6, low=-4, high=4), expected=lambda i: i % 4),
        case(index.CheckedIndex(4, False), integers(6, low=0, high=4, dtype=np.uint8)),
    ],
    "gather": [
        case(index.Gather(), real(4, 2), values([3, 0], [-1, 0], dtype=np.int64), expected=lambda x, i: x[i]),
        case(index.Gather(), real(4), number(1, dtype=np.int8), expected=lambda x, i: x[1]),
        case(index.Gather(), real(0, 2), integers(0)),
    ],
    "scatter_add": [
        case(
            index.ScatterAdd(3),
            real(2, 2, 2),
            values([2, 0], [-1, 2], dtype=np.int64),
            expected=lambda x, i: _scatter_add(x, i, 3),
        ),
        case(index.ScatterAdd(2), real(0, 2), integers(0)),
        case(index.ScatterAdd(2), real(), number(1)),
    ],
    "scatter_set": [
        case(
            index.ScatterSet(),
            real(4, 2),
            values([3, 0], [-1, 1], dtype=np.int64),
            real(2, 2, 2),
            expected=_scatter_set,
        ),
        case(index.ScatterSet(), real(3), integers(0), real(0), expected=_scatter_set),
    ],
    "take_along": [
        case(
            index.TakeAlong(1),
            real(2, 4),
            values([3, 0, 0], [-1, 1, 2], dtype=np.int64),
            expected=lambda x, i: np.take_along_axis(x, i, 1),
        )
    ],
    "add_along": [
        case(index.AddAlong(1, 4), real(2, 3), values([3, 0, 0], [-1, 1, 2], dtype=np.int64), expected=_add_along),
        case(index.AddAlong(1, 4), real(2, 1), values([3], [-1], dtype=np.int64), expected=_add_along),
    ],
    "argsort": [
        case(index.Argsort(1), integers(3, 9), expected=lambda x: np.argsort(x, 1, kind="stable")),
        case(index.Argsort(0, True), real(4, 2), expected=lambda x: np.argsort(-x, 0)),
        case(index.Argsort(0), values(1.0, np.nan, 0.0), expected=np.argsort),
    ],
    "searchsorted": [
        case(
            searching.Searchsorted(right),
            values(-1.0, 0.0, 0.0, 2.0, np.inf, np.nan),
            values([-2.0, 0.0, 1.0], [np.inf, np.nan, 2.0]),
            expected=lambda line, x, right=right: np.searchsorted(line, x, "right" if right else "left"),
        )
        for right in (False, True)
    ]
    + [case(searching.Searchsorted(), real(0), real(2, 2)), case(searching.Searchsorted(), integers(0), number(3))],
    # softmax and losses
    "softmax": [case(probability.Softmax(a), real(2, 3), expected=lambda x, a=a: _softmax(x, a)) for a in (0, 1)]
    + [case(probability.Softmax(1), real(2, 0))],
    "log_softmax": [
        case(probability.LogSoftmax(a), real(2, 3), expected=lambda x, a=a: np.log(_softmax(x, a))) for a in (0, 1)
    ]
    + [case(probability.LogSoftmax(0), real(0))],
    "softmax_cross_entropy": [
        case(cross_entropy.SoftmaxCrossEntropy(1), real(3, 4), integers(3, low=0, high=4), expected=_cross_entropy),
        case(cross_entropy.SoftmaxCrossEntropy(1), real(2, 3, 2), integers(2, 2, low=0, high=3)),
        case(cross_entropy.SoftmaxCrossEntropy(0), real(3), number(2, dtype=np.uint8)),
        case(cross_entropy.SoftmaxCrossEntropy(1), real(0, 3), integers(0)),
    ],
    # random numbers: no gradients; what they are is in test_random
    "random_bits": [case(random.RandomBits((2, 3), d, 7, 5), key) for d in (t.uint32, t.uint64)]
    + [case(random.RandomBits((0,)), key)],
    "random_uniform": [case(random.RandomUniform((2, 3), d, 7), key) for d in (t.float32, t.float64)],
    "random_normal": [case(random.RandomNormal((2, 3), d, 7), key) for d in (t.float32, t.float64)],
    # the graph itself
    "stop_gradient": [case(control.StopGradient(), integers(3), expected=lambda x: x)],
    "alias": [case(control.Alias(), real(3), expected=lambda x: x)],
    "barrier": [
        case(control.Barrier(2), real(3), real(2), real(1), expected=lambda *x: list(x[:2])),
        case(control.Barrier(1), real(3)),
    ],
}

ELSEWHERE = {
    "input": "every graph of these tests begins with inputs",
    "gradient": "test_control and test_autodiff",
    "checkpoint": "test_control",
    "custom_vjp": "test_control",
    "scan": "test_loops",
    "switch": "test_loops",
    "while": "test_loops",
    "fold_in": "test_random",
}
"""Ops that a row cannot describe, and where they are tested."""
