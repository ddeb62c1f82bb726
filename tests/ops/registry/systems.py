"""Facts of linear systems. References eliminate by hand, or say by which laws the result is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from telegrad.errors import DTypeError, ExecutionError, ShapeError
from telegrad.ir import types as t
from telegrad.ops import systems

from tests.ops.checks import Array
from tests.ops.operands import Operand, real, regular, values, with_singular_values
from tests.ops.registry.facts import NO_AXES, ONE_OPERAND, SPACINGS, WIDE, Facts, Refusal, Sample, refuse, ty

HUGE = 2**40
SOFT = {**SPACINGS, t.float64: 256, t.float32: 256}
"""The condition of the matrix, times the rounding of n**3 operations."""

MATRICES = {**NO_AXES, "scalar": "it takes matrices", "long": "a large matrix takes too long to differentiate"}
SQUARE = {**MATRICES, **ONE_OPERAND, "ties": "elements are not compared with each other"}
SINGULAR = values([1.0, 2.0], [2.0, 4.0])


def refusals(op: Any, *, is_square: bool = True) -> tuple[Refusal, ...]:
    """What every op on one matrix refuses."""
    name = op.name
    found = (
        refuse(ShapeError, f"{name}.*: takes a matrix or a stack of them", op, ty(3)),
        refuse(DTypeError, rf"{name}\(float16\[2,2\]\): takes float32 or", op, ty(2, 2, dtype=t.float16)),
        refuse(DTypeError, "takes float32 or float64; use astype", op, ty(2, 2, dtype=t.int64)),
    )
    if not is_square:
        return found
    return (*found, refuse(ShapeError, "takes square matrices, not 2 by 3", op, ty(2, 3)))


def matrices(x: Array, *more: Array) -> Iterator[tuple[Any, ...]]:
    """The matrices of stacks, one after the other, with their places."""
    for at in np.ndindex(x.shape[:-2]):
        yield (at, x[at], *[y[at] for y in more])


def eliminated(x: Array, y: Array) -> Array:
    """z with x z = y, by Gauss and Jordan with the largest pivot of each column."""
    x, y, n = x.copy(), y.copy(), len(x)
    for k in range(n):
        p = k + int(np.argmax(np.abs(x[k:, k])))
        x[[k, p]], y[[k, p]] = x[[p, k]], y[[p, k]]
        y[k], x[k] = y[k] / x[k, k], x[k] / x[k, k]
        for i in range(n):
            if i != k:
                y[i], x[i] = y[i] - x[i, k] * y[k], x[i] - x[i, k] * x[k]
    return y


def solved(op: object, x: Array, y: Array) -> Array:
    """Every system of two stacks that broadcast."""
    lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = (np.broadcast_to(v, (*lead, *v.shape[-2:])) for v in (x, y))
    out = np.zeros(y.shape)
    for at, a, b in matrices(x, y):
        out[at] = eliminated(a, b)
    return out


def _triangle(op: systems.TriangularSolve, x: Array, y: Array) -> Array:
    x = np.tril(x) if op.lower else np.triu(x)
    if op.unit:
        x = x - x * np.eye(x.shape[-1]) + np.eye(x.shape[-1])
    return solved(op, np.swapaxes(x, -1, -2) if op.transposed else x, y)


def _inverse(op: object, x: Array) -> Array:
    return solved(op, x, np.broadcast_to(np.eye(x.shape[-1]), x.shape))


def _exponential(op: object, x: Array) -> Array:
    """By the series, for small matrices."""
    total = term = np.broadcast_to(np.eye(x.shape[-1]), x.shape)
    for k in range(1, 60):
        term = term @ x / k
        total = total + term
    return total


def _penrose(op: object, found: list[Array], x: Array, *_: Array) -> list[tuple[Array, Array]]:
    """The four laws that only the pseudo-inverse has."""
    (p,) = found
    left, right = x @ p, p @ x
    return [(left @ x, x), (right @ p, p), (left, np.swapaxes(left, -1, -2)), (right, np.swapaxes(right, -1, -2))]


def _system(op: systems.Solve | systems.TriangularSolve) -> tuple[Refusal, ...]:
    return (
        refuse(ShapeError, "takes square matrices, not 2 by 3", op, ty(2, 3), ty(2, 1)),
        refuse(ShapeError, "2 rows and a right-hand side with 3", op, ty(2, 2), ty(3, 1)),
        refuse(DTypeError, "dtypes must be equal; use astype", op, ty(2, 2), ty(2, 2, dtype=t.float64)),
        refuse(DTypeError, "takes float32 or", op, ty(2, 2, dtype=t.float16), ty(2, 2, dtype=t.float16)),
        refuse(ShapeError, "more elements than can be addressed", op, ty(HUGE, 1, 1, 1), ty(HUGE, 1, 1)),
        refuse(ExecutionError, "a matrix is singular", op, values([0.0, 0.0], [0.0, 0.0]), real(2, 1)),
    )


SYSTEMS = (
    ((3, 3), (3, 2)),
    ((2, 3, 3), (3, 1)),
    ((2, 2), (3, 2, 1)),
    ((2, 1, 2, 2), (3, 2, 2)),
    ((0, 0), (0, 2)),
    ((2, 2), (2, 0)),
)


def pairs(count: int, n: int) -> Operand:
    """Stacks of well-conditioned matrices with equal elements."""
    return lambda rng: np.broadcast_to(3.0 * np.eye(n) + np.tri(n), (count, n, n)).copy()


def _on_square(
    op: Any, *operands: Operand, flops: Any, reference: Any = None, laws: Any = None, more: tuple[Refusal, ...] = ()
) -> Facts:
    return Facts(
        samples=tuple(Sample(op, (x,)) for x in operands),
        refusals=(*refusals(op), *more),
        reference=reference,
        laws=laws,
        dtypes=WIDE,
        spacings=SOFT,
        differentiable=(0,),
        slope_tolerance=1e-7,
        flops=flops,
        without=SQUARE,
    )


SIZES = ((3, 3), (1, 1), (2, 2, 2), (0, 0), (0, 2, 2))
TRIANGULAR = [systems.TriangularSolve(*flags) for flags in product((False, True), repeat=3)]

ROWS = [
    Facts(
        samples=tuple(Sample(systems.Solve(), (regular(*a), real(*b))) for a, b in SYSTEMS),
        refusals=_system(systems.Solve()),
        reference=solved,
        dtypes=WIDE,
        spacings=SOFT,
        differentiable=(0, 1),
        slope_tolerance=1e-7,
        flops=lambda op, x, y: math.prod(x.shape[:-2]) * (2 * x.shape[-1] ** 3 // 3)
        + 2 * math.prod(np.broadcast_shapes(x.shape[:-2], y.shape[:-2])) * x.shape[-1] ** 2 * y.shape[-1],
        without={**MATRICES, "ties": "elements are not compared with each other"},
    ),
    Facts(
        samples=(
            *(Sample(op, (regular(3, 3), real(2, 3, 2))) for op in TRIANGULAR),
            *(
                Sample(systems.TriangularSolve(True), (regular(*a), real(*b)))
                for a, b in (((2, 1, 2, 2), (2, 1)), ((0, 0), (0, 1)), ((2, 2), (2, 0)))
            ),
        ),
        refusals=_system(systems.TriangularSolve(True)),
        reference=_triangle,
        dtypes=WIDE,
        spacings=SOFT,
        differentiable=(0, 1),
        slope_tolerance=1e-7,
        flops=lambda op, x, y: math.prod(np.broadcast_shapes(x.shape[:-2], y.shape[:-2]))
        * x.shape[-1] ** 2
        * y.shape[-1],
        without={**MATRICES, "ties": "elements are not compared with each other"},
    ),
    _on_square(
        systems.Inv(), *(regular(*s) for s in SIZES),
        reference=_inverse, flops=lambda op, x: math.prod(x.shape[:-2]) * 2 * x.shape[-1] ** 3,
        more=(refuse(ExecutionError, "a matrix is singular", systems.Inv(), SINGULAR),),
    ),
    Facts(
        samples=tuple(
            Sample(systems.Pinv(1e-5), (x,))
            for x in (
                *(regular(*s) for s in ((3, 3), (4, 2), (2, 4), (2, 2, 3), (3, 0), (0, 2, 2))),
                with_singular_values(3.0, 1.0, rows=4, columns=2),
            )
        ),
        refusals=refusals(systems.Pinv(1e-5), is_square=False),
        laws=_penrose,
        dtypes=WIDE,
        spacings=SOFT,
        differentiable=(0,),
        slope_tolerance=1e-7,
        flops=lambda op, x: math.prod(x.shape[:-2])
        * (14 * max(x.shape[-2:]) * min(x.shape[-2:]) ** 2 + 8 * min(x.shape[-2:]) ** 3
        + 2 * math.prod(x.shape[-2:]) * min(x.shape[-2:])),
        without=SQUARE,
    ),
    Facts(
        samples=tuple(
            Sample(systems.PinvAbove(), (regular(*s), real(*s[:-2], low=0.0, high=1e-5)))
            for s in ((3, 3), (4, 2), (2, 4), (2, 2, 3), (3, 0), (0, 2, 2))
        ),
        refusals=(
            refuse(ShapeError, r"rtol must be float32\[2\], not float32\[\]", systems.PinvAbove(), ty(2, 3, 3), ty()),
            refuse(DTypeError, "takes float32 or float64", systems.PinvAbove(), ty(3, 3, dtype=t.float16), ty()),
            refuse(ShapeError, "takes a matrix or a stack of them", systems.PinvAbove(), ty(3), ty()),
        ),
        laws=_penrose,
        dtypes=WIDE,
        spacings=SOFT,
        differentiable=(0,),
        slope_tolerance=1e-7,
        flops=lambda op, x, rtol: math.prod(x.shape[:-2])
        * (14 * max(x.shape[-2:]) * min(x.shape[-2:]) ** 2 + 8 * min(x.shape[-2:]) ** 3
        + 2 * math.prod(x.shape[-2:]) * min(x.shape[-2:])),
        without={key: why for key, why in SQUARE.items() if key != "scalar"},
    ),
    _on_square(
        systems.MatrixExp(), *(real(*s) for s in SIZES),
        reference=_exponential, flops=lambda op, x: math.prod(x.shape[:-2]) * 30 * x.shape[-1] ** 3,
    ),
]  # fmt: skip
