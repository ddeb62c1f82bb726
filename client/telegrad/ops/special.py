"""Special functions beside erf: the gamma family, and the inverse of erf."""

from __future__ import annotations

import math

from telegrad.ir import types as t
from telegrad.ir.value import V, Value
from telegrad.ops import elementwise as e

__all__ = ["digamma", "erfinv", "lgamma", "trigamma"]


class Erfinv(e.Float):
    """The inverse of the error function, on (-1, 1); infinite at the ends, NaN outside."""

    word = "erfinv"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * (e.exp(out * out) * (math.sqrt(math.pi) / 2)),)


class Lgamma(e.Float):
    """The logarithm of the absolute value of the gamma function."""

    word = "lgamma"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * digamma(x),)


class Digamma(e.Float):
    """The derivative of lgamma."""

    word = "digamma"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * trigamma(x),)


def erfinv(x: V, /) -> V:
    """The inverse of the error function: erf(erfinv(x)) is x on (-1, 1)."""
    return Erfinv()(e.inexact(x))


def lgamma(x: V, /) -> V:
    """The logarithm of the absolute value of the gamma function."""
    return Lgamma()(e.inexact(x))


def digamma(x: V, /) -> V:
    """The derivative of lgamma."""
    return Digamma()(e.inexact(x))


def trigamma(x: V, /) -> V:
    """The derivative of digamma, from 16-bit floats in float32.

    Eight steps of the recurrence and then the asymptotic series (Abramowitz and Stegun 1964, 6.4.6 and 6.4.12), by
    reflection (6.4.7) for x < 1/2.
    """
    narrow = e.inexact(x)
    wide = e.astype(narrow, t.float32) if narrow.dtype.itemsize < 4 else narrow
    is_low = e.less(wide, 0.5)
    z = e.where(is_low, 1 - wide, wide)
    total = 1 / e.square(z)
    for k in range(1, 8):
        total = total + 1 / e.square(z + k)
    z = z + 8
    w = 1 / e.square(z)
    series, term = 1 / z + w / 2, w / z
    for bernoulli in (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6):
        series, term = series + term * bernoulli, term * w
    total = total + series
    turned = e.square(math.pi / e.sin(e.where(is_low, wide, 0.25) * math.pi)) - total
    return e.astype(e.where(is_low, turned, total), narrow.dtype)
