"""Frames over a socket, TCP or TLS, without blocking: one end of a link."""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

import numpy as np

from telegrad_server.cluster.collectives.frames import (
    HEADER,
    HEADER_BYTES,
    PIECE_BYTES,
    Frame,
    Header,
    LinkBroken,
    checked,
)
from telegrad_server.executors.base import Array

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Sink(Protocol):
    """Takes the frames that arrive."""

    def place(self, peer: int, header: Header) -> Array | None:
        """The bytes in which the payload is to be put; None if it is to be handed over in memory of the link's own."""
        ...

    def arrived(self, peer: int, header: Header, payload: Array, *, is_placed: bool) -> None:
        """A whole frame. Where it was not placed, the payload's memory is used again afterwards."""
        ...


class Stream:
    """Sends and receives frames on a connected socket as far as that goes without waiting."""

    def __init__(self, sock: socket.socket, peer: int) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.peer = peer
        self.is_blocked = False
        """Whether the last frame is not gone because the socket takes no more."""
        self.is_ended = False
        """Whether the peer has closed its end."""
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._frame: Frame | None = None
        self._rest: list[memoryview] = []
        self._head = bytearray(HEADER_BYTES)
        self._own = np.empty(PIECE_BYTES, np.uint8)
        self._header: Header | None = None
        self._is_placed = False
        self._payload: Array = self._own[:0]
        self._missing = memoryview(self._head)

    @property
    def is_between_frames(self) -> bool:
        """Whether all that was given to `send` is in the socket."""
        return self._frame is None

    def send(self, frame: Frame) -> None:
        """Begin to send a frame; `is_between_frames` must hold."""
        length = 0 if frame.payload is None else frame.payload.nbytes
        self._rest = [memoryview(HEADER.pack(*frame.header._replace(length=length)))]
        if frame.payload is not None and length:
            self._rest.append(memoryview(frame.payload))
        self._frame = frame
        self.flush()

    def flush(self) -> bool:
        """Send what is left of a frame; whether any byte went. LinkBroken if the peer is gone."""
        moved = False
        while self._frame is not None:
            try:
                sent = self.sock.send(self._rest[0]) if self._is_tls else self.sock.sendmsg(self._rest)
            except WOULD_BLOCK:
                self.is_blocked = True
                return moved
            except OSError as error:
                raise LinkBroken(f"sending to it failed ({error})") from None
            moved = True
            while self._rest and sent >= len(self._rest[0]):
                sent -= len(self._rest.pop(0))
            if self._rest:
                self._rest[0] = self._rest[0][sent:]
                continue
            if self._frame.owner is not None:
                self._frame.owner.unsent -= 1
            self._frame = None
        self.is_blocked = False
        return moved

    def detach_payload(self) -> None:
        """Copy what is left of a frame, so that the arrays it comes from may change."""
        self._rest = [memoryview(bytes(rest)) for rest in self._rest]

    def receive(self, sink: Sink, *, frames: int) -> bool:
        """Take up to so many frames; whether there may be more. LinkBroken if the peer has broken off."""
        for _ in range(frames):
            if not self._fill():
                return False
            if self._header is None:
                self._header = checked(Header(*HEADER.unpack(self._head)))
                place = sink.place(self.peer, self._header)
                self._is_placed = place is not None
                self._payload = self._own[: self._header.length] if place is None else place
                self._missing = memoryview(self._payload)
                if not self._fill():
                    return False
            header, self._header = self._header, None
            self._missing = memoryview(self._head)
            sink.arrived(self.peer, header, self._payload, is_placed=self._is_placed)
        return True

    def _fill(self) -> bool:
        while len(self._missing):
            try:
                count = self.sock.recv_into(self._missing)
            except WOULD_BLOCK:
                return False
            except OSError as error:
                raise LinkBroken(f"its connection broke ({error})") from None
            if not count:
                self.is_ended = True
                raise LinkBroken("its connection closed without a goodbye")
            self._missing = self._missing[count:]
        return True
