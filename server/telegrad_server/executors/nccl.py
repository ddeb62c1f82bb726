"""A Communicator for arrays on GPUs, over NCCL. Never run on a device: written from CuPy 14.2's API.

NCCL's own sums have an order that follows from the number of GPUs, so only its transport is used: grouped sends and
receives bring the parts to the owner of each span, which adds them in the order of the tree, and the results to all.
The same scheme, and the same bits, as in host memory (`telegrad_server.cluster.collectives.routes`).

NCCL connects two members when they first exchange something, and holds up both until then; its collectives do so anew
for each of their algorithms. So only sends and receives are used, and everyone meets everyone when the group is made.

Everything runs on one stream of its own, behind what the caller's stream holds, so members must issue their calls in
the same order. A wait is the host's: were it the stream's, two sessions whose crews cross could wait for each other on
two devices for ever, each behind the other's wait. A group of the host's beside it carries NCCL's unique id, tells of
the death of members, and barriers; a thread aborts NCCL's kernels, which would wait for ever, when that group breaks or
a call takes too long.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import cupy as cp  # pyright: ignore[reportMissingImports]
import numpy as np
from cupy.cuda import nccl  # pyright: ignore[reportMissingImports]
from telegrad.errors import TimedOut, WorkerLost

from telegrad_server.executors.base import Array
from telegrad_server.executors.communicator import Communicator, Pending
from telegrad_server.executors.direct import KEY_BYTES
from telegrad_server.tree import Division, Node, spans

OPENING_SECONDS = 10.0
"""So long members wait for each other in NCCL when a group is made: the host's has just shown that they are there."""

_WATCH_SECONDS = 0.05
_BYTES = nccl.NCCL_UINT8


class NcclDoor:
    """Opens NCCL's groups on the device that is current: see `telegrad_server.executors.direct`."""

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds

    def key(self, rank: int, /) -> bytes:
        """NCCL's unique id, made by rank 0."""
        nccl.get_version()  # raises where the library is not there
        return bytes(nccl.get_unique_id()) if rank == 0 else bytes(KEY_BYTES)

    def open(self, host: Communicator, key: bytes, /) -> Nccl:
        """This member's end, once all have come."""
        group = Nccl(host, _meet(host, key), timeout_seconds=self._timeout_seconds)
        group.start()
        return group


def _meet(host: Communicator, key: bytes) -> Any:
    """NCCL's communicator. It waits for all members, for ever if one has died, so a thread of its own does that."""
    device = cp.cuda.Device()
    made: list[Any] = []
    failed: list[BaseException] = []

    def meet() -> None:
        try:
            device.use()
            made.append(nccl.NcclCommunicator(host.size, key, host.rank))
            _greet(made[0], host.size, host.rank)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=meet, name=f"telegrad nccl meets as rank {host.rank}", daemon=True)
    thread.start()
    until = time.monotonic() + OPENING_SECONDS
    try:
        while thread.is_alive():
            thread.join(_WATCH_SECONDS)
            host.check()
            if thread.is_alive() and time.monotonic() > until:
                raise TimedOut(f"NCCL brought no {host.size} members together within {OPENING_SECONDS:g} s")
        if failed:
            raise failed[0]
    except BaseException:
        for communicator in made:
            communicator.abort()  # else its kernels wait for ever. A thread still in NCCL's own start stays there
        raise
    return made[0]


def _greet(communicator: Any, size: int, rank: int) -> None:
    """Exchange a byte with everyone, so that all are connected, and what does not work shows now."""
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        mine, found = cp.full(size, rank % 256, np.uint8), cp.full(size, rank % 256, np.uint8)
        with _at_once():
            for peer in range(size):
                if peer != rank:
                    communicator.send(mine[peer : peer + 1].data.ptr, 1, _BYTES, peer, stream.ptr)
                    communicator.recv(found[peer : peer + 1].data.ptr, 1, _BYTES, peer, stream.ptr)
        said = cp.asnumpy(found)
    if said.tolist() != [peer % 256 for peer in range(size)]:
        raise RuntimeError(f"NCCL brought {said.tolist()} where every member was to send its number")


