"""Tickets: what a gateway signs so that a worker believes whose session a call is for. Pure.

A ticket names a session (or none: the permission to open one), its tenant, its home and the home's process. It is
worth nothing to another process, so a worker that was started anew never serves sessions it does not hold.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from telegrad.errors import AccessError

_TICKET = b"telegrad ticket 1"
_PASSWORD = b"telegrad password 1"
_SIGNATURE_BYTES = 32
_SEPARATOR = "\0"
_OFFER = "offer "


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket says. ``session_id`` is empty for the permission to open a session."""

    session_id: str
    tenant: str
    worker: str
    incarnation: str
    is_peers: bool = False  # whether it is for another worker, which may form groups
    offer: str = ""  # the key of the one offer that it lets another worker take, and then nothing else
    weight: float = 1.0  # the share of a device that the tenant's sessions get


class Key:
    """The cluster's key, which the gateway and its workers share and no client sees."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise AccessError("the cluster's key must have 16 bytes or more")
        self._key = key

    @classmethod
    def from_file(cls, path: str) -> Key:
        """The key in a file of hexadecimal digits. AccessError if it cannot be read or is none."""
        try:
            with open(path, encoding="ascii") as file:
                key = bytes.fromhex(file.read().strip())
        except OSError as error:
            raise AccessError(f"the cluster's key {path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise AccessError(f"the cluster's key {path} must be hexadecimal digits") from error
        return cls(key)

    def sign(self, ticket: Ticket) -> bytes:
        """The ticket as bytes that only who has the key can make."""
        role = f"{_OFFER}{ticket.offer}" if ticket.offer else "peer" if ticket.is_peers else "client"
        fields = (ticket.session_id, ticket.tenant, ticket.worker, ticket.incarnation, role, f"{ticket.weight:g}")
        if any(_SEPARATOR in text for text in fields):
            raise AccessError("a ticket's words must not hold a null character")
        body = _SEPARATOR.join(fields).encode()
        return self._signature(_TICKET, body) + body

    def read(self, data: bytes) -> Ticket:
        """What a ticket says. AccessError (TICKET_INVALID) if this key did not sign it."""
        signature, body = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(_TICKET, body)):
            raise AccessError("the ticket was not signed by this cluster", reason="TICKET_INVALID")
        *words, role, weight = body.decode().split(_SEPARATOR)
        offer = role.removeprefix(_OFFER) if role.startswith(_OFFER) else ""
        return Ticket(*words, is_peers=role == "peer", offer=offer, weight=float(weight))

    @property
    def password(self) -> str:
        """What members of the cluster show each other beside TLS; the key cannot be found from it."""
        return self._signature(_PASSWORD, b"").hex()

    def _signature(self, purpose: bytes, body: bytes) -> bytes:
        return hmac.digest(self._key, purpose + b"\0" + body, hashlib.sha256)
