"""Every public function: NumPy's values, and gradients to second order. One expression serves both libraries."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from telegrad import ops
from telegrad.errors import DTypeError
from telegrad.ir import types as t
from telegrad.ops import activation, cross_entropy, linalg, loss, norm

from tests.ops.checks import Array, call, check_gradients, generator
from tests.ops.operands import Operand, booleans, integers, number, positive, real, values

Row = tuple[Callable[..., Any], tuple[Operand, ...]]
"""An expression in a library (`telegrad.ops` or NumPy) and operands, and the operands."""


def rows(expression: Callable[..., Any], *operands: Operand) -> list[Row]:
    return [(expression, operands)]


def over_axes(name: str, *axes: Any, operand: Operand) -> list[Row]:
    """A reduction over each of these axes, with and without keepdims."""

    def reduce(axis: Any, keepdims: bool) -> Callable[..., Any]:
        return lambda m, x: getattr(m, name)(x, axis=axis, keepdims=keepdims)

    return [(reduce(axis, keepdims), (operand,)) for axis in axes for keepdims in (False, True)]


def named(name: str, *operands: Operand) -> list[Row]:
    return [(lambda m, *xs: getattr(m, name)(*xs), operands)]


AXES = (None, 0, -1, (0, 2), (-1, 1), ())
CUBE = real(2, 3, 2)
SPARSE = values([1.5, 0.0, -2.0], [0.25, 0.0, 1.5])
REPEATED = values([3, 0, -2], [9, 0, 3], dtype=np.int64)


def sized(m: Any, size: int) -> dict[str, int]:
    """A graph must be told how many elements there will be; NumPy sees it."""
    return {"size": size} if m is ops else {}


POSITION = values([1, -1], [0, 2], dtype=np.int64)

ARRAY_API: dict[str, list[Row]] = {
    **{
        name: named(name, real(2, 3))
        for name in ["abs", "cos", "cosh", "exp", "expm1", "sin", "sinh", "square", "tanh", "atan", "asinh"]
    },
    **{name: named(name, positive(4)) for name in ["log", "log1p", "log2", "log10", "sqrt", "reciprocal"]},
    **{name: named(name, real(4, low=-0.9, high=0.9)) for name in ["acos", "asin", "atanh", "tan"]},
    **{
        name: named(name, real(5))
        for name in ["ceil", "floor", "trunc", "round", "sign", "signbit", "isnan", "isinf", "isfinite"]
    },
    **{name: named(name, real(2, 1), real(3)) for name in ["add", "subtract", "multiply", "minimum", "maximum"]},
    **{
        name: named(name, real(2, 1), positive(3)) for name in ["divide", "floor_divide", "remainder", "atan2", "hypot"]
    },
    **{name: named(name, real(3), real(1)) for name in ["copysign", "logaddexp", "nextafter"]},
    **{name: named(name, integers(9), integers(9)) for name in ["equal", "not_equal", "less", "less_equal", "greater"]},
    **{name: named(name, booleans(9), booleans(9)) for name in ["logical_and", "logical_or", "logical_xor"]},
    **{name: named(name, integers(9), integers(9)) for name in ["bitwise_and", "bitwise_or", "bitwise_xor"]},
    **{name: named(name, integers(9), integers(9, low=0)) for name in ("bitwise_left_shift", "bitwise_right_shift")},
    "acosh": named("acosh", real(3, low=1.5, high=3.0)),
    "greater_equal": named("greater_equal", real(2, 1), real(3)),
    "logical_not": named("logical_not", booleans(4)),
    "bitwise_invert": [*named("bitwise_invert", integers(4)), *named("bitwise_invert", booleans(4))],
    "negative": named("negative", real(3)),
    "positive": named("positive", real(3)),
    "pow": [
        *named("pow", positive(2, 1), real(3)),
        *[(lambda m, x, n=n: m.pow(x, n), (positive(3),)) for n in (-2, -1, 0, 1, 2, 3, 16, 17, 0.5)],
        *rows(lambda m, x: m.pow(2.0, x), real(3)),
        *rows(lambda m, x: x**3 - 2**x, real(3)),
    ],
    "clip": [
        *rows(lambda m, x: m.clip(x, -0.5, 1.0), real(6)),
        *rows(lambda m, x: m.clip(x, None, 1.0), real(6)),
        *rows(lambda m, x, low: m.clip(x, low, None), real(2, 3), real(3)),
        *rows(lambda m, x: m.clip(x, -1, 2), integers(9)),
    ],
    "where": rows(lambda m, c, x: m.where(c, x, 0.0), booleans(2, 1), real(3)),
    "astype": rows(lambda m, x: m.astype(x, t.float64 if m is ops else np.float64), real(3)),
    # reductions
    **{name: over_axes(name, *AXES, operand=CUBE) for name in ("sum", "mean", "var", "std", "prod")},
    **{name: over_axes(name, *AXES[:-1], operand=CUBE) for name in ("max", "min")},
    **{name: over_axes(name, *AXES, operand=booleans(2, 3, 2)) for name in ("all", "any")},
    **{name: over_axes(name, None, 0, -2, operand=CUBE) for name in ("argmax", "argmin")},
    "count_nonzero": over_axes("count_nonzero", *AXES[:-1], operand=integers(2, 3, 2, low=-1, high=2)),
    "cumulative_sum": [
        *[(lambda m, x, a=a: m.cumulative_sum(x, axis=a), (CUBE,)) for a in (0, 1, -1)],
        *rows(lambda m, x: m.cumulative_sum(x), integers(5, dtype=np.int8)),
        *rows(lambda m, x: m.cumulative_sum(x, axis=1, include_initial=True), real(2, 3)),
    ],
    "cumulative_prod": [
        *[(lambda m, x, a=a: m.cumulative_prod(x, axis=a), (CUBE,)) for a in (0, 1, -1)],
        *rows(lambda m, x: m.cumulative_prod(x, axis=0, include_initial=True), real(3, 2)),
    ],
    # moving elements
    "reshape": [(lambda m, x, s=s: m.reshape(x, s), (CUBE,)) for s in ((3, 4), (-1,), (2, -1), -1, (12, 1))],
    "broadcast_to": rows(lambda m, x: m.broadcast_to(x, (2, 3, 2)), real(3, 1)),
    "broadcast_arrays": rows(lambda m, x, y: list(m.broadcast_arrays(x, y)), real(3, 1), real(2)),
    "permute_dims": [(lambda m, x, a=a: m.permute_dims(x, a), (CUBE,)) for a in ((2, 0, 1), (0, 1, 2), (-1, 0, -2))],
    "matrix_transpose": named("matrix_transpose", CUBE),
    "moveaxis": [(lambda m, x, a=a: m.moveaxis(x, *a), (CUBE,)) for a in ((0, -1), (2, 0), ((0, 1), (-1, 0)))],
    "expand_dims": [(lambda m, x, a=a: m.expand_dims(x, axis=a), (real(2, 3),)) for a in (0, -1, 1, (0, -1), (1, 2))],
    "squeeze": [(lambda m, x, a=a: m.squeeze(x, axis=a), (real(1, 2, 1),)) for a in (0, -1, (0, 2), ())],
    "concat": [
        *rows(lambda m, x, y: m.concat([x, y], axis=-1), real(2, 1), real(2, 2)),
        *rows(lambda m, x, y: m.concat([x, y], axis=None), real(2, 1), real(3)),
        *rows(lambda m, x, y: m.concat([x, y, x]), real(2), integers(3)),
        *rows(lambda m, x: m.concat([x]), real(2)),
    ],
    "stack": [(lambda m, x, y, a=a: m.stack([x, y], axis=a), (real(2, 3), real(2, 3))) for a in (0, 1, -1)],
    "unstack": [(lambda m, x, a=a: list(m.unstack(x, axis=a)), (CUBE,)) for a in (0, 1, -1)],
    "flip": [(lambda m, x, a=a: m.flip(x, axis=a), (CUBE,)) for a in (None, 0, -1, (0, 2), ())],
    "roll": [
        *[(lambda m, x, s=s: m.roll(x, s), (CUBE,)) for s in (0, 1, -5, 100)],
        *[(lambda m, x, s=s, a=a: m.roll(x, s, axis=a), (CUBE,)) for s, a in ((1, 1), (-2, -1), ((1, 2), (0, 1)))],
        *rows(lambda m, x: m.roll(x, 1, axis=0), real(0, 2)),
    ],
    "tile": [(lambda m, x, r=r: m.tile(x, r), (real(2, 3),)) for r in ((2,), (2, 1, 2), (1, 0), ())],
    "repeat": [
        *[(lambda m, x, a=a: m.repeat(x, 2, axis=a), (real(2, 3),)) for a in (None, 0, -1)],
        *[(lambda m, x, n=n: m.repeat(x, n, axis=1), (real(2, 3),)) for n in ([2, 0, 1], [3], [0, 0, 0])],
    ],
    # the parts of a complex number
    **{name: named(name, real(2)) for name in ("conj", "real", "imag")},
    # what has a shape that data decides
    "nonzero": [
        *rows(lambda m, x: list(m.nonzero(x, **sized(m, 4))), SPARSE),
        *rows(lambda m, x: list(m.nonzero(m.equal(x, 0), **sized(m, 2))), SPARSE),
    ],
    **{
        name: [
            *rows(lambda m, x, name=name: list(getattr(m, name)(x, **sized(m, 4))), REPEATED),
            *rows(lambda m, x, name=name: list(getattr(m, name)(x, **sized(m, 6))), real(2, 3)),
        ]
        for name in ("unique_all", "unique_counts", "unique_inverse")
    },
    "unique_values": [
        *rows(lambda m, x: m.sort(m.unique_values(x, **sized(m, 4))), REPEATED),
        *rows(lambda m, x: m.sort(m.unique_values(x, **sized(m, 6))), real(2, 3)),
    ],
    "pad": rows(
        lambda m, x: m.pad(x, ((1, 0), (0, 2)), **({"value": 2.0} if m is ops else {"constant_values": 2.0})),
        real(2, 2),
    ),
    "tril": [(lambda m, x, k=k: m.tril(x, k=k), (real(3, 4),)) for k in (-1, 0, 1)],
    "triu": [(lambda m, x, k=k: m.triu(x, k=k), (real(2, 3, 3),)) for k in (-1, 0, 1)],
    "zeros_like": named("zeros_like", real(2)),
    "ones_like": named("ones_like", integers(2)),
    "full_like": rows(lambda m, x: m.full_like(x, 1.5), real(2)),
    "flatten": rows(lambda m, x: ops.flatten(x) if m is ops else x.flatten(), CUBE),
    # products
    "matmul": [
        (lambda m, x, y: m.matmul(x, y), (real(*a), real(*b)))
        for a, b in (
            ((3,), (3,)),
            ((2, 3), (3,)),
            ((3,), (3, 2)),
            ((2, 2, 3), (3,)),
            ((3,), (2, 3, 2)),
            ((2, 1, 2, 3), (2, 3, 2)),
        )
    ],
    "vecdot": [
        *rows(lambda m, x, y: m.vecdot(x, y), real(2, 3), real(3)),
        *rows(lambda m, x, y: m.vecdot(x, y, axis=-2), real(3, 2), real(3, 1)),
    ],
    "tensordot": [
        (lambda m, x, y, n=n: m.tensordot(x, y, axes=n), (real(2, 3, 2), real(*s)))
        for n, s in ((0, (2,)), (1, (2, 2)), (2, (3, 2, 2)), (((0, 1), (1, 0)), (3, 2)), (((-1,), (0,)), (2, 3)))
    ],
    "outer": named("outer", real(2), real(3)),
    "kron": [
        (lambda m, x, y: m.kron(x, y), (real(*a), real(*b)))
        for a, b in (((2,), (3,)), ((2, 3), (2,)), ((2,), (3, 2)), ((2, 1, 2), (2, 2)), ((0, 2), (2, 2)), ((), (2,)))
    ],
    "diag": [(lambda m, x, k=k: m.diag(x, k), (real(*s),)) for s in ((3,), (2, 3)) for k in (-1, 0, 2)],
    "cross": [
        *rows(lambda m, x, y: m.cross(x, y), real(3), real(3)),
        *rows(lambda m, x, y: m.cross(x, y), real(2, 3), real(3)),
    ],
    "einsum": [
        (lambda m, *xs, s=s: m.einsum(s, *xs), tuple(real(*shape) for shape in shapes))
        for s, shapes in (
            ("ij,jk", ((2, 3), (3, 2))),
            ("ba", ((2, 3),)),
            ("ii", ((3, 3),)),
            ("iii->i", ((2, 2, 2),)),
            ("i->", ((3,),)),
            (",i->i", ((), (3,))),
            ("i,i,i", ((3,), (3,), (3,))),
            ("b i j , b j k -> b i k", ((2, 2, 3), (2, 3, 2))),
            ("...,...", ((2, 3), (3,))),
            ("...i,...i->...", ((2, 1, 3), (2, 3))),
            ("i...->...i", ((2, 3, 2),)),
            ("ij...,jk...->ik...", ((2, 3, 2), (3, 2, 1))),
            ("ab,cd,ef->fdb", ((2, 1), (1, 3), (2, 2))),
            ("aB,Bc->ca", ((2, 3), (3, 2))),
            ("ij,jk->ik", ((0, 3), (3, 2))),
            ("ij,jk->ik", ((2, 0), (0, 3))),
            ("ij,ij->i", ((2, 1), (2, 3))),
        )
    ]
    + [(lambda m, x, y: m.einsum("ij,jk", x, y), (integers(2, 3), integers(3, 2)))],
    # by index
    "take": [
        *[(lambda m, x, i, a=a: m.take(x, i, axis=a), (CUBE, number([1, 0, -1]))) for a in (0, 1, -1)],
        *rows(lambda m, x, i: m.take(x, i, axis=1), CUBE, POSITION),
        *rows(lambda m, x, i: m.take(x, i), real(4), integers(5, low=-4, high=4)),
    ],
    "take_along_axis": [
        *rows(lambda m, x, i: m.take_along_axis(x, i, axis=1), real(2, 3), POSITION),
        *rows(lambda m, x, i: m.take_along_axis(x, i, axis=-1), real(1, 3), POSITION),
        *rows(lambda m, x, i: m.take_along_axis(x, i, axis=0), real(2, 3), number([[1, 0, 1]])),
    ],
    "argsort": rows(lambda m, x: m.argsort(x, axis=0), real(4, 2)),
    "searchsorted": [
        (
            lambda m, x, y, s=s: m.searchsorted(x, y, side=s),
            (values(-1.0, 0.0, 0.0, 2.0), values([-2.0, 0.0], [1.0, 3.0])),
        )
        for s in ("left", "right")
    ]
    + rows(lambda m, x, y, i: m.searchsorted(x, y, sorter=i), values(2.0, -1.0, 0.0), real(3), number([1, 2, 0])),
    "isin": [
        (lambda m, x, y, n=n: m.isin(x, y, invert=n), operands)
        for n in (False, True)
        for operands in (
            (integers(2, 5), integers(4)),
            (values(1.0, np.nan, 2.0), values(np.nan, 2.0)),
            (integers(3), integers(0)),
            (integers(0), integers(3)),
            (booleans(4), values(True, dtype=bool)),
        )
    ],
    "diff": [
        *((lambda m, x, a=a, n=n: m.diff(x, axis=a, n=n), (CUBE,)) for a in (0, 1, -1) for n in (0, 1, 2)),
        *rows(lambda m, x, a, b: m.diff(x, prepend=a, append=b), real(2, 3), real(2, 1), real(2, 2)),
        *rows(lambda m, x: m.diff(x), booleans(5)),
        *rows(lambda m, x: m.diff(x, n=4), real(3)),
    ],
    "sort": [(lambda m, x, a=a: m.sort(x, axis=a), (real(4, 3),)) for a in (0, -1)],
}


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0)


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[float])(x)


def _logsumexp(x: Array, **how: Any) -> Array:
    return np.log(np.sum(np.exp(x), **how))


def _cross_entropy(x: Array, y: Array) -> Array:
    p = np.exp(x - _logsumexp(x, axis=1, keepdims=True))
    return -np.mean(np.log(np.take_along_axis(p, np.expand_dims(y, 1), axis=1)))


Ours = list[tuple[Callable[..., Any], Callable[..., Any], tuple[Operand, ...]]]
ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[[Array], Array]]] = {
    "celu": (lambda x: activation.celu(x, 1.5), lambda x: np.where(x > 0, x, 1.5 * np.expm1(x / 1.5))),
    "elu": (lambda x: activation.elu(x, 0.7), lambda x: np.where(x > 0, x, 0.7 * np.expm1(x))),
    "gelu": (activation.gelu, lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2)))),
    "gelu_tanh": (
        lambda x: activation.gelu(x, "tanh"),
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "hardsigmoid": (activation.hardsigmoid, lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    "hardswish": (activation.hardswish, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "hardtanh": (activation.hardtanh, lambda x: np.clip(x, -1, 1)),
    "leaky_relu": (lambda x: activation.leaky_relu(x, 0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
    "log_sigmoid": (activation.log_sigmoid, lambda x: -_softplus(-x)),
    "mish": (activation.mish, lambda x: x * np.tanh(_softplus(x))),
    "relu6": (activation.relu6, lambda x: np.clip(x, 0, 6)),
    "selu": (
        activation.selu,
        lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    ),
    "silu": (activation.silu, lambda x: x / (1 + np.exp(-x))),
    "softplus": (
        lambda x: activation.softplus(x, 2.0, 3.0),
        lambda x: np.where(2 * x > 3, x, _softplus(2 * x) / 2),
    ),
    "softsign": (activation.softsign, lambda x: x / (1 + np.abs(x))),
}

OURS: dict[str, Ours] = {
    "erf": [(ops.erf, _erf, (real(3),))],
    "digamma": [(lambda x: ops.digamma(x + 1) - ops.digamma(x), lambda x: 1 / x, (positive(5),))],
    "erfinv": [(lambda x: ops.erfinv(ops.erf(x)), lambda x: x, (real(3),))],
    "lgamma": [(lambda x: ops.exp(ops.lgamma(x + 1) - ops.lgamma(x)), lambda x: x, (positive(5),))],
    "median": [(lambda x: ops.median(x, axis=1), lambda x: np.median(x, axis=1), (CUBE,))],
    "mode": [(lambda x: ops.mode(x)[0], lambda x: x.min(-1), (CUBE,))],
    "quantile": [(lambda x: ops.quantile(x, 0.3), lambda x: np.quantile(x, 0.3), (CUBE,))],
    "trigamma": [(lambda x: ops.trigamma(x) - ops.trigamma(x + 1), lambda x: 1 / x**2, (positive(5),))],
    "relu": [(ops.relu, lambda x: np.maximum(x, 0), (real(5),))],
    "sigmoid": [(ops.sigmoid, lambda x: 1 / (1 + np.exp(-x)), (real(5),))],
    "stop_gradient": [(ops.stop_gradient, lambda x: x, (integers(2),))],
    "logsumexp": [
        (
            lambda x, a=a, k=k: ops.logsumexp(x, axis=a, keepdims=k),
            lambda x, a=a, k=k: _logsumexp(x, axis=a, keepdims=k),
            (CUBE,),
        )
        for a in AXES
        for k in (False, True)
    ],
    "softmax": [
        (
            lambda x, a=a: ops.softmax(x, axis=a),
            lambda x, a=a: np.exp(x - _logsumexp(x, axis=a, keepdims=True)),
            (CUBE,),
        )
        for a in (0, 1, -1)
    ],
    "log_softmax": [
        (lambda x, a=a: ops.log_softmax(x, axis=a), lambda x, a=a: x - _logsumexp(x, axis=a, keepdims=True), (CUBE,))
        for a in (0, -2)
    ],
    "one_hot": [
        (
            lambda i: ops.one_hot(i, 4),
            lambda i: np.eye(4, dtype=np.float32)[i],
            (integers(2, 3, low=0, high=4, dtype=np.uint8),),
        )
    ],
    "scatter_add": [
        (
            lambda x, i: ops.scatter_add(x, i, rows=3),
            lambda x, i: np.eye(3)[i].T @ x,
            (real(4, 2), integers(4, low=0, high=3)),
        )
    ],
    "empty_like": [(ops.empty_like, np.zeros_like, (real(2),))],
    "diag_embed": [
        (lambda x, k=k: ops.diag_embed(x, offset=k), lambda x, k=k: np.stack([np.diag(a, k) for a in x]), (real(2, 3),))
        for k in (-2, 0, 1)
    ],
    "diagonal": [
        (lambda x, k=k: linalg.diagonal(x, offset=k), lambda x, k=k: np.linalg.diagonal(x, offset=k), (real(2, 3, 4),))
        for k in (-3, -2, -1, 0, 1, 3, 4)
    ],
    "trace": [(lambda x: linalg.trace(x, offset=1), lambda x: np.linalg.trace(x, offset=1), (real(2, 3, 4),))],
    "argsort_descending": [
        (lambda x: ops.argsort(x, descending=True), lambda x: np.argsort(-x, kind="stable"), (integers(9),))
    ],
    "sort_descending": [(lambda x: ops.sort(x, descending=True), lambda x: -np.sort(-x), (real(2, 5),))],
    **{name: [(ours, reference, (real(7, low=-4.0, high=4.0),))] for name, (ours, reference) in ACTIVATIONS.items()},
    # losses: against their definitions; test_against_torch has the rest
    "mse_loss": [(loss.mse_loss, lambda x, y: np.mean((x - y) ** 2), (real(2, 3), real(2, 3)))],
    "l1_loss": [(loss.l1_loss, lambda x, y: np.mean(np.abs(x - y)), (real(2, 3), real(2, 3)))],
    "smooth_l1_loss": [
        (
            lambda x, y: loss.smooth_l1_loss(x, y, beta=0.7, reduction="sum"),
            lambda x, y: np.sum(np.where(np.abs(x - y) < 0.7, (x - y) ** 2 / 1.4, np.abs(x - y) - 0.35)),
            (real(9), real(9)),
        )
    ],
    "huber_loss": [
        (
            lambda x, y: loss.huber_loss(x, y, delta=0.7, reduction="none"),
            lambda x, y: np.where(np.abs(x - y) <= 0.7, (x - y) ** 2 / 2, 0.7 * (np.abs(x - y) - 0.35)),
            (real(9), real(9)),
        )
    ],
    "binary_cross_entropy": [
        (
            loss.binary_cross_entropy,
            lambda p, y: -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)),
            (real(4, low=0.1, high=0.9), real(4, low=0.0, high=1.0)),
        )
    ],
    "binary_cross_entropy_with_logits": [
        (
            loss.binary_cross_entropy_with_logits,
            lambda x, y: np.mean(y * _softplus(-x) + (1 - y) * _softplus(x)),
            (real(5), real(5, low=0.0, high=1.0)),
        )
    ],
    "kl_div": [
        (
            lambda x, y: loss.kl_div(x, y, reduction="batchmean"),
            lambda x, y: np.sum(y * (np.log(y) - x)) / 2,
            (real(2, 3), positive(2, 3)),
        )
    ],
    "cross_entropy": [
        (cross_entropy.cross_entropy, _cross_entropy, (real(3, 4), integers(3, low=0, high=4))),
        (cross_entropy.cross_entropy, _cross_entropy, (real(2, 3, 2), integers(2, 2, low=0, high=3))),
    ],
    "nll_loss": [
        (
            cross_entropy.nll_loss,
            lambda x, y: -np.mean(np.take_along_axis(x, y[:, None], 1)),
            (real(3, 4), integers(3, low=0, high=4)),
        )
    ],
    "topk": [
        (
            lambda x, k=k, a=a, up=up, i=i: ops.topk(x, k, axis=a, largest=up)[i],
            lambda x, k=k, a=a, up=up, i=i: np.take(
                np.sort(x, axis=a)
                if i == 0 and not up
                else -np.sort(-x, axis=a)
                if i == 0
                else np.argsort(-x if up else x, axis=a, kind="stable"),
                np.arange(k),
                axis=a,
            ),
            (real(3, 4),),
        )
        for i in (0, 1)
        for k, a, up in ((2, -1, True), (3, 0, False), (0, 1, True))
    ],
    "layer_norm": [
        (
            lambda x, w, b: norm.layer_norm(x, (3,), w, b),
            lambda x, w, b: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b,
            (real(2, 3), real(3), real(3)),
        )
    ],
    "rms_norm": [
        (
            lambda x, w: norm.rms_norm(x, (3,), w),
            lambda x, w: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * w,
            (real(2, 3), real(3)),
        )
    ],
}


def test_every_public_function_has_a_row() -> None:
    assert set(ops.__all__) <= set(ARRAY_API) | set(OURS)


@pytest.mark.parametrize(
    "row", [pytest.param(r, id=f"{n}-{i}") for n, rs in ARRAY_API.items() for i, r in enumerate(rs)]
)
def test_array_api_functions_follow_numpy(row: Row, request: pytest.FixtureRequest) -> None:
    expression, operands = row
    _check(request.node.name, lambda *xs: expression(ops, *xs), lambda *xs: expression(np, *xs), operands)


@pytest.mark.parametrize("row", [pytest.param(r, id=f"{n}-{i}") for n, rs in OURS.items() for i, r in enumerate(rs)])
def test_other_functions_follow_their_definition(row: tuple[Any, Any, Any], request: pytest.FixtureRequest) -> None:
    _check(request.node.name, *row)


def _check(name: str, ours: Callable[..., Any], theirs: Callable[..., Any], operands: tuple[Operand, ...]) -> None:
    rng = generator(name)
    arrays = [make(rng) for make in operands]

    with np.errstate(all="ignore"):
        wanted = theirs(*arrays)
    found = call(ours, *arrays)

    several = isinstance(wanted, list)
    for array, reference in zip(found if several else [found], wanted if several else [wanted], strict=True):
        reference = np.asarray(reference)
        assert (array.shape, array.dtype) == (reference.shape, reference.dtype)
        np.testing.assert_allclose(array, reference, rtol=1e-12, atol=1e-12)
    check_gradients(ours, arrays, name=name)


def test_where_wants_a_tensor_for_its_condition() -> None:
    with pytest.raises(DTypeError, match="a tensor of booleans, not bool"):
        ops.where(True, 1.0, 2.0)  # type: ignore[type-var]
