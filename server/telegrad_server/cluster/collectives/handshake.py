"""How two members find each other: who they are, that both know the group's key, and whether they can share memory.

The one who connects (the higher rank) says which group, generation and ranks it means; the one who listens may refuse,
in words. Then each proves that it knows the key, over random numbers of both and all that was said, so that a proof is
of no use in another connection or in the other direction. This says who is there at the beginning; what follows is
neither signed nor hidden: that is TLS's work, where the network is not private.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import struct
import time
from dataclasses import asdict, dataclass, fields
from typing import cast

from telegrad_server.cluster.collectives.frames import LinkBroken

PROTOCOL = "telegrad collectives 1"
_LENGTH = struct.Struct("<I")
_MOST_BYTES = 4096
_NONCE_BYTES = 32


@dataclass(frozen=True)
class Hello:
    """What the one who connects says first."""

    protocol: str
    group: str
    generation: int
    rank: int
    to_rank: int

    def encode(self) -> bytes:
        """The bytes that both sides prove something over."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def decode(cls, data: bytes) -> Hello:
        """What `encode` wrote; LinkBroken if these bytes are something else."""
        try:
            found: object = json.loads(data)
        except ValueError:
            found = None
        if isinstance(found, dict):
            values = [cast("dict[str, object]", found).get(f.name) for f in fields(cls)]
            match values:
                case [str(protocol), str(group), int(generation), int(rank), int(to_rank)]:
                    return cls(protocol, group, generation, rank, to_rank)
                case _:
                    pass
        raise LinkBroken("it did not say hello")


class Line:
    """Short messages over a blocking socket, all of them until one moment."""

    def __init__(self, sock: socket.socket, *, until: float) -> None:
        self.sock = sock
        self._until = until

    def send(self, data: bytes) -> None:
        """Send a message. LinkBroken if it cannot be sent in time."""
        try:
            self.sock.settimeout(self._left())
            self.sock.sendall(_LENGTH.pack(len(data)) + data)
        except OSError as error:
            raise LinkBroken(f"the handshake broke ({error})") from None

    def receive(self) -> bytes:
        """The next message. LinkBroken if none comes in time or it is too long."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if length > _MOST_BYTES:
            raise LinkBroken("it sent a message that is no handshake")
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                self.sock.settimeout(self._left())
                more = self.sock.recv(count - len(data))
            except OSError as error:
                raise LinkBroken(f"the handshake broke ({error})") from None
            if not more:
                raise LinkBroken("it closed the connection in the handshake")
            data += more
        return bytes(data)

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise LinkBroken("the handshake took too long")
        return left


def nonce() -> bytes:
    """A random number for one connection."""
    return secrets.token_bytes(_NONCE_BYTES)


def proof(key: bytes, role: bytes, *said: bytes) -> bytes:
    """The proof that one knows the key, over all that was said."""
    lengths = b"".join(_LENGTH.pack(len(s)) for s in said)
    return hmac.new(key, b"".join([PROTOCOL.encode(), role, lengths, *said]), hashlib.sha256).digest()


def is_proof(found: bytes, key: bytes, role: bytes, *said: bytes) -> bool:
    """Whether a proof is right, in constant time."""
    return hmac.compare_digest(found, proof(key, role, *said))
