"""Files that are whole or not there: written beside their place, synced, renamed; and what errors of a disk mean."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from telegrad.errors import DataCorrupt, StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def storage(folder: Path) -> Generator[None, None, None]:
    """Inside the ``with`` a disk without room raises StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull(f"there is no room left where datasets are kept ({folder.name}): {error.strerror}") from None


def read_file(path: Path) -> bytes:
    """The bytes of a file of ours. FileNotFoundError; DataCorrupt for a link, which we do not make."""
    with os.fdopen(open_file(path), "rb") as file:
        return file.read()


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file of ours, never of what a link leads to."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DataCorrupt(f"{path.name} is a link where a file should be; somebody has put it there") from None
        raise


def write_file(path: Path, data: bytes) -> None:
    """Let the file hold the data, so that it lasts. Whatever happens, it is this one or the one before."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    with storage(path.parent):
        try:
            with os.fdopen(open_file(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(part)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let what was made, renamed and removed in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def only_one(path: Path) -> Generator[None, None, None]:
    """Inside the ``with`` no other process is inside one for the same file."""
    descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
