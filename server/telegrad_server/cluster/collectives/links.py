"""A link to one other member: a socket, and beside it rings in shared memory where both are on one machine.

With rings all data goes through them, and the socket carries bells, the end, and the news that the other process is
gone, which memory alone never tells.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator

from telegrad_server.cluster.collectives.frames import BELL, Frame, Header
from telegrad_server.cluster.collectives.rings import Rings
from telegrad_server.cluster.collectives.stream import Sink, Stream

_BATCH = 4
"""Frames that are moved over one link before the others have their turn."""


class Link:
    """Queues of frames to one member, and the frames that come from it."""

    def __init__(self, sock: socket.socket, *, peer: int, rings: Rings | None) -> None:
        self.peer = peer
        self.stream = Stream(sock, peer)
        self.rings = rings
        self.has_left = False
        """Whether the member said goodbye."""
        self.control: deque[Frame] = deque()
        """For the socket, before everything else."""
        self.urgent: deque[Frame] = deque()
        """What others wait for: results, and that this side is ready. Just made, so still in the cache."""
        self.bulk: deque[Iterator[Frame]] = deque()
        """Parts, made when their turn comes."""

    @property
    def kind(self) -> str:
        """What the data goes through."""
        return "socket" if self.rings is None else "shared memory"

    def send_some(self) -> bool:
        """Send what goes without waiting, up to a batch; whether anything moved. LinkBroken."""
        moved = self.stream.flush()
        while self.control and self.stream.is_between_frames:
            self.stream.send(self.control.popleft())
            moved = True
        if self.rings is not None:
            return self._fill(self.rings) or moved
        for _ in range(_BATCH):
            if not self.stream.is_between_frames or (frame := self._next()) is None:
                break
            self.stream.send(frame)
            moved = True
        return moved

    def _fill(self, rings: Rings) -> bool:
        moved = False
        for _ in range(_BATCH):
            if rings.is_full or (frame := self._next()) is None:
                break
            rings.send(frame)
            moved = True
        if moved:
            self._ring(rings)
        return moved

    def receive_some(self, sink: Sink, *, is_readable: bool) -> tuple[bool, bool]:
        """Take what is there, up to a batch: whether anything came, whether the socket may hold more. LinkBroken."""
        came = has_more = False
        if is_readable:
            came = True
            has_more = self.stream.receive(sink, frames=_BATCH)
        if self.rings is not None and self.rings.receive(sink, frames=_BATCH):
            came = True
            self._ring(self.rings)
        return came, has_more

    def _ring(self, rings: Rings) -> None:
        if rings.must_ring():
            self.control.append(Frame(Header(BELL)))
            if self.stream.is_between_frames:
                self.stream.send(self.control.popleft())

    def _next(self) -> Frame | None:
        if self.urgent:
            return self.urgent.popleft()
        while self.bulk:
            frame = next(self.bulk[0], None)
            if frame is not None:
                return frame
            self.bulk.popleft()
        return None
