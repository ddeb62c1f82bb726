"""A GPU for generated kernels, by way of CuPy: machine code from our own use of NVRTC, loaded and started by CuPy.

CuPy comes as an argument: this module loads without it, and tests give a stand-in. What it does has not run on a device
yet (`docs/gpu.md`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from telegrad_server.compiler.cuda_words import DEVICE
from telegrad_server.executors.cuda_kernels import Start
from telegrad_server.executors.nvrtc import Nvrtc

Array = Any


class CupyDevice:
    """The current GPU; kernels are started on the current stream. ``arch`` is such as "sm_90"."""

    def __init__(self, cp: Any, nvrtc: Nvrtc, arch: str, folder: Path) -> None:
        self._cp = cp
        self._nvrtc = nvrtc
        self._arch = arch
        self._folder = folder

    def load(self, source: str, names: Sequence[str]) -> Mapping[str, Start]:
        """The kernels of a source, compiled now or before. Raises NvrtcError, OSError, or what CuPy raises."""
        path = self._nvrtc.cubin(DEVICE + source, self._arch, self._folder)
        module = self._cp.RawModule(path=str(path))
        return {name: _start(module.get_function(name)) for name in names}

    def room(self, nbytes: int) -> Array:
        """Memory from CuPy's pool, which begins at a multiple of 512 bytes."""
        return self._cp.empty(nbytes, np.uint8)

    def address(self, array: Array) -> int:
        """Where an array's first element is."""
        return array.data.ptr

    def copied(self, array: Array) -> Array:
        """A copy in C order."""
        return self._cp.array(array, order="C", copy=True)


def _start(kernel: Any) -> Start:
    def start(grid: tuple[int, int], block: int, arrays: Sequence[Array]) -> None:
        kernel(grid, (block,), tuple(arrays))

    return start
