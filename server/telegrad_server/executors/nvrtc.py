"""NVIDIA's run-time compiler: CUDA sources to machine code for a kind of GPU. It needs neither a GPU nor a driver.

The library is found by its name, or where pip puts it (`nvidia-cuda-nvrtc`). What it made is kept in the user's folder
of kernels (`compiling.code_folder`), under the SHA-256 of source, kind of GPU, options and version.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

OPTIONS = ("--std=c++17", "--fmad=false", "--disable-warnings")
"""No fast-math; products are not fused with sums, so that a value's bits follow from its own op."""

NAMES = ("libnvrtc.so.13", "libnvrtc.so.12")


class NvrtcError(RuntimeError):
    """The compiler refused a source: its log."""


class Nvrtc:
    """The compiler."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self._loaded = loaded
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def compiled(self, source: str, arch: str, options: Sequence[str] = ()) -> tuple[bytes, str]:
        """The machine code (a cubin) of a source for an arch such as "sm_90", and the log. Raises NvrtcError."""
        return self._made(source, arch, options, "nvrtcGetCUBIN")

    def _made(self, source: str, arch: str, options: Sequence[str], what: str) -> tuple[bytes, str]:
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
        try:
            given = [option.encode() for option in (f"--gpu-architecture={arch}", *OPTIONS, *options)]
            array = (ctypes.c_char_p * len(given))(*given)
            failed = self._loaded.nvrtcCompileProgram(program, len(given), array)
            log = self._bytes(program, "nvrtcGetProgramLog").rstrip(b"\0").decode(errors="replace")
            if failed:
                raise NvrtcError(log[-4000:])
            return self._bytes(program, what), log
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def ptx(self, source: str, arch: str) -> str:
        """The text of a source in the language before machine code, for tests. Raises NvrtcError."""
        virtual = arch.replace("sm_", "compute_")
        return self._made(source, virtual, (), "nvrtcGetPTX")[0].decode()

    def cubin(self, source: str, arch: str, folder: Path) -> Path:
        """The file of a source's machine code, from the folder or made now. Raises NvrtcError, OSError."""
        key = "\0".join([source, arch, *OPTIONS, self.version])
        path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.cubin"
        if not _is_own(path):
            code, _ = self.compiled(source, arch)
            with tempfile.TemporaryDirectory(dir=folder) as work:
                made = Path(work) / "kernels.cubin"
                made.write_bytes(code)
                made.rename(path)
        return path

    def _bytes(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"{what}Size", program, ctypes.byref(size))
        room = ctypes.create_string_buffer(size.value)
        self._call(what, program, room)
        return room.raw

    def _call(self, name: str, *arguments: Any) -> None:
        status = self._loaded[name](*arguments)
        if status:
            text = self._loaded.nvrtcGetErrorString
            text.restype = ctypes.c_char_p
            raise NvrtcError(f"{name}: {text(status).decode()}")


def _is_own(path: Path) -> bool:
    """Whether it is a plain file of this user's that nobody else may write."""
    if path.is_symlink() or not path.is_file():
        return False
    found = path.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


@lru_cache
def found_nvrtc(folder: Path | None = None) -> Nvrtc | None:
    """The compiler of this machine, or one that pip put into a folder (`--target`); None if there is none."""
    for name in _candidates(sys.path if folder is None else [str(folder)]):
        try:
            for part in sorted(Path(name).parent.glob("libnvrtc-builtins.so.*")) if "/" in name else ():
                ctypes.CDLL(str(part))  # it looks for this one by name alone
            return Nvrtc(ctypes.CDLL(name))
        except (OSError, NvrtcError):
            continue
    return None


def _candidates(folders: Sequence[str]) -> Iterator[str]:
    for folder in map(Path, folders):
        for pattern in ("nvidia/cu1?/lib/libnvrtc.so.1?", "nvidia/cuda_nvrtc/lib/libnvrtc.so.1?"):
            yield from map(str, sorted(folder.glob(pattern)))
    yield from NAMES
    yield from map(str, sorted(Path("/usr/local/cuda/lib64").glob("libnvrtc.so.1?")))
