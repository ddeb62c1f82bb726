"""Pings of HTTP/2: gRPC's own clients make some between two frames of a server, a flood of them ends the connection."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.server.test_front import Front

SETTINGS, PING, GOAWAY, ACK = 4, 6, 7, 1

pytestmark = pytest.mark.slow


@pytest.fixture
def front() -> Iterator[Front]:
    front = Front()
    yield front
    front.close()


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, 0) + payload


def answered(port: int, pings: int) -> tuple[int, bytes]:
    """How many of so many pings in a row are answered, and what the server says if it wants no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS) + frame(SETTINGS, flags=ACK))
        read = line.makefile("rb")
        for number in range(pings):
            line.sendall(frame(PING, struct.pack(">Q", number)))
            while True:
                head = read.read(9)
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                payload = read.read(length)
                if kind == GOAWAY and payload[4:8] != bytes(4):
                    return number, payload[8:]
                if kind == PING and flags & ACK:
                    break
    return pings, b""


def test_pings_by_which_a_client_measures_its_line_are_no_offence(front: Front) -> None:
    assert answered(front.port, 50) == (50, b"")


def test_a_flood_of_pings_ends_its_connection(front: Front) -> None:
    count, why = answered(front.port, 10_000)

    assert count < 200
    assert why == b"too_many_pings"
