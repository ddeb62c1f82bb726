"""Two rings of pieces in memory that two processes of one machine share: the fast half of a link.

The memory is a memfd: no name in a file system, nothing in /dev/shm, whose size (64 MB in a container) is no limit, and
nothing left when both processes are gone, however they went. The other side opens it as /proc/<pid>/fd/<n>, which asks
for the same user and the same process namespace; where that fails the link is its socket alone.

One producer and one consumer per ring; each writes one counter. The processors must not reorder stores with
stores or loads with loads, for Python has no fences: x86-64 only. The one order that x86 does not keep either, a store
before a later load, matters where a side goes to sleep and the other looks whether it does; there, taking a lock
is the fence.
"""

from __future__ import annotations

import mmap
import os
import platform
import threading

import numpy as np

from telegrad_server.cluster.collectives.frames import HEADER, PIECE_BYTES, Frame, Header, checked
from telegrad_server.cluster.collectives.stream import Sink

SLOTS = 4
_PAGE = 4096
_HEADERS = 64 * SLOTS
_RING_BYTES = _PAGE + SLOTS * PIECE_BYTES
Memory = mmap.mmap
MEMORY_BYTES = _PAGE + 2 * _RING_BYTES
TOKEN_BYTES = 32
# in a ring's first page, each in a cache line of its own: frames written, frames read; then the frames' headers
_HEAD, _TAIL, _FRAMES = 0, 64, 128
# in the first page, after the token
_SLEEPING = (128, 192)


def is_possible() -> bool:
    """Whether this machine has memfds and keeps stores in order."""
    return hasattr(os, "memfd_create") and platform.machine() in ("x86_64", "AMD64")


def create(token: bytes) -> tuple[int, Memory]:
    """A file descriptor of new memory that holds a token, and the memory."""
    fd = os.memfd_create("telegrad-collectives", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, MEMORY_BYTES)
        memory = mmap.mmap(fd, MEMORY_BYTES)
    except OSError:
        os.close(fd)
        raise
    memory[:TOKEN_BYTES] = token
    return fd, memory


def attach(pid: int, fd: int, token: bytes) -> Memory | None:
    """The memory that another process of this machine has made; None if it cannot be reached or is not that."""
    try:
        own = os.open(f"/proc/{pid:d}/fd/{fd:d}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(own).st_size != MEMORY_BYTES:
            return None
        memory = mmap.mmap(own, MEMORY_BYTES)
    except OSError:
        return None
    finally:
        os.close(own)
    return memory if memory[:TOKEN_BYTES] == token else None


class Rings:
    """One side's view of both rings. Side 0 made the memory, side 1 attached to it."""

    def __init__(self, memory: Memory, *, side: int, peer: int) -> None:
        self.peer = peer
        view = memoryview(memory)
        self._fence = threading.Lock()
        self._asleep = [view[at : at + 8].cast("Q") for at in _SLEEPING]
        self._own, self._other = self._asleep[side], self._asleep[1 - side]
        self._out = _Ring(memory, _PAGE + side * _RING_BYTES)
        self._in = _Ring(memory, _PAGE + (1 - side) * _RING_BYTES)

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be sent for now."""
        return self._out.head[0] - self._out.tail[0] >= SLOTS

    @property
    def is_empty(self) -> bool:
        """Whether nothing has arrived."""
        return self._in.head[0] == self._in.tail[0]

    def send(self, frame: Frame) -> None:
        """Put a frame into the ring, which must not be full."""
        ring = self._out
        count = ring.head[0]
        slot = count % SLOTS
        length = 0
        if frame.payload is not None:
            length = frame.payload.nbytes
            ring.slots[slot][:length] = frame.payload
        HEADER.pack_into(ring.memory, ring.frames + 64 * slot, *frame.header._replace(length=length))
        ring.head[0] = count + 1
        if frame.owner is not None:
            frame.owner.unsent -= 1

    def receive(self, sink: Sink, *, frames: int) -> int:
        """Take up to so many frames; how many there were."""
        ring = self._in
        count = ring.tail[0]
        taken = min(frames, ring.head[0] - count)
        for number in range(count, count + taken):
            slot = number % SLOTS
            header = checked(Header(*HEADER.unpack_from(ring.memory, ring.frames + 64 * slot)))
            payload = ring.slots[slot][: header.length]
            place = sink.place(self.peer, header)
            if place is not None:
                place[:] = payload
            sink.arrived(self.peer, header, payload if place is None else place, is_placed=place is not None)
            ring.tail[0] = number + 1
        return taken

    def sleeps(self) -> None:
        """Say that this side is about to wait for a bell. Look once more into the rings afterwards."""
        self._own[0] = 1
        with self._fence:
            pass

    def wakes(self) -> None:
        """Say that this side looks into the rings by itself."""
        self._own[0] = 0

    def must_ring(self) -> bool:
        """Whether the other side waits for a bell: asked after anything was put in or taken out, and answered once."""
        with self._fence:
            pass
        if not self._other[0]:
            return False
        self._other[0] = 0
        return True


class _Ring:
    def __init__(self, memory: Memory, start: int) -> None:
        view = memoryview(memory)
        self.memory = memory
        self.head = view[start + _HEAD : start + _HEAD + 8].cast("Q")
        self.tail = view[start + _TAIL : start + _TAIL + 8].cast("Q")
        self.frames = start + _FRAMES
        self.slots = [
            np.frombuffer(memory, np.uint8, PIECE_BYTES, start + _PAGE + slot * PIECE_BYTES) for slot in range(SLOTS)
        ]
