"""A column on its way to the disk: its bytes go to a file beside its place, which outlives the connection and us.

Who sends the rest begins anew: what is in the file is hashed again, and the rest is written behind it. The column
stands in its place when its digest is the one that was announced, and is on the disk to stay.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from telegrad.errors import DataCorrupt, ServerUnavailable
from telegrad.ir.types import Type
from telegrad.wire.datasets import SLICE_BYTES, column_hash

from telegrad_server.datasets.disk import open_file, storage, sync_folder


class Part:
    """A column that is being received. ServerUnavailable, on any call, once another caller goes on with it."""

    def __init__(self, path: Path, place: Path, type: Type, digest: str) -> None:
        self.type = type
        self._path = path
        self._place = place
        self._digest = digest
        self._lock = threading.Lock()
        self._hash = column_hash(type)
        self._file = os.fdopen(open_file(path, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)
        try:
            self.received_bytes = self._begin()
        except BaseException:
            self._file.close()
            raise

    def _begin(self) -> int:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerUnavailable("another process receives the same bytes; try again") from None
        if not self._path.exists():  # it was finished between our opening and our locking it
            raise ServerUnavailable("another process has received the same bytes; try again")
        size = os.fstat(self._file.fileno()).st_size
        if size > self.type.nbytes:
            self._file.truncate(0)
            size = 0
        while data := self._file.read(SLICE_BYTES):
            self._hash.update(data)
        return size

    def write(self, chunk: bytes | memoryview) -> None:
        """The next bytes; DataCorrupt (DATA_LENGTH) at the first one too many, StorageFull."""
        with self._lock:
            self._check()
            end = self.received_bytes + len(chunk)
            if end > self.type.nbytes:
                message = f"a column of {self.type} takes {self.type.nbytes} bytes; the upload brought more"
                raise DataCorrupt(message, reason="DATA_LENGTH", expected=self.type.nbytes)
            view = memoryview(chunk)
            with storage(self._place.parent):
                while view:
                    written = self._file.write(view)
                    self._hash.update(view[:written])
                    self.received_bytes += written
                    view = view[written:]

    @property
    def is_whole(self) -> bool:
        """Whether all bytes have come."""
        return self.received_bytes == self.type.nbytes

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come by this object."""
        return self._file.closed

    def finish(self) -> None:
        """Put the column in its place. DataCorrupt, after which it must be sent anew, if its digest is another."""
        with self._lock:
            self._check()
            if not self.is_whole:
                message = f"a column of {self.type} takes {self.type.nbytes} bytes; {self.received_bytes} have come"
                raise DataCorrupt(
                    message, reason="DATA_TRUNCATED", expected=self.type.nbytes, found=self.received_bytes
                )
            found = self._hash.hexdigest()
            if found != self._digest:
                os.unlink(self._path)
                message = f"a column of {self.type} was announced with the digest {self._digest}, and has {found}"
                raise DataCorrupt(f"{message}; send it again", expected=self._digest, found=found)
            with storage(self._place.parent):
                os.fsync(self._file.fileno())
                os.replace(self._path, self._place)
                sync_folder(self._place.parent)
            self._file.close()

    def close(self) -> None:
        """Stop receiving; what has come stays for whoever sends the rest."""
        with self._lock:
            self._file.close()

    def _check(self) -> None:
        if self._file.closed:
            raise ServerUnavailable("another call goes on with this upload; ask how far it has come")