class Nccl:
    """One member's end of a group of GPUs, on the device that is current when it is made. `start` before its use."""

    def __init__(self, host: Communicator, communicator: Any, *, timeout_seconds: float) -> None:
        """``host``: the same members' group in host memory, which this one uses alone, and closes."""
        self.rank = host.rank
        self.size = host.size
        self.generation = host.generation
        self._host = host
        self._nccl = communicator
        self._timeout_seconds = timeout_seconds
        self._device = cp.cuda.Device()
        self._stream = cp.cuda.Stream(non_blocking=True)
        self._lock = threading.Condition()
        self._under_way: deque[_Call] = deque()
        self._is_closed = False
        self._thread = threading.Thread(target=self._watch, name=f"telegrad nccl rank {self.rank}", daemon=True)

    def start(self) -> None:
        """Start the thread that watches."""
        self._thread.start()

    def start_all_reduce(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Pending:
        """Begin to sum over all replicas into ``out`` on every rank."""
        target = out.reshape(-1)
        cut = spans(target.size, self.size)
        with _Issue(self, f"all_reduce of {out.dtype}[{out.size}]", (parts, out)) as issue:
            self._reduce(parts, target[slice(*cut[self.rank])], cut, division)
            self._gather(target, cut)
        return issue.call

    def all_reduce(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> None:
        """Sum over all replicas into ``out`` on every rank."""
        self.start_all_reduce(parts, out, division=division, tag=tag).wait(timeout_seconds=None)

    def reduce_scatter(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> None:
        """Sum over all replicas; this rank's span of the sum into ``out``."""
        self.start_reduce_scatter(parts, out, division=division, tag=tag).wait(timeout_seconds=None)

    def start_reduce_scatter(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Pending:
        """Begin to sum over all replicas; this rank's span of the sum into ``out``."""
        with _Issue(self, f"reduce_scatter of {out.dtype}[{parts[0].size}]", (parts, out)) as issue:
            self._reduce(parts, out.reshape(-1), spans(parts[0].size, self.size), division)
        return issue.call

    def all_gather(self, x: Array, out: Array, *, tag: int) -> None:
        """Every rank's ``x`` one after the other into ``out``."""
        self.start_all_gather(x, out, tag=tag).wait(timeout_seconds=None)

    def start_all_gather(self, x: Array, out: Array, *, tag: int) -> Pending:
        """Begin to put every rank's ``x`` one after the other into ``out``."""
        target = out.reshape(-1)
        cut = spans(target.size, self.size)
        with _Issue(self, f"all_gather of {out.dtype}[{out.size}]", (x, out)) as issue:
            target[slice(*cut[self.rank])] = x.reshape(-1)
            self._gather(target, cut)
        return issue.call

    def broadcast(self, x: Array, *, root: int, tag: int) -> None:
        """Fill ``x`` on every rank with what it is on ``root``."""
        with _Issue(self, f"broadcast of {x.dtype}[{x.size}]", (x,)) as issue:
            self._spread(x.reshape(-1), root)
        issue.call.wait(timeout_seconds=None)

    def send(self, x: Array, *, peer: int, tag: int) -> None:
        """Send to one rank."""
        with _Issue(self, f"send of {x.dtype}[{x.size}] to rank {peer}", (x,)) as issue:
            self._nccl.send(x.data.ptr, x.nbytes, _BYTES, peer, self._stream.ptr)
        issue.call.wait(timeout_seconds=None)

    def recv(self, out: Array, *, peer: int, tag: int) -> None:
        """Receive from one rank."""
        with _Issue(self, f"recv of {out.dtype}[{out.size}] from rank {peer}", (out,)) as issue:
            self._nccl.recv(out.data.ptr, out.nbytes, _BYTES, peer, self._stream.ptr)
        issue.call.wait(timeout_seconds=None)

    def barrier(self) -> None:
        """Return when every member has called it and what it issued before is done."""
        self._stream.synchronize()
        self._host.barrier()

    def check(self) -> None:
        """WorkerLost if the group is broken."""
        self._host.check()

    def abort(self, reason: str) -> None:
        """Break the group on every member."""
        self._host.abort(reason)
        with self._lock:
            self._lock.notify_all()

    def close(self) -> None:
        """Leave the group and end its threads."""
        self._host.close()
        self.give_up()

    def give_up(self) -> None:
        """End NCCL's part, and leave the host's group as it is."""
        with self._lock:
            self._is_closed = True
            self._lock.notify_all()
        self._thread.join()

    def enter(self, call: _Call) -> None:
        """A call is about to be issued: watch it."""
        with self._lock:
            self._under_way.append(call)
            self._lock.notify_all()

    def hasten(self, call: _Call, timeout_seconds: float) -> None:
        """A call must be done within so long from now."""
        with self._lock:
            call.until = min(call.until, time.monotonic() + timeout_seconds)

    @property
    def timeout_seconds(self) -> float:
        """How long a call may take."""
        return self._timeout_seconds

    @property
    def stream(self) -> Any:
        """What everything runs on."""
        return self._stream

    def _reduce(self, parts: Sequence[Array], out: Array, cut: list[tuple[int, int]], division: Division) -> None:
        first, last = cut[self.rank]
        own = dict(zip(division.nodes(self.rank), (part.reshape(-1) for part in parts)))
        sums = {node: part[first:last] for node, part in own.items()}
        wide = _sum_dtype(out.dtype)
        with _at_once():
            for rank, node in division.contributions:
                if rank != self.rank and last > first:
                    sums[node] = cp.empty(last - first, out.dtype if node[1] - node[0] == 1 else wide)
                    self._nccl.recv(sums[node].data.ptr, sums[node].nbytes, _BYTES, rank, self._stream.ptr)
            for peer, (start, stop) in enumerate(cut):
                for part in own.values() if peer != self.rank and stop > start else ():
                    piece = part[start:stop]
                    self._nccl.send(piece.data.ptr, piece.nbytes, _BYTES, peer, self._stream.ptr)
        if last > first:
            out[...] = _added(sums, division, wide)

    def _gather(self, out: Array, cut: list[tuple[int, int]]) -> None:
        first, last = cut[self.rank]
        mine = out[first:last]
        with _at_once():
            for peer, (start, stop) in enumerate(cut):
                if peer == self.rank:
                    continue
                if stop > start:
                    theirs = out[start:stop]
                    self._nccl.recv(theirs.data.ptr, theirs.nbytes, _BYTES, peer, self._stream.ptr)
                if last > first:
                    self._nccl.send(mine.data.ptr, mine.nbytes, _BYTES, peer, self._stream.ptr)

    def _spread(self, x: Array, root: int) -> None:
        with _at_once():
            for peer in range(self.size) if x.size else ():
                if self.rank == root and peer != root:
                    self._nccl.send(x.data.ptr, x.nbytes, _BYTES, peer, self._stream.ptr)
                elif self.rank == peer and peer != root:
                    self._nccl.recv(x.data.ptr, x.nbytes, _BYTES, root, self._stream.ptr)

    def _watch(self) -> None:
        """Break off what will never end."""
        self._device.use()
        while True:
            with self._lock:
                while self._under_way and self._under_way[0].is_done:
                    self._under_way.popleft()
                if self._is_closed:
                    break
                self._lock.wait(_WATCH_SECONDS if self._under_way else None)
                now = time.monotonic()
                late = [call.what for call in self._under_way if call.until < now and not call.is_done]
            try:
                self._host.check()
                self._nccl.check_async_error()
            except (WorkerLost, nccl.NcclError) as error:
                self._host.abort(f"NCCL: {error}")
                break
            if late:
                self._host.abort(f"{late[0]} was not done in time")
                break
        self._nccl.abort()  # its kernels end; what they have written is nothing that anybody will commit


class _Call:
    """An exchange that is issued."""

    def __init__(self, group: Nccl, what: str, arrays: object) -> None:
        self.what = what
        self.until = time.monotonic() + group.timeout_seconds
        self._group = group
        self._arrays = arrays  # held until it is done: their memory would be used again
        self._done = cp.cuda.Event(disable_timing=True)
        self._is_issued = False

    @property
    def is_done(self) -> bool:
        """Whether the device has done it."""
        return self._is_issued and bool(self._done.done)

    def record(self, stream: Any) -> None:
        """The stream has been given all of it."""
        self._done.record(stream)
        self._is_issued = True

    def wait(self, *, timeout_seconds: float | None) -> None:
        """Return when the result is in place. The group's thread, not this one, watches how long it takes."""
        if timeout_seconds is not None:
            self._group.hasten(self, timeout_seconds)
        self._done.synchronize()  # ends in any case: who breaks the group ends its kernels
        self._group.check()


class _Issue:
    """Inside it, work goes to the group's stream, after what the caller's stream holds now."""

    def __init__(self, group: Nccl, what: str, arrays: object) -> None:
        group.check()
        self.call = _Call(group, what, arrays)
        self._group = group

    def __enter__(self) -> _Issue:
        stream = self._group.stream
        stream.wait_event(cp.cuda.get_current_stream().record())
        self._group.enter(self.call)  # watched from here on: NCCL waits for others when two meet for the first time
        stream.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        stream = self._group.stream
        self.call.record(stream)
        stream.__exit__(*error)
        if isinstance(error[1], nccl.NcclError):  # it may be that the group's thread has just ended it all
            self._group.abort(f"NCCL: {error[1]}")
            self._group.check()


@contextmanager
def _at_once() -> Generator[None, None, None]:
    """Sends and receives inside it go out together, so that none waits for another; also after an error it is over."""
    nccl.groupStart()
    try:
        yield
    except BaseException:
        with suppress(nccl.NcclError):
            nccl.groupEnd()
        raise
    nccl.groupEnd()


def _added(sums: dict[Node, Array], division: Division, wide: Any) -> Array:
    for add in division.adds:
        left, right = sums.pop(add.left), sums.pop(add.right)
        sums[add.out] = cp.add(left.astype(wide, copy=False), right.astype(wide, copy=False))
    return sums[0, division.replicas]


def _sum_dtype(dtype: Any) -> Any:
    return np.dtype(np.float32) if dtype.itemsize == 2 and dtype.kind not in "iu" else dtype
