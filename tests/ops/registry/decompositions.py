"""Facts of decompositions. Their results are known by laws: factors of the right form whose product is the matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from telegrad.errors import ExecutionError, ShapeError
from telegrad.ops import decompositions as d

from tests.ops.checks import Array
from tests.ops.operands import Operand, definite, real, regular, values
from tests.ops.registry.facts import WIDE, Facts, Refusal, Sample, refuse, ty
from tests.ops.registry.systems import SOFT, SQUARE, refusals

HUGE = 2**40
Pairs = list[tuple[Array, Array]]


def transposed(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def mirrored(x: Array) -> Array:
    """The symmetric matrix of a lower triangle."""
    return np.tril(x) + transposed(np.tril(x, -1))


def identity(x: Array) -> tuple[Array, Array]:
    """Columns that are orthonormal, as a law."""
    return transposed(x) @ x, np.broadcast_to(np.eye(x.shape[-1]), (*x.shape[:-2], *x.shape[-1:] * 2))


def ordered(x: Array, *, descending: bool = False) -> tuple[Array, Array]:
    """Numbers in their order, as a law."""
    return x, np.sort(x, -1)[..., ::-1] if descending else np.sort(x, -1)


def _cholesky(op: object, found: list[Array], x: Array) -> Pairs:
    (lower,) = found
    diagonal = np.diagonal(lower, axis1=-2, axis2=-1)
    return [(lower @ transposed(lower), mirrored(x)), (lower, np.tril(lower)), (diagonal, np.abs(diagonal))]


def _qr(op: object, found: list[Array], x: Array) -> Pairs:
    q, r = found
    return [(q @ r, x), identity(q), (r, np.triu(r))]


def _eigh(op: object, found: list[Array], x: Array) -> Pairs:
    w, v = found
    return [(mirrored(x) @ v, v * w[..., None, :]), identity(v), ordered(w)]


def _svd(op: d.Svd, found: list[Array], x: Array) -> Pairs:
    u, s, vt = found
    k = s.shape[-1]
    back = (u[..., :k] * s[..., None, :]) @ vt[..., :k, :]
    return [(back, x), identity(u), identity(transposed(vt)), ordered(s, descending=True), (s, np.abs(s))]


def _power_sums(numbers: Array, x: Array) -> Pairs:
    """sum_i numbers_i**k = trace(x**k) for k up to n, which determines them."""
    pairs: Pairs = []
    power = np.broadcast_to(np.eye(x.shape[-1]), x.shape)
    for k in range(1, x.shape[-1] + 1):
        power = power @ x
        pairs.append((np.sum(numbers**k, -1), np.trace(power, axis1=-2, axis2=-1)))
    return pairs


def _eigvalsh(op: object, found: list[Array], x: Array) -> Pairs:
    return [*_power_sums(found[0], mirrored(x)), ordered(found[0])]


def _svdvals(op: object, found: list[Array], x: Array) -> Pairs:
    (s,) = found
    square = x @ transposed(x) if x.shape[-2] <= x.shape[-1] else transposed(x) @ x
    return [*_power_sums(s**2, square), ordered(s, descending=True), (s, np.abs(s))]


def _of_one(
    op: Any,
    *samples: Sample,
    laws: Any,
    flops: Any,
    reference: Any = None,
    is_square: bool = True,
    more: tuple[Refusal, ...] = (),
) -> Facts:
    return Facts(
        samples=samples,
        refusals=(*refusals(op, is_square=is_square), *more),
        reference=reference,
        laws=laws,
        dtypes=WIDE,
        spacings=SOFT,
        differentiable=(0,),
        slope_tolerance=1e-6,
        flops=flops,
        without=SQUARE,
    )


def each(flops: Any) -> Any:
    """The operations for one m by n matrix, times how many there are; k is the smaller size."""
    return lambda op, x: math.prod(x.shape[:-2]) * flops(op, *x.shape[-2:], min(x.shape[-2:]))


def _svd_flops(op: d.Svd, m: int, n: int, k: int) -> int:
    largest = max(m, n)
    return 14 * largest * k**2 + 8 * k**3 + (4 * largest**2 * k if op.full_matrices else 0)


def _samples(op: Any, draw: Any, *shapes: tuple[int, ...]) -> list[Sample]:
    return [Sample(op, (draw(*shape),)) for shape in shapes]


SQUARES = ((3, 3), (1, 1), (2, 3, 3), (0, 0), (0, 2, 2))
NEGATIVE = values([-1.0, 0.0], [0.0, 1.0])


def spread(*shape: int) -> Operand:
    """Stacks of definite matrices whose eigenvalues are well apart."""
    base = definite(*shape)
    return lambda rng: base(rng) + np.diag(np.arange(1.0, 1.0 + 2 * shape[-1], 2.0))


def uneven(*shape: int) -> Operand:
    """Stacks of matrices whose singular values are well apart."""

    def make(rng: np.random.Generator) -> Array:
        u, _, vt = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
        return (u * np.arange(2.0, 2.0 + min(shape[-2:]))[::-1]) @ vt

    return make


ROWS = [
    Facts(
        samples=tuple(Sample(d.Symmetric(), (real(*s),), is_smooth=False) for s in ((2, 3, 3), *SQUARES)),
        refusals=refusals(d.Symmetric()),
        reference=lambda op, x: mirrored(x),
        dtypes=WIDE,
        differentiable=(0,),
        flops=lambda op, x: math.prod(x.shape),
        without=SQUARE,
    ),
    _of_one(
        d.Cholesky(), *_samples(d.Cholesky(), definite, *SQUARES),
        laws=_cholesky, flops=each(lambda op, m, n, k: n**3 // 3),
        more=(refuse(ExecutionError, "not positive definite", d.Cholesky(), NEGATIVE),),
    ),
    _of_one(
        d.Qr(), *_samples(d.Qr(), regular, (3, 3), (4, 2), (2, 2, 4), (2, 3, 2), (3, 0), (0, 3), (0, 2, 2)),
        Sample(d.Qr(True), (regular(2, 3),)), Sample(d.Qr(True), (regular(3, 3),)),
        laws=_qr, flops=each(lambda op, m, n, k: 4 * m * n * k), is_square=False,
        more=(refuse(ShapeError, "more elements than can be addressed", d.Qr(True), ty(HUGE, 1)),),
    ),
    _of_one(
        d.Eigh(), *_samples(d.Eigh(), spread, *SQUARES), laws=_eigh, flops=each(lambda op, m, n, k: 9 * n**3),
    ),
    _of_one(
        d.Eigvalsh(), *_samples(d.Eigvalsh(), spread, *SQUARES),
        laws=_eigvalsh, flops=each(lambda op, m, n, k: 4 * n**3 // 3),
    ),
    _of_one(
        d.Svd(), *_samples(d.Svd(), uneven, (3, 3), (2, 2, 3), (2, 3, 2)),
        *_samples(d.Svd(), regular, (0, 3), (0, 2, 2)),
        Sample(d.Svd(True), (uneven(2, 2),)),
        laws=_svd, flops=each(_svd_flops), is_square=False,
        more=(refuse(ShapeError, "more elements than can be addressed", d.Svd(True), ty(1, HUGE)),),
    ),
    _of_one(
        d.Svdvals(), *_samples(d.Svdvals(), uneven, (3, 3), (2, 2, 3), (3, 2)), *_samples(d.Svdvals(), regular, (3, 0)),
        Sample(d.Svdvals(), (regular(0, 2, 2),)),
        laws=_svdvals, flops=each(lambda op, m, n, k: 4 * m * n * k), is_square=False,
    ),
]  # fmt: skip
