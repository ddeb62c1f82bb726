"""Triangular systems: LAPACK's substitution through SciPy, and the plain triangle for libraries that only solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any


def triangle(lib: Any, x: Array, *, lower: bool, transposed: bool, unit: bool) -> Array:
    """The triangle of x[..., n, n] with zeros in the other, and ones on the diagonal if ``unit``; or its transpose."""
    found = lib.tril(x, -1 if unit else 0) if lower else lib.triu(x, 1 if unit else 0)
    if unit:
        found = found + lib.eye(x.shape[-1], dtype=x.dtype)
    return lib.swapaxes(found, -1, -2) if transposed else found


def substitution() -> Callable[..., Array] | None:
    """The solver of triangular systems by substitution on NumPy's arrays, None without SciPy."""
    try:
        from scipy.linalg.lapack import dtrtrs, strtrs  # pyright: ignore
    except ImportError:
        return None
    return lambda x, y, **how: _substituted({"f": strtrs, "d": dtrtrs}[x.dtype.char], x, y, **how)


def _substituted(trtrs: Any, x: Array, y: Array, *, lower: bool, transposed: bool, unit: bool) -> Array:
    lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    z = np.empty((*lead, *y.shape[-2:]), y.dtype)
    if not z.size:
        return z
    # LAPACK reads columns: what is x in rows is its transpose there, lower is upper, and nothing is copied
    columns = np.broadcast_to(np.swapaxes(np.ascontiguousarray(x), -1, -2), (*lead, *x.shape[-2:]))
    right = np.broadcast_to(y, z.shape)
    for at in np.ndindex(lead):
        z[at], info = trtrs(columns[at], right[at], lower=not lower, trans=not transposed, unitdiag=unit)
        if info:
            raise np.linalg.LinAlgError
    return z
