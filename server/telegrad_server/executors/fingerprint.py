"""The execution fingerprint: all that decides the bits of a result, in words. Equal fingerprints, equal bits."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from importlib.util import find_spec

import numpy as np

from telegrad_server import __version__


@lru_cache
def numpy_fingerprint() -> str:
    """What decides the bits of NumPy's results on this machine."""
    config: dict[str, dict[str, dict[str, str]]] = np.show_config(mode="dicts")  # type: ignore[assignment]
    blas = config.get("Build Dependencies", {}).get("blas", {})
    simd = config.get("SIMD Extensions", {}).get("found", [])
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or str(_cores())
    core = os.environ.get("OPENBLAS_CORETYPE", "detected")
    return "; ".join(
        [
            f"telegrad {__version__}",
            f"numpy {np.__version__}",
            f"blas {blas.get('name', '?')} {blas.get('version', '?')} core {core} threads {threads}",
            f"simd {' '.join(simd)}",
            f"special {'scipy' if find_spec('scipy') else 'own'}",
            f"{platform.machine()} {platform.system()}",
        ]
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
