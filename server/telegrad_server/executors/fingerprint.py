"""The execution fingerprint: all that decides the bits of a result, in words. Equal fingerprints, equal bits."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

import ml_dtypes
import numpy as np

from telegrad_server import __version__
from telegrad_server.executors.blas import openblas


@lru_cache
def numpy_fingerprint(compiler: str = "") -> str:
    """What decides the bits of NumPy's results in this process, and of those of kernels made by a compiler."""
    config: dict[str, dict[str, dict[str, str]]] = np.show_config(mode="dicts")  # type: ignore[assignment]
    blas = config.get("Build Dependencies", {}).get("blas", {})
    simd = config.get("SIMD Extensions", {})
    features = [*simd.get("baseline", ()), *simd.get("found", ())]
    own = openblas()
    core = own.core if own is not None else "unknown"
    threads = own.threads if own is not None else _configured_threads()
    return "; ".join(
        [
            f"telegrad {__version__}",
            f"numpy {np.__version__}",
            f"ml_dtypes {ml_dtypes.__version__}",
            f"special functions {_scipy()}",
            f"blas {blas.get('name', '?')} {blas.get('version', '?')} core {core} threads {threads}",
            f"simd {' '.join(features)}",
            f"kernels {compiler or 'none'}",
            f"{platform.machine()} {platform.system()} {' '.join(platform.libc_ver())}".rstrip(),
        ]
    )


def _scipy() -> str:
    try:
        return f"scipy {version('scipy')}"
    except PackageNotFoundError:
        return "own"


def _configured_threads() -> int:
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        number = os.environ.get(name, "")
        if number.isdigit():
            return int(number)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
