"""The kernel library: C sources with run-time shapes, compiled once on a machine, and the threads that run kernels.

The sources in ``telegrad_server/library`` are compiled as one. A kernel is called with the address of a C struct; the
class of the same name here or beside its caller fills it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any

from telegrad_server.compiler.c_words import PRELUDE
from telegrad_server.executors.blas import openblas
from telegrad_server.executors.compiling import Compiler, compiled, flags

FOLDER = Path(__file__).resolve().parent.parent / "library"

SOURCES = (
    "telegrad.h",
    "pool.c",
    "driver.c",
    "gemm.c",
    "attention.c",
    "copy.c",
    "strided.c",
    "rows.c",
    "random.c",
    "packed.c",
    "loop.c",
    "convolution.c",
    "pooling.c",
    "numbers.c",
)
"""In this order, since a source uses what those before it define."""

LINKS = ("-pthread", "-lm")


class Call(ctypes.Structure):
    """``struct tg_call``: a kernel, the address of its arguments, and its work."""

    _fields_ = (
        ("kernel", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("units", ctypes.c_long),
        ("serial", ctypes.c_long),
    )


class Pointer(ctypes.Structure):
    """``struct tg_pointer``: where a pointer is, and what it points to: bytes from the begin of an array."""

    _fields_ = (("at", ctypes.c_void_p), ("base", ctypes.c_long), ("offset", ctypes.c_long))


class Library:
    """The compiled library."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self._loaded = loaded
        self.run: Callable[[Any, int], None] = loaded.tg_run
        """Run an array of calls, and so many. The interpreter's lock is released meanwhile."""
        loaded.tg_run.argtypes, loaded.tg_run.restype = [ctypes.c_void_p, ctypes.c_long], None
        self.point: Callable[[Any, int, Any, int], None] = loaded.tg_point_arrays
        """Set pointers, so many, to the elements of these arrays, each of which begins with so many bytes of Python."""
        loaded.tg_point_arrays.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p, ctypes.c_long]
        loaded.tg_point_arrays.restype = None
        self.use_threads: Callable[[int], None] = loaded.tg_use_threads
        """How many threads run calls from now on, the caller among them."""
        loaded.tg_use_threads.argtypes, loaded.tg_use_threads.restype = [ctypes.c_long], None

    def count(self, name: str, *numbers: int) -> int:
        """What a function of whole numbers says: how many units a kernel has, or how much memory it takes."""
        function = self._loaded[name]
        function.restype = ctypes.c_long
        return function(*[ctypes.c_long(number) for number in numbers])

    def loop(self, loop: Any, first: int, last: int) -> None:
        """Run trips of a ``struct tg_loop``; the interpreter's lock is released meanwhile."""
        self._loaded.tg_loop(ctypes.byref(loop), ctypes.c_long(first), ctypes.c_long(last))

    def address(self, name: str) -> int:
        """The address of a kernel."""
        return address_in(self._loaded, name)


def address_in(loaded: ctypes.CDLL, name: str) -> int:
    """The address of a function in a loaded library."""
    found = ctypes.cast(loaded[name], ctypes.c_void_p).value
    assert found is not None
    return found


def source() -> str:
    """The text of the library."""
    texts = [(FOLDER / name).read_text() for name in SOURCES]
    texts.insert(1, PRELUDE)
    return "\n".join(texts).replace('#include "telegrad.h"\n', "")


class Making:
    """The library in the making: from the folder, or compiled, in the background if that began early enough."""

    def __init__(self, compiler: Compiler, folder: Path) -> None:
        self._compiler, self._folder = compiler, folder
        self._lock = threading.Lock()
        self._made: Future[Library | None] | None = None

    def begin(self) -> Future[Library | None]:
        """Begin with it unless that has been done."""
        with self._lock:
            if self._made is None:
                self._made = Future()
                threading.Thread(target=self._make, args=(self._made,), name="telegrad-library").start()
            return self._made

    def library(self) -> Library | None:
        """The library with its threads; None if the compiler fails, which is logged."""
        return self.begin().result()

    def _make(self, made: Future[Library | None]) -> None:
        try:
            loaded = compiled(source(), self._compiler, self._folder, links=LINKS)
            found = Library(loaded) if loaded is not None else None
            if found is not None:
                found.use_threads(threads())
            made.set_result(found)
        except BaseException as error:  # whoever waits for it shall have it
            made.set_exception(error)


@lru_cache
def library_of(compiler: Compiler, folder: Path) -> Making:
    """The library of this process: there is one pool of threads."""
    return Making(compiler, folder)


def trial() -> str:
    """A source that needs what the library needs of a machine: its headers, and what it is linked with."""
    includes = [line for line in source().splitlines() if line.startswith("#include <")]
    return "\n".join([*includes, "double tg_trial(double x) { return pow(x, pthread_self() != 0); }", ""])


def kernels_in_words(compiler: Compiler) -> str:
    """What decides the bits of kernels: the compiler, and in digits the library and the flags of everything."""
    digest = hashlib.sha256("\0".join([source(), *flags()]).encode()).hexdigest()
    return f"{compiler.version} {digest[:12]}"


def threads() -> int:
    """How many threads kernels may use: as many as BLAS, and no more than processors that this process may use."""
    own = openblas()
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    number = os.environ.get("OMP_NUM_THREADS", "")
    wanted = own.threads if own is not None else int(number) if number.isdigit() else found
    return max(1, min(found, wanted, _quota()))


def _quota() -> int:
    """The processors' worth of time that this container gets, rounded up."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):  # it does not say, or "max"
        return os.cpu_count() or 1
