"""Facts of the gamma family and of the inverse of erf."""

from __future__ import annotations

import math

from telegrad.ir import types as t
from telegrad.ops import special

from tests.ops.operands import Operand, real
from tests.ops.registry.elementwise import INF, NAN, unary
from tests.ops.registry.facts import SPACINGS

ROUGH = {**SPACINGS, t.float64: 64, t.float32: 16}


def _inside(*shape: int) -> Operand:
    return real(*shape, low=-0.9, high=0.9)


def _above(*shape: int) -> Operand:
    return real(*shape, low=2.5, high=6.0)


def _erfinv(y: float) -> float:
    """By bisection."""
    if math.isnan(y) or abs(y) > 1:
        return NAN
    if y == 0 or abs(y) == 1:
        return math.copysign(INF, y) if y else y
    low, high = -6.0, 6.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < y else (low, middle)
    return low


def _digamma(x: float) -> float:
    """By the recurrence far up, and Euler's and Maclaurin's series there."""
    total = 0.0
    while x < 40:
        total, x = total - 1 / x, x + 1
    return total + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)


ROWS = [
    unary(special.Erfinv(), _inside, _erfinv, at=(0.0, 1.0, -1.0, NAN), spacings=ROUGH),
    unary(special.Lgamma(), _above, math.lgamma, at=(0.5, 20.0, -0.5, -2.5), spacings=ROUGH),
    unary(special.Digamma(), _above, _digamma, at=(0.5, 20.0), spacings=ROUGH),
]
