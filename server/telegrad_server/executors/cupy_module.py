"""The array module and executor over CuPy. The only module that imports cupy.

Scatter is done by sorting and adding runs in order, never by atomics: the same bits every time.
"""

from __future__ import annotations

from typing import Any

import cupy as cp  # pyright: ignore[reportMissingImports]
import numpy as np

from telegrad.ir.types import Type
from telegrad.wire.arrays import array_bytes, numpy_dtype
from telegrad_server import __version__
from telegrad_server.executors.array import ArrayExecutor
from telegrad_server.executors.array_module import LibraryModule


def is_available() -> bool:
    """Whether a kernel compiles, launches and brings its result back."""
    if not cp.cuda.is_available():
        return False
    with cp.cuda.Device(0):
        return int((cp.arange(4, dtype=np.float32) + 1).get()[3]) == 4


class CupyModule(LibraryModule):
    """The array module over CuPy, with what differs there."""

    def __init__(self) -> None:
        super().__init__(cp)

    def matmul(self, x: Any, y: Any, out: Any = None) -> Any:
        """The matrix product. Batches of 16-bit floats go through float32: CuPy 14 cannot multiply them."""
        if x.dtype.itemsize == 2 and x.ndim > 2:
            return cp.matmul(x.astype(np.float32), y.astype(np.float32)).astype(x.dtype)
        return cp.matmul(x, y)

    def _add_at(self, result: Any, index: Any, rows: Any) -> None:
        """Add rows to result at an index in a fixed order: round k adds the k-th row of every target."""
        if index.size == 0:
            return
        order = cp.argsort(index, kind="stable")
        targets = index[order]
        starts = cp.concatenate([cp.ones(1, dtype=bool), targets[1:] != targets[:-1]])
        first = cp.maximum.accumulate(cp.where(starts, cp.arange(index.size), 0))
        rank = cp.arange(index.size) - first
        for k in range(int(rank.max()) + 1):
            chosen = cp.flatnonzero(rank == k)
            result[targets[chosen]] += rows[order[chosen]]

    def scatter_set(self, x: Any, index: Any, rows: Any) -> Any:
        """x with rows replaced at an index; the last of equal indices counts."""
        flat = self.checked_index(index, x.shape[0]).reshape(-1)
        owner = cp.full(x.shape[0], -1, dtype=np.int64)
        cp.maximum.at(owner, flat, cp.arange(flat.size))
        written = owner >= 0
        source = rows.reshape((flat.size, *x.shape[1:]))
        if flat.size == 0:
            return x.copy()
        mask = written.reshape((-1,) + (1,) * (x.ndim - 1))
        return cp.where(mask, source[cp.maximum(owner, 0)], x)


class CupySpecial:
    """Special functions of CuPy."""

    name = "cupyx"

    def erf(self, x: Any) -> Any:
        """The error function; 16-bit floats through float32."""
        from cupyx.scipy.special import erf  # pyright: ignore[reportMissingImports]

        wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
        return erf(wide).astype(x.dtype, copy=False)


class CupyExecutor(ArrayExecutor):
    """The executor on a GPU."""

    def received(self, buffer: Any) -> Any:
        """The array in a filled buffer, on the device."""
        if buffer.dtype == np.bool_:
            buffer = buffer.view(np.uint8) != 0
        return cp.asarray(buffer)

    def to_host(self, array: Any) -> memoryview:
        """The array's bytes, brought to the host."""
        return array_bytes(cp.asnumpy(array))

    def _frozen(self, array: Any) -> Any:
        return array  # CuPy has no read-only arrays; nobody writes results

    def _empty(self, type: Type) -> Any:
        return cp.empty(type.shape, dtype=numpy_dtype(type.dtype))  # CuPy's pool recycles


def cupy_executor() -> CupyExecutor:
    """The executor on the first GPU."""
    properties = cp.cuda.runtime.getDeviceProperties(0)
    name = properties["name"].decode()
    fingerprint = (
        f"telegrad {__version__}; cupy {cp.__version__}; cuda {cp.cuda.runtime.runtimeGetVersion()}; {name}"
        f" sm_{properties['major']}{properties['minor']}"
    )
    return CupyExecutor(CupyModule(), name="cupy", reason="", fingerprint=fingerprint)
