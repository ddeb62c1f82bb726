"""A GPU's stand-in: generated CUDA as C++ on the host, so that its indices, sums and barriers are really run.

It shows that threads read and write the right elements, that no thread misses a barrier, that what is read at once is
aligned, and, run backwards, that nothing depends on which thread comes first. It shows nothing of speed, nor of two
threads at the same time.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from telegrad_server.executors.cuda_kernels import Start
from telegrad_server.executors.recycle import aligned_bytes

Array = Any
SHIM = Path(__file__).with_name("cuda_alike.h")
FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-w")

START = """extern "C" const char *start_NAME(unsigned x, unsigned y, unsigned threads, void **p, int backwards) {
    launch(NAME, x, y, threads, p, backwards);
    return faulted;
}"""


def host_compiler() -> str | None:
    """A C++ compiler that knows float16."""
    return shutil.which("g++")


class HostDevice:
    """Kernels run on the host. ``is_backwards``: the last block and the last thread first."""

    def __init__(self, folder: Path, *, is_backwards: bool = False) -> None:
        self.is_backwards = is_backwards
        self.started = 0
        self._folder = folder
        self._sources = 0

    def load(self, source: str, names: Sequence[str]) -> Mapping[str, Start]:
        self._sources += 1
        text, made = self._folder / f"{self._sources}.cpp", self._folder / f"{self._sources}.so"
        starts = [START.replace("NAME", name) for name in names]
        text.write_text("\n".join([SHIM.read_text(), source, *starts]))
        done = subprocess.run(["g++", *FLAGS, "-o", str(made), str(text)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]
        loaded = ctypes.CDLL(str(made))
        return {name: self._start(loaded[f"start_{name}"]) for name in names}

    def _start(self, function: Any) -> Start:
        function.restype = ctypes.c_char_p

        def start(grid: tuple[int, int], block: int, arrays: Sequence[Array]) -> None:
            self.started += 1
            pointers = (ctypes.c_void_p * len(arrays))(*[x.ctypes.data for x in arrays])
            fault = function(*grid, block, pointers, int(self.is_backwards))
            assert not fault, fault.decode()

        return start

    def room(self, nbytes: int) -> Array:
        room = aligned_bytes(nbytes)
        room.fill(0xFF)
        return room

    def address(self, array: Array) -> int:
        return array.ctypes.data

    def copied(self, array: Array) -> Array:
        room = aligned_bytes(array.nbytes).view(array.dtype).reshape(array.shape)
        room[...] = array
        return room
