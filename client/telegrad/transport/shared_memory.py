"""Uploads on one machine: an array's bytes are copied into memory that the server reads, and no stream carries them.

The server makes the memory, since it must never open what a client names; the client opens it through /proc, which asks
for the same user and shows nothing to another machine or container. Where that fails, uploads go on streams.
"""

from __future__ import annotations

import mmap
import os
import stat
import time
from collections import deque

import numpy as np
import numpy.typing as npt

from telegrad.critical import SLICE_SECONDS
from telegrad.wire.shared_memory import ALIGNMENT, FIRST_PLACE, MEMORY_BYTES, ROOM_BYTES, SETTLED, TOKEN_BYTES

AHEAD_BYTES = 16 << 20
"""So much may wait for the server, or two tensors: more would gain nothing, and memory used again is in the cache."""

PAUSE_SECONDS = 0.001
"""Between two looks at a memory that is full: then there is much to do for the server."""


def opened(pid: int, file: int, token: bytes) -> SharedMemory | None:
    """The memory that a server offers; None if it cannot be reached from here, or is another one."""
    path = f"/proc/{pid:d}/fd/{file:d}"
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size != MEMORY_BYTES:
            return None
        own = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            memory = mmap.mmap(own, MEMORY_BYTES)
        finally:
            os.close(own)
    except OSError:
        return None
    return SharedMemory(memory) if memory[:TOKEN_BYTES] == token else None


class SharedMemory:
    """The client's side of a session's shared memory. Room is given in turn, and taken back in the same order."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._settled = memoryview(memory)[SETTLED : SETTLED + 8].cast("Q")
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(memory, np.uint8)
        self._taken: deque[tuple[int, int, int]] = deque()  # of each Put under way: its number, and from where to where
        self._unsent: tuple[int, int] | None = None
        self._ahead = 0
        self._awaited = 0

    def takes(self, nbytes: int) -> bool:
        """Whether so many bytes ever fit."""
        return nbytes <= ROOM_BYTES

    def place(self, data: memoryview) -> int:
        """Where a copy of the bytes now lies; 0 if there is no room yet. Then `sent` must follow."""
        self._take_back()
        start = self._room(len(data))
        if not start:
            self._awaited = self._taken[(len(self._taken) - 1) // 2][0]
        else:
            end = start + len(data)
            self._bytes[start:end] = np.frombuffer(data, np.uint8)
            self._unsent = start, end + -end % ALIGNMENT
        return start

    def sent(self, sequence: int) -> None:
        """The command of this number has what was placed last."""
        if self._unsent is not None:
            self._taken.append((sequence, *self._unsent))
            self._ahead += self._unsent[1] - self._unsent[0]
            self._unsent = None

    def wait(self) -> None:
        """Wait until half of what was under way when there was no room is settled, but not for long."""
        end = time.monotonic() + SLICE_SECONDS
        while self._settled[0] < self._awaited and time.monotonic() < end:
            time.sleep(PAUSE_SECONDS)

    def _take_back(self) -> None:
        settled = self._settled[0]
        while self._taken and self._taken[0][0] <= settled:
            _, start, end = self._taken.popleft()
            self._ahead -= end - start

    def _room(self, nbytes: int) -> int:
        """Where so many bytes are free; 0 if nowhere. Low places first: what was used before is in the cache."""
        if not self._taken:
            return FIRST_PLACE
        if len(self._taken) >= 2 and self._ahead + nbytes > AHEAD_BYTES:
            return 0
        first, last = self._taken[0][1], self._taken[-1][2]
        if last <= first:  # what is taken goes on at the beginning
            return last if last + nbytes <= first else 0
        if FIRST_PLACE + nbytes <= first:
            return FIRST_PLACE
        return last if last + nbytes <= MEMORY_BYTES else 0
