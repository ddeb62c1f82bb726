"""What members of a group write to each other once they are connected: frames of a header and a few bytes.

A frame has the same header on a socket and in a ring in shared memory. ``start`` counts elements of the whole flat
array, ``part`` is an index into the division's contributions, ``digest`` says which call the sender is making, so
that two different calls under one tag are found out before any byte is mistaken for another.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from telegrad_server.executors.base import Array

HEADER = struct.Struct("<BBHIqQQI4x")
HEADER_BYTES = HEADER.size
PIECE_BYTES = 1 << 18
"""The most payload that a frame carries. It stays in a core's second-level cache between its copy and its addition."""

READY, PART, RESULT, BELL, ABORT, GOODBYE = range(1, 7)
"""READY: the sender has made the call and takes its data. PART: a piece to be added. RESULT: a piece of the result.
BELL: look into the ring. ABORT: the group is broken; who, why. GOODBYE: the sender leaves and sends nothing more."""

EVERYONE, PAIR = range(2)
"""Whom a tag's numbering counts for: calls of the whole group, or messages from one member to another."""


class Header(NamedTuple):
    """The fields in the order of the bytes: u8, u8, u16, u32, i64, u64, u64, u32, four zero bytes; little-endian."""

    kind: int
    space: int = 0
    part: int = 0
    digest: int = 0
    tag: int = 0
    sequence: int = 0
    start: int = 0
    length: int = 0


class Frame(NamedTuple):
    """A frame to be sent: its header, its payload as an array of bytes, and whom to tell when it is gone."""

    header: Header
    payload: Array | None = None
    owner: Owner | None = None


class Owner:
    """What a frame belongs to: counts what is not on its way yet."""

    unsent = 0


class LinkBroken(Exception):
    """A link cannot be used any more; the message says why. Never leaves this package."""


def checked(header: Header) -> Header:
    """The header, if a member of this version can have sent it; LinkBroken otherwise."""
    if not READY <= header.kind <= GOODBYE or header.length > PIECE_BYTES:
        raise LinkBroken(f"it sent bytes that are no frame ({header})")
    return header
