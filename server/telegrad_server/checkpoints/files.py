"""What checkpoints ask of a file system, one call a step of the protocol, and the real one.

The seam is where tests stand: they count the calls, fail the i-th, and enumerate what a crash between any two may
leave on a disk. Nothing but a sync makes anything last: one a file's bytes, the other a folder's names.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from telegrad.errors import DataCorrupt, ResourceError, StorageAway, StorageFull, TelegradError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_AWAY = (errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH)
_PIECE = 4 << 20  # bytes a system call: each lets go of the interpreter's lock, and none takes long to be interrupted


class Output(Protocol):
    """A file being written."""

    def write(self, data: bytes | memoryview) -> None:
        """Append all of it."""
        ...

    def sync(self) -> None:
        """Return once the bytes last."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Files(Protocol):
    """A file system, by full paths. Every call raises OSError as the system does."""

    def make_folder(self, path: Path) -> None:
        """Make an empty folder; FileExistsError if the name is taken."""
        ...

    def create(self, path: Path) -> Output:
        """Begin a file; FileExistsError if the name is taken."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Return once the folder's names, new, changed and gone, last."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Rename a folder, at one stroke; OSError if the new name is that of a folder with something in it."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file."""
        ...

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        ...

    def names(self, path: Path) -> list[str]:
        """What is in a folder."""
        ...

    def read(self, path: Path, most_bytes: int) -> memoryview:
        """The bytes of a file, in memory of their own, as far as ``most_bytes``."""
        ...

    def size(self, path: Path) -> int:
        """The bytes of a file."""
        ...

    def room(self, path: Path) -> int:
        """The bytes for which there is room below a folder."""
        ...


class RealFiles:
    """The file system of the machine. It follows no links, since a store makes none."""

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700)

    def create(self, path: Path) -> Output:
        return _RealOutput(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))

    def sync_folder(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def remove_folder(self, path: Path) -> None:
        os.rmdir(path)

    def names(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))

    def read(self, path: Path, most_bytes: int) -> memoryview:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            view = np.empty(min(os.fstat(descriptor).st_size, most_bytes), np.uint8).data  # not filled with zeros first
            filled = 0
            while filled < len(view) and (count := file.readinto(view[filled : filled + _PIECE])):
                filled += count
            return view[:filled]

    def size(self, path: Path) -> int:
        return os.stat(path, follow_symlinks=False).st_size

    def room(self, path: Path) -> int:
        disk = os.statvfs(path)
        return disk.f_bavail * disk.f_frsize


class _RealOutput:
    """An open descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest[:_PIECE]) :]

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


@contextmanager
def storing(what: str) -> Generator[None]:
    """Inside the ``with`` an error of the disk is one of ours.

    StorageFull or StorageAway for what passes, else STORAGE_FAILED.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, TelegradError):  # of who brings the tensors: a worker that is lost is an OSError too
            raise
        if error.errno in _FULL:
            raise StorageFull(f"{what}: the disk has no room ({error.strerror}); free some and it goes on") from error
        if error.errno in _AWAY:
            raise _away(what, error) from error
        raise ResourceError(
            f"{what}: the disk refused ({error.strerror}); see to where checkpoints are kept",
            reason="STORAGE_FAILED",
            errno=error.errno,
        ) from error


@contextmanager
def reading(file: str) -> Generator[None]:
    """Inside the ``with`` a file that is not there, or that the disk cannot read, is DataCorrupt.

    But for one that may be read later: StorageAway.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _AWAY:
            raise _away(file, error) from error
        raise DataCorrupt(
            f"{file} cannot be read: {error.strerror}; an older checkpoint may do",
            file=file,
            expected="a file that can be read",
            found=error.strerror,
        ) from error


def _away(what: str, error: OSError) -> StorageAway:
    return StorageAway(f"{what}: where checkpoints are kept nobody answers ({error.strerror}); it goes on by itself")
