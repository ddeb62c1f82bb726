"""Facts of the three convolutions. The reference goes through every product that there is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from telegrad.errors import DTypeError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.ops import convolution as c

from tests.ops.checks import Array
from tests.ops.operands import real
from tests.ops.registry.facts import (
    FLOATS,
    LONG,
    NO_AXES,
    NO_BROADCAST,
    NO_MATRICES,
    NO_TIES,
    SPACINGS,
    Facts,
    Refusal,
    Sample,
    refuse,
    ty,
)

Shape = tuple[int, ...]
GEOMETRIES = (
    # samples, channels, outputs, groups, size, kernel, stride, before, after, dilation
    (2, 2, 3, 1, (5,), (3,), (1,), (0,), (0,), (1,)),
    (2, 4, 2, 2, (6,), (2,), (2,), (1,), (0,), (2,)),
    (1, 2, 2, 2, (4, 5), (3, 2), (2, 1), (1, 0), (2, 1), (1, 2)),
    (1, 1, 2, 1, (3, 2, 3), (2, 1, 2), (1, 1, 2), (0, 0, 1), (1, 0, 0), (1, 1, 1)),
    (0, 2, 2, 1, (4,), (2,), (1,), (0,), (0,), (1,)),
    (1, LONG, 1, 1, (2,), (2,), (1,), (0,), (0,), (1,)),
)


def count(n: int, k: int, stride: int, before: int, after: int, dilation: int) -> int:
    """How many windows of k fit along an axis of n."""
    return len(range(0, n + before + after - dilation * (k - 1), stride))


def _products(op: Any, x: Shape, w: Shape) -> Iterator[tuple[Any, Any, Any]]:
    """The places in x, w and y of every product, channels of a group at once."""
    per_group, outputs = w[1], w[0] // op.groups
    axes = list(zip(x[2:], w[2:], op.stride, op.before, op.after, op.dilation, strict=True))
    for position in product(*[range(count(*axis)) for axis in axes]):
        for tap in product(*[range(k) for _, k, *_ in axes]):
            at = [p * st - b + k * d for p, k, (_, _, st, b, _, d) in zip(position, tap, axes, strict=True)]
            if all(0 <= a < n for a, (n, *_) in zip(at, axes, strict=True)):
                for g in range(op.groups):
                    channels, out = slice(g * per_group, (g + 1) * per_group), slice(g * outputs, (g + 1) * outputs)
                    yield (slice(None), channels, *at), (out, slice(None), *tap), (slice(None), out, *position)


def _forward(op: c.Convolution, x: Array, w: Array) -> Array:
    axes = zip(x.shape[2:], w.shape[2:], op.stride, op.before, op.after, op.dilation, strict=True)
    y = np.zeros((len(x), len(w), *[count(*axis) for axis in axes]))
    for i, j, k in _products(op, x.shape, w.shape):
        y[k] += np.einsum("nc,oc->no", x[i], w[j])
    return y


def _input(op: c.ConvolutionInput, y: Array, w: Array) -> Array:
    x = np.zeros((len(y), w.shape[1] * op.groups, *op.size))
    for i, j, k in _products(op, x.shape, w.shape):
        x[i] += np.einsum("no,oc->nc", y[k], w[j])
    return x


def _weight(op: c.ConvolutionWeight, x: Array, y: Array) -> Array:
    w = np.zeros((y.shape[1], x.shape[1] // op.groups, *op.kernel))
    for i, j, k in _products(op, x.shape, w.shape):
        w[j] += np.einsum("nc,no->oc", x[i], y[k])
    return w


def _samples(op: Any) -> tuple[Sample, ...]:
    found: list[Sample] = []
    for n, channels, outputs, groups, size, kernel, *rest in GEOMETRIES:
        stride, before, after, dilation = rest
        axes = zip(size, kernel, *rest, strict=True)
        geometry = (stride, before, after, dilation, groups)
        low = 0.0 if channels == LONG else -2.0  # so that long sums do not cancel
        x, w = real(n, channels, *size, low=low), real(outputs, channels // groups, *kernel, low=low)
        y = real(n, outputs, *[count(*axis) for axis in axes])
        if op is c.Convolution:
            found.append(Sample(op(*geometry), (x, w)))
        elif op is c.ConvolutionInput:
            found.append(Sample(op(*geometry, size=size), (y, w)))
        else:
            found.append(Sample(op(*geometry, kernel=kernel), (x, y)))
    if op is c.ConvolutionInput:  # it adds up outputs and taps, not channels
        found[-1] = Sample(op(*ONE, size=(2,)), (real(1, LONG, 1, low=0.0), real(LONG, 1, 2, low=0.0)))
    if op is c.ConvolutionWeight:
        found[-1] = Sample(op(*ONE, kernel=(2,)), (real(1, 1, LONG + 1, low=0.0), real(1, 1, LONG, low=0.0)))
    return tuple(found)


ONE = ((1,), (0,), (0,), (1,))


def _refusals(op: Any, *good: Type) -> tuple[Refusal, ...]:
    wide = tuple(Type(x.shape, t.float64) for x in good)
    whole = [Type(x.shape, t.int64) for x in good]
    return (
        refuse(DTypeError, "two tensors of one floating-point dtype", op, good[0], wide[1]),
        refuse(DTypeError, "two tensors of one floating-point dtype", op, *whole),
        refuse(ShapeError, "3 to 5 axes", op, ty(2, 3), good[1]),
        refuse(ShapeError, "3 to 5 axes", op, good[0], ty(2, 3)),
    )


def _convolution(op: Any, good: Any, types: tuple[Type, ...], reference: Any, flops: Any, *more: Refusal) -> Facts:
    return Facts(
        samples=_samples(op),
        refusals=(*_refusals(good, *types), *more),
        reference=reference,
        dtypes=FLOATS,
        spacings={**SPACINGS, t.float64: 64, t.float32: 64},
        differentiable=(0, 1),
        flops=flops,
        without={**NO_AXES, **NO_BROADCAST, **NO_MATRICES, **NO_TIES, "scalar": "it takes tensors of 3 to 5 axes"},
    )


def _positions(op: Any, x: Type, w: Shape) -> int:
    axes = zip(x.shape[2:], w[2:], op.stride, op.before, op.after, op.dilation, strict=True)
    return math.prod(count(*axis) for axis in axes)


X, W, Y = ty(1, 2, 4), ty(3, 2, 2), ty(1, 3, 3)

ROWS = [
    _convolution(
        c.Convolution, c.Convolution(*ONE), (X, W), _forward,
        lambda op, x, w: 2 * x.shape[0] * w.shape[0] * _positions(op, x, w.shape) * math.prod(w.shape[1:]),
        refuse(ShapeError, "do not fit the weight", c.Convolution(*ONE), X, ty(3, 1, 2)),
        refuse(ShapeError, "must be positive", c.Convolution((0,), (0,), (0,), (1,)), X, W),
        refuse(ShapeError, "must not be negative", c.Convolution((1,), (-1,), (0,), (1,)), X, W),
    ),
    _convolution(
        c.ConvolutionInput, c.ConvolutionInput(*ONE, size=(4,)), (Y, W), _input,
        lambda op, y, w: 2 * math.prod(y.shape) * math.prod(w.shape[1:]),
        refuse(ShapeError, "no convolution of an input of", c.ConvolutionInput(*ONE, size=(9,)), Y, W),
    ),
    _convolution(
        c.ConvolutionWeight, c.ConvolutionWeight(*ONE, kernel=(2,)), (X, Y), _weight,
        lambda op, x, y: 2 * math.prod(y.shape) * x.shape[1] // op.groups * math.prod(op.kernel),
        refuse(ShapeError, "no convolution of", c.ConvolutionWeight(*ONE, kernel=(3,)), X, Y),
    ),
]  # fmt: skip
