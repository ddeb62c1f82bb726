"""Where a server's checkpoints are kept: under its own folder, on a path that is declared shared, or in S3.

A place that others can reach is marked with whose it is: who does not know a job takes its checkpoints for strays, so
two servers with journals of their own must not share one. The mark goes by the journal, which a server that takes over
has.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from telegrad.errors import ResourceError

from telegrad_server.checkpoints.failing import FailingBucket, FailingFiles
from telegrad_server.checkpoints.files import Output, RealFiles
from telegrad_server.checkpoints.folders import Folders
from telegrad_server.checkpoints.objects import Objects
from telegrad_server.checkpoints.s3 import S3Bucket
from telegrad_server.checkpoints.store import CheckpointStore
from telegrad_server.failpoints import Reached

OWNER = "owner"
"""The file that says whose a place is."""


def open_store(where: str, *, folder: Path, owner: str, reached: Reached) -> CheckpointStore:
    """The store at a path or an ``s3://`` address; at ``folder``, if ``where`` is empty.

    ResourceError, in a sentence, if it cannot be reached, or is not this owner's.
    """
    if not where:
        return CheckpointStore(Folders(folder, files=FailingFiles(RealFiles(), reached)))
    if "://" in where:
        bucket = S3Bucket(where)
        _claim(lambda: bucket.read(OWNER, 4096), lambda: bucket.create(OWNER), owner, where)
        return CheckpointStore(Objects(FailingBucket(bucket, reached)))
    path, files = Path(where), RealFiles()
    if not path.is_absolute() or not path.is_dir():
        raise ResourceError(f"--checkpoint-store {where}: there is no such folder; is it mounted?")
    _claim(lambda: files.read(path / OWNER, 4096), lambda: files.create(path / OWNER), owner, where)
    return CheckpointStore(Folders(path / "checkpoints", files=FailingFiles(files, reached)))


def _claim(read: Callable[[], memoryview], create: Callable[[], Output], owner: str, where: str) -> None:
    try:
        found = _said(read)
        if found is None:
            output = create()
            try:
                output.write(f"{owner}\n".encode())
                output.sync()
            finally:
                output.close()
            found = _said(read)  # of two that come at once, the later one's is there
    except OSError as error:
        message = f"--checkpoint-store {where}: it refuses ({error.strerror})"
        raise ResourceError(message, reason="STORAGE_FAILED") from error
    if found != owner:
        raise ResourceError(
            f"--checkpoint-store {where} keeps the checkpoints of another journal ({found}; this server's is {owner}):"
            " a server that takes over needs a copy of that journal, any other a place of its own"
        )


def _said(read: Callable[[], memoryview]) -> str | None:
    try:
        return bytes(read()).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
