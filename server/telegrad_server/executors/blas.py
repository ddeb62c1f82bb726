"""The threads of the OpenBLAS inside NumPy's wheel: one for small products of matrices, all for large ones.

OpenBLAS wakes its threads for products that take ten microseconds, and they then spin for tens of milliseconds.
On a busy machine, or beside our own threads, that costs up to a hundred times what it gains (a step of the
digits example: 7 ms instead of 0.5). Which products count as large follows from types alone, so the bits of a
plan stay what they are. Another BLAS keeps its own setting.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

LARGE_FLOPS = 1 << 27
"""Products of at least this many operations (about 2 ms on one core) use all threads."""

LARGE_MATRIX_FLOPS = 1 << 33
"""Decompositions and systems of at least this many operations do: eigenvalues and vectors of 1,000 rows. Threads meet
thousands of times in one: of 512 rows two took 29 ms instead of 37 on an idle machine, and 1,800 on a busy one."""


class OpenBlas:
    """The library: the kernels it chose for this processor, and its threads."""

    def __init__(self, library: ctypes.CDLL, prefix: str, suffix: str) -> None:
        name: Any = library[f"{prefix}openblas_get_corename{suffix}"]
        name.restype = ctypes.c_char_p
        self.core: str = name().decode("ascii", "replace")
        self._in_use: Callable[[], int] = library[f"{prefix}openblas_get_num_threads{suffix}"]
        self.use_threads: Callable[[int], Any] = library[f"{prefix}openblas_set_num_threads{suffix}"]
        self.threads = self._in_use()
        self._lock = threading.Lock()
        self._users = 0
        self._before = self.threads

    @contextmanager
    def one_thread(self) -> Generator[None, None, None]:
        """Use one thread inside the ``with``, and then as many as before: the process may have other users."""
        with self._lock:  # several runs may be under way, of which all but one wait for other workers
            if not self._users:
                self._before = self._in_use()
            self._users += 1
            self.use_threads(1)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self.use_threads(1 if self._users else self._before)


@lru_cache
def openblas() -> OpenBlas | None:
    """The OpenBLAS that NumPy brought along, None if it uses another library."""
    wheel = Path(np.__file__).parent
    for folder in (wheel.parent / "numpy.libs", wheel / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
                try:
                    return OpenBlas(ctypes.CDLL(str(path)), prefix, suffix)  # loaded already: this only finds it
                except (OSError, AttributeError):
                    continue
    return None
