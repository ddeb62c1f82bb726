"""The execution fingerprint: all that decides the bits of a result, in words. Equal fingerprints, equal bits."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ml_dtypes
import numpy as np

from telegrad_server import __version__


@lru_cache
def numpy_fingerprint() -> str:
    """What decides the bits of NumPy's results in this process."""
    config: dict[str, dict[str, dict[str, str]]] = np.show_config(mode="dicts")  # type: ignore[assignment]
    blas = config.get("Build Dependencies", {}).get("blas", {})
    simd = config.get("SIMD Extensions", {})
    features = [*simd.get("baseline", ()), *simd.get("found", ())]
    core, threads = _openblas() or (os.environ.get("OPENBLAS_CORETYPE", "unknown"), _configured_threads())
    return "; ".join(
        [
            f"telegrad {__version__}",
            f"numpy {np.__version__}",
            f"ml_dtypes {ml_dtypes.__version__}",
            f"special functions {_scipy()}",
            f"blas {blas.get('name', '?')} {blas.get('version', '?')} core {core} threads {threads}",
            f"simd {' '.join(features)}",
            f"{platform.machine()} {platform.system()} {' '.join(platform.libc_ver())}".rstrip(),
        ]
    )


def _scipy() -> str:
    try:
        return f"scipy {version('scipy')}"
    except PackageNotFoundError:
        return "own"


def _openblas() -> tuple[str, int] | None:
    """The kernels that OpenBLAS chose for this processor and its number of threads, asked of the library in NumPy's
    wheel; None for another BLAS."""
    wheel = Path(np.__file__).parent
    for folder in (wheel.parent / "numpy.libs", wheel / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
                try:
                    library = ctypes.CDLL(str(path))  # loaded already: this only finds it
                    name = library[f"{prefix}openblas_get_corename{suffix}"]
                    count = library[f"{prefix}openblas_get_num_threads{suffix}"]
                except (OSError, AttributeError):
                    continue
                name.restype = ctypes.c_char_p
                return name().decode("ascii", "replace"), int(count())
    return None


def _configured_threads() -> int:
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        number = os.environ.get(name, "")
        if number.isdigit():
            return int(number)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
