"""erf, erfinv, lgamma and digamma on float64 arrays without SciPy, for the thin client's embedded NumPy.

Slower than SciPy (Python's own ``math`` is called for each element where NumPy has nothing), and as accurate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def _mapped(function: Callable[[float], float]) -> Callable[[Float64], Float64]:
    ufunc: Any = np.frompyfunc(function, 1, 1)

    def on_array(x: Float64) -> Float64:
        return np.asarray(ufunc(x), dtype=np.float64)

    return on_array


def _lgamma(x: float) -> float:
    if x <= 0.0 and (x == -math.inf or x == math.floor(x)):
        return math.inf  # a pole, where math.lgamma raises
    return math.lgamma(x)


erf = _mapped(math.erf)
erfc = _mapped(math.erfc)
lgamma = _mapped(_lgamma)


def erfinv(y: Float64) -> Float64:
    """The x with erf(x) = y; infinite at -1 and 1, NaN beyond.

    Start: Giles 2010, Approximating the erfinv function, with the logarithm's leading behaviour; then Halley's
    method on erfc, which keeps the digits near 1 that erf has lost.
    """
    y = np.asarray(y, dtype=np.float64)
    a = np.abs(y)
    inside = a < 1.0
    p = np.where(inside, a, 0.0)
    tail = np.log1p(-p * p)
    b = 2.0 / (math.pi * 0.147) + tail / 2.0  # Winitzki 2008: within 2e-3 everywhere
    x = np.sqrt(np.maximum(np.sqrt(b * b - tail / 0.147) - b, 0.0))
    for _ in range(3):
        error = np.where(p > 0.5, (1.0 - p) - erfc(x), erf(x) - p)
        slope = 2.0 / math.sqrt(math.pi) * np.exp(-x * x)
        step = error / slope
        x = x - step / (1.0 + x * step)
    x = np.where(inside, x, np.where(a == 1.0, np.inf, np.nan))
    return np.copysign(x, y)


def digamma(x: Float64) -> Float64:
    """The derivative of lgamma: recurrence up to 10, then the asymptotic series; reflection below 0.

    Abramowitz and Stegun 1964, 6.3.5, 6.3.7 and 6.3.18. NaN at the poles -1, -2, …, and -inf at 0.
    """
    x = np.asarray(x, dtype=np.float64)
    is_reflected = x < 0.0
    z = np.where(is_reflected, 1.0 - x, x)
    result = np.zeros_like(z)
    for _ in range(10):
        is_small = z < 10.0
        result = np.where(is_small, result - 1.0 / z, result)
        z = np.where(is_small, z + 1.0, z)
    r = 1.0 / (z * z)
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * (1 / 132 - r * (691 / 32760 - r / 12))))))
    result = result + (np.log(z) - 0.5 / z - series)
    fraction = x - np.round(x)  # tan has the period pi: exact digits near the poles
    result = np.where(is_reflected, result - math.pi / np.tan(math.pi * fraction), result)
    is_pole = (x < 0.0) & (fraction == 0.0)
    return np.where(is_pole | (x == -np.inf), np.nan, np.where(x == 0.0, np.copysign(np.inf, -x), result))
