"""The exponential of matrices, for every library with NumPy's interface: SciPy's takes no CuPy arrays.

Higham 2005, The Scaling and Squaring Method for the Matrix Exponential Revisited, algorithm 2.3 with m = 13: the
Padé approximant of degree 13 is exact to float64 where the 1-norm is at most 5.37; larger matrices are divided by a
power of two, and the result is squared as often.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any

_THETA = 5.371920351148152
_PADE = (
    64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0,
    10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0,
)  # fmt: skip


def matrix_exp(lib: Any, x: Array) -> Array:
    """The exponential of x[..., n, n]; NaN where x is not finite."""
    if not x.size:
        return x.copy()
    norm = lib.abs(x).sum(axis=-2).max(axis=-1)
    finite = lib.isfinite(norm)
    halvings = lib.ceil(lib.log2(lib.maximum(lib.where(finite, norm, 1) / _THETA, 1))).astype(np.int32)
    is_finite, halvings = finite[..., None, None], halvings[..., None, None]
    x = lib.ldexp(lib.where(is_finite, x, 0), -halvings)
    found = _pade(lib, x)
    for i in range(int(halvings.max())):
        found = lib.where(halvings > i, lib.matmul(found, found), found)
    return lib.where(is_finite, found, lib.asarray(np.nan, dtype=x.dtype))


def _pade(lib: Any, x: Array) -> Array:
    one = lib.eye(x.shape[-1], dtype=x.dtype)
    # divided by the first coefficient: float32 cannot hold its products
    c = [x.dtype.type(b / _PADE[0]) for b in _PADE]
    x2 = lib.matmul(x, x)
    x4 = lib.matmul(x2, x2)
    x6 = lib.matmul(x4, x2)
    odd = lib.matmul(x6, c[13] * x6 + c[11] * x4 + c[9] * x2) + c[7] * x6 + c[5] * x4 + c[3] * x2 + c[1] * one
    even = lib.matmul(x6, c[12] * x6 + c[10] * x4 + c[8] * x2) + c[6] * x6 + c[4] * x4 + c[2] * x2 + c[0] * one
    odd = lib.matmul(x, odd)
    return lib.linalg.solve(even - odd, even + odd)
