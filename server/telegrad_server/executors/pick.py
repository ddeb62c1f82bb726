"""Which executor: the GPU if there is one that works, else NumPy, and the reason in words."""

from __future__ import annotations

from typing import Any

from telegrad.errors import ResourceError

from telegrad_server.executors.array import numpy_executor
from telegrad_server.executors.base import Executor


class BackendUnavailable(ResourceError):
    """The backend that was asked for cannot run here."""


def pick_executor(want: str = "auto", *, kernels: str = "off", kernels_dir: str | None = None) -> Executor:
    """The executor for "auto", "numpy" or "cupy"; ``reason`` says why there is no GPU.

    ``kernels`` is "auto" or "off"; compiled ones are kept in ``kernels_dir``, else in the user's cache.

    Raises BackendUnavailable if CuPy was asked for and does not work.
    """
    if kernels not in ("auto", "off"):
        raise BackendUnavailable(f"kernels {kernels!r} are not known; use auto or off")
    if want not in ("auto", "numpy", "cupy"):
        raise BackendUnavailable(f"backend {want!r} is not known; use auto, numpy or cupy")
    if want == "numpy":
        return numpy_executor(reason="asked for", kernels=kernels, kernels_dir=kernels_dir)
    executor, why = _try_cupy()
    if executor is not None:
        return executor
    if want == "cupy":
        raise BackendUnavailable(f"backend cupy cannot run here: {why}")
    return numpy_executor(reason=why, kernels=kernels, kernels_dir=kernels_dir)


def _try_cupy() -> tuple[Any, str]:
    """The CuPy executor after a kernel has run on the device, or why not."""
    try:
        import ml_dtypes  # noqa: F401  # pyright: ignore[reportUnusedImport]  # before cupy: registers bfloat16

        from telegrad_server.executors import cupy_module

        if not cupy_module.is_available():
            return None, "no usable CUDA device"
        return cupy_module.cupy_executor(), ""
    except Exception as error:  # a broken CUDA installation fails in many ways; NumPy must still run
        return None, f"{type(error).__name__}: {error}".splitlines()[0]
