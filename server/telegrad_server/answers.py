"""What a worker answers to who asks for it, or for a session."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hello:
    """What the worker says of itself."""

    server_version: str
    incarnation: str
    ops: tuple[str, ...]
    backend: str
    fingerprint: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """A session as opened."""

    session_id: str
    session_secret: bytes
    lease_seconds: float
    incarnation: str
