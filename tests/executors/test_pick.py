"""Which executor, and why; what its bits depend on, in words."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from telegrad_server.executors import BackendUnavailable, pick_executor
from telegrad_server.executors.fingerprint import numpy_fingerprint


def test_numpy_is_there_when_asked_for() -> None:
    executor = pick_executor("numpy")

    assert (executor.name, executor.reason) == ("numpy", "asked for")


def test_without_cupy_auto_says_why_and_cupy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "telegrad_server.executors.cupy_module", raising=False)

    executor = pick_executor("auto")

    assert executor.name == "numpy"
    assert "cupy" in executor.reason
    with pytest.raises(BackendUnavailable, match="cupy cannot run here"):
        pick_executor("cupy")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(BackendUnavailable, match="not known"):
        pick_executor("tpu")


def test_the_fingerprint_names_what_decides_bits() -> None:
    words = numpy_fingerprint()

    for word in ("telegrad", f"numpy {np.__version__}", "blas", "core", "threads", "simd", "special functions"):
        assert word in words
