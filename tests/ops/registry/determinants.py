"""Facts of determinants. The reference is Leibniz's sum over permutations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from telegrad.ops import determinants as d

from tests.ops.checks import Array
from tests.ops.operands import number, real, regular, with_singular_values
from tests.ops.registry.decompositions import each
from tests.ops.registry.facts import WIDE, Facts, Sample
from tests.ops.registry.systems import SOFT, SQUARE, matrices, refusals


def leibniz(x: Array) -> float:
    """The determinant of one matrix, as the sum over permutations."""
    n, total = len(x), 0.0
    for order in permutations(range(n)):
        inversions = sum(order[i] > order[j] for i in range(n) for j in range(i + 1, n))
        total += (-1) ** inversions * float(np.prod([x[i, order[i]] for i in range(n)]))
    return total


def _det(op: object, x: Array) -> Array:
    out = np.zeros(x.shape[:-2])
    for at, matrix in matrices(x):
        out[at] = leibniz(matrix)
    return out


def _slogdet(op: object, x: Array) -> list[Array]:
    found = _det(op, x)
    return [np.sign(found), np.log(np.abs(found))]


def _cofactor(op: object, x: Array) -> Array:
    """The signed determinants of what is left without a row and a column."""
    out = np.zeros(x.shape)
    for at, matrix in matrices(x):
        for i, j in np.ndindex(matrix.shape):
            out[(*at, i, j)] = (-1) ** (i + j) * leibniz(np.delete(np.delete(matrix, i, 0), j, 1))
    return out


SIZES = ((3, 3), (1, 1), (2, 2, 2), (0, 0), (0, 2, 2))

ROWS = [
    Facts(
        samples=tuple(Sample(d.Slogdet(), (regular(*s),)) for s in SIZES),
        refusals=refusals(d.Slogdet()),
        reference=_slogdet,
        dtypes=WIDE,
        spacings=SOFT,
        differentiable=(0,),
        slope_tolerance=1e-7,
        flops=each(lambda op, m, n, k: 2 * n**3 // 3),
        without=SQUARE,
    ),
    Facts(
        samples=tuple(
            Sample(d.Det(), (x,))
            for x in (
                *(regular(*s) for s in SIZES),
                real(2, 4, 4),
                with_singular_values(2.0, 1.0, 0.0, rows=3, columns=3),
                with_singular_values(2.0, 0.0, 0.0, rows=3, columns=3),
                with_singular_values(1.0, 1.0, 1.0, rows=3, columns=3),
                number(np.zeros((2, 2)), dtype=np.float64),
            )
        ),
        refusals=refusals(d.Det()),
        reference=_det,
        dtypes=WIDE,
        spacings=SOFT,
        scale=1.0,
        differentiable=(0,),
        slope_tolerance=1e-7,
        flops=each(lambda op, m, n, k: 2 * n**3 // 3),
        without={k: v for k, v in SQUARE.items() if k != "ties"},
    ),
    Facts(
        samples=tuple(Sample(d.Cofactor(), (regular(*s),)) for s in SIZES),
        refusals=refusals(d.Cofactor()),
        reference=_cofactor,
        dtypes=WIDE,
        spacings=SOFT,
        differentiable=(0,),
        slope_tolerance=1e-6,
        flops=each(lambda op, m, n, k: 26 * n**3),
        without=SQUARE,
    ),
]
