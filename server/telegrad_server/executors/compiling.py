"""C sources to loaded libraries: gcc or clang, and a folder of what was compiled before.

The folder is this user's alone. A library is found there by the SHA-256 of its source, compiler, flags and processor;
it is written beside and renamed, so that none is read half-written. Loading a library runs it, so a folder that
belongs to somebody else, or that others may write to, is not used: a fresh one is, for this process.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

COMPILERS = ("gcc", "clang", "cc")

FLAGS = (
    "-O2", "-ftree-vectorize", "-march=native", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno",
    "-fno-trapping-math", "-fopenmp-simd", "-fPIC", "-shared", "-w",
)  # fmt: skip
"""No fast-math: NaN, infinities and signed zeros keep their meaning. With -O3 the library takes nearly twice as long to
compile, and steps of the models in bench/ take as long."""

NOTHING = ("-nostdlib",)
"""What a source is linked with that uses no library."""

COMPILE_SECONDS = 120.0


class Compiler(NamedTuple):
    """A compiler: its path, and what it says it is."""

    path: str
    version: str


@lru_cache
def found_compiler() -> Compiler | None:
    """The first compiler on this machine that says its version."""
    if os.name != "posix":
        return None
    for name in COMPILERS:
        path = shutil.which(name)
        if path is None:
            continue
        try:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        if said.strip():
            return Compiler(path, said.strip().splitlines()[0])
    logging.info("there is no C compiler here (gcc or clang): NumPy runs every op")
    return None


@lru_cache
def processor() -> str:
    """What decides which instructions `-march=native` means."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "features", "cpu implementer", "cpu part")
    lines = dict.fromkeys(line for line in text.splitlines() if line.lower().startswith(wanted))
    return "\n".join([platform.machine(), *lines])


def flags() -> tuple[str, ...]:
    """The compiler's flags on this processor."""
    return (*FLAGS, "-mprefer-vector-width=512") if " avx512f" in processor() else FLAGS


def compiled(source: str, compiler: Compiler, folder: Path, *, links: Sequence[str] = NOTHING) -> ctypes.CDLL | None:
    """The library of a source, from the folder or made now; None if the compiler fails, which is logged."""
    key = "\0".join([source, compiler.path, compiler.version, *flags(), *links, processor()])
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.so"
    library = _loaded(path)
    if library is not None:
        return library
    try:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            made, text = Path(work) / "kernels.so", Path(work) / "kernels.c"
            text.write_text(source)
            command = [compiler.path, *flags(), "-o", str(made), str(text), *links]
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
            if done.returncode:
                logging.warning("%s failed; NumPy runs instead: %s", compiler.path, done.stderr[-2000:])
                return None
            made.rename(path)
    except (OSError, subprocess.SubprocessError) as error:
        logging.warning("%s failed; NumPy runs instead: %s", compiler.path, error)
        return None
    library = _loaded(path)
    if library is None:
        logging.warning("what %s has made in %s cannot be loaded; NumPy runs instead", compiler.path, folder)
    return library


def _loaded(path: Path) -> ctypes.CDLL | None:
    """The library at a path that is a plain file of this user's and that nobody else may write; else None."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return None
        return ctypes.CDLL(str(path))
    except OSError:  # not there, or not whole: it is made again
        return None


@lru_cache
def working_folder(source: str, compiler: Compiler, kept: str | None, *, links: Sequence[str]) -> Path | None:
    """The folder for what the compiler makes: ``kept``, by default in the user's cache; a fresh one for this process if
    that is not private, or cannot be written, or is full. None, which is logged, if the compiler cannot make the
    library of ``source`` in either.
    """
    wanted = private_folder(Path(kept) if kept else _wanted_folder())
    for folder in (wanted, _own_folder):
        found = folder() if callable(folder) else folder
        if found is not None and compiled(source, compiler, found, links=links) is not None:
            return found
    return None


def code_folder() -> Path | None:
    """The user's folder of compiled kernels, for code that this machine only passes on; a fresh one for this process if
    that is not private, None if there is none."""
    return private_folder(_wanted_folder()) or _own_folder()


def private_folder(folder: Path | None) -> Path | None:
    """The folder, made if it is missing; None unless it is this user's, no link, and closed to everyone else."""
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    is_private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    if not is_private:
        logging.warning("%s is not private to this user and is not used for compiled kernels", folder)
    return folder if is_private and os.access(folder, os.W_OK) else None


def _wanted_folder() -> Path | None:
    try:
        base = os.environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / "telegrad" / "kernels"
    except RuntimeError:  # a user without a home
        return None


def _own_folder() -> Path | None:
    try:
        folder = Path(tempfile.mkdtemp(prefix="telegrad-kernels-"))
    except OSError as error:
        logging.warning("there is no folder for compiled kernels: %s", error)
        return None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
