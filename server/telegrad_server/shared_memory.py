"""Memory that a session shares with a client on the same machine: large Puts name a place in it and bring no bytes.

It is a memfd: no name in a file system, and nothing left when both processes are gone, however they went. Its size is
sealed, so that a client cannot take pages away under a reader. Pages are made when the client first writes them, in its
own account. One session has one memory, and nobody hears where it is but who has the session's secret; another
user cannot open it at all.

A client may write while its bytes are being read, so they are copied before anything looks at them.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets

from telegrad.wire.shared_memory import FIRST_PLACE, MEMORY_BYTES, SETTLED, TOKEN_BYTES, can_share

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def new_memory() -> SharedMemory | None:
    """Memory to share; None on a machine that cannot."""
    if not can_share():
        return None
    file = -1
    try:
        file = os.memfd_create("telegrad-session", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(file, MEMORY_BYTES)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
        memory = mmap.mmap(file, MEMORY_BYTES)
    except OSError:
        if file >= 0:
            os.close(file)
        return None
    return SharedMemory(file, memory)


class SharedMemory:
    """The server's side of a session's shared memory."""

    def __init__(self, file: int, memory: mmap.mmap) -> None:
        self.pid = os.getpid()
        self.file = file
        self.nbytes = MEMORY_BYTES
        self.token = secrets.token_bytes(TOKEN_BYTES)
        memory[:TOKEN_BYTES] = self.token
        self._view = memoryview(memory)
        self._settled = self._view[SETTLED : SETTLED + 8].cast("Q")

    def bytes_at(self, place: int, nbytes: int) -> memoryview:
        """The bytes at a place; none if they would not all be in the memory."""
        if not FIRST_PLACE <= place <= self.nbytes - nbytes:
            return self._view[:0]
        return self._view[place : place + nbytes]

    def settle(self, sequence: int) -> None:
        """The bytes of commands up to this one are no longer needed."""
        self._settled[0] = sequence

    def close(self) -> None:
        """Nobody can open it any more; it goes with the last view of it."""
        os.close(self.file)
