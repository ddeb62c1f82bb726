"""What `executors.nccl` uses of CuPy and NCCL, on the host: devices do everything at once, members are threads.

It shows that every member sends what the others expect, and adds in the right order. It shows nothing of streams, nor
of what a GPU does.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import defaultdict
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any

import numpy as np

from tests.executors.away import Away

ONE_NCCL = 99
"""The type number of bytes."""


class NcclError(RuntimeError):
    """What NCCL raises."""


class _World:
    """The members of one group."""

    def __init__(self) -> None:
        self.lines: defaultdict[tuple[int, int], SimpleQueue[bytes]] = defaultdict(SimpleQueue)


class Nccl:
    """NCCL itself. A receiver that waits is ended by `abort`."""

    def __init__(self) -> None:
        self.worlds: defaultdict[bytes, _World] = defaultdict(_World)
        self.grouped = threading.local()

    def module(self) -> Any:
        found: Any = ModuleType("cupy.cuda.nccl")
        found.NCCL_UINT8 = ONE_NCCL
        found.NcclError = NcclError
        found.get_version = lambda: 22809
        found.get_unique_id = lambda: os.urandom(128)
        found.groupStart = self.start
        found.groupEnd = self.end
        found.NcclCommunicator = lambda size, key, rank: Member(self, self.worlds[key], rank)
        return found

    def start(self) -> None:
        assert getattr(self.grouped, "calls", None) is None, "a group within a group"
        self.grouped.calls = []

    def end(self) -> None:
        calls, self.grouped.calls = self.grouped.calls, None
        for call in sorted(calls, key=lambda call: call[0]):  # all sends, then all receives
            call[1]()

    def do(self, order: int, call: Any) -> None:
        grouped = getattr(self.grouped, "calls", None)
        call() if grouped is None else grouped.append((order, call))


class Member:
    """A communicator."""

    def __init__(self, nccl: Nccl, world: _World, rank: int) -> None:
        self._nccl, self._world, self._rank = nccl, world, rank
        self._is_over = threading.Event()

    def send(self, ptr: int, count: int, type: int, peer: int, stream: int) -> None:
        assert type == ONE_NCCL and peer != self._rank and count
        self._nccl.do(0, lambda: self._world.lines[self._rank, peer].put(ctypes.string_at(ptr, count)))

    def recv(self, ptr: int, count: int, type: int, peer: int, stream: int) -> None:
        assert type == ONE_NCCL and peer != self._rank and count
        self._nccl.do(1, lambda: self._receive(ptr, count, peer))

    def _receive(self, ptr: int, count: int, peer: int) -> None:
        found = None
        while found is None:
            if self._is_over.is_set():
                return  # a kernel that was aborted leaves what was there, and so does every later one
            with suppress(Empty):
                found = self._world.lines[peer, self._rank].get(timeout=0.01)
        assert len(found) == count, f"{peer} sent {len(found)} bytes, {self._rank} expected {count}"
        ctypes.memmove(ptr, found, count)

    def check_async_error(self) -> None:
        pass

    def abort(self) -> None:
        self._is_over.set()


class _Event:
    def __init__(self, *, disable_timing: bool = False) -> None:
        self.done = False

    def record(self, stream: Any) -> None:
        self.done = True

    def synchronize(self) -> None:
        assert self.done


class _Stream:
    ptr = 0

    def __init__(self, *, non_blocking: bool = False) -> None:
        pass

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def record(self) -> _Event:
        return _Event()

    def wait_event(self, event: _Event) -> None:
        pass

    def synchronize(self) -> None:
        pass


class _Device:
    def use(self) -> None:
        pass


def modules() -> dict[str, Any]:
    """By name, what to import instead."""
    cupy: Any = ModuleType("cupy")
    cuda: Any = ModuleType("cupy.cuda")
    cupy.cuda, cuda.nccl = cuda, Nccl().module()
    cuda.Event, cuda.Stream, cuda.Device = _Event, _Stream, _Device
    cuda.get_current_stream = _Stream
    cupy.empty = lambda shape, dtype: np.full(shape, 77).astype(dtype).view(Away)
    cupy.full = lambda shape, value, dtype: np.full(shape, value, dtype).view(Away)
    cupy.asnumpy = lambda x: np.array(x.view(np.ndarray))
    cupy.add = np.add
    return {"cupy": cupy, "cupy.cuda": cuda, "cupy.cuda.nccl": cuda.nccl}
