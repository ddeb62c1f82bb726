"""What is shown of a session: how it stands, and what lives in its scopes. Never a value, and never a secret."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScopeSight:
    """A scope and what lives in it itself. ``bytes`` is None where nobody has added them up."""

    scope: int
    parent: int
    tensors: int
    bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSight:
    """A session. ``lease_seconds`` is None for one of a job, which never ends by itself."""

    id: str
    tenant: str
    is_attached: bool
    lease_seconds: float | None
    heard_seconds: float
    tensors: int
    bytes: int
    queued: int
    scopes: tuple[ScopeSight, ...]
    hidden_scopes: int

    @property
    def is_job(self) -> bool:
        """Whether a job runs in it."""
        return self.lease_seconds is None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a worker shows of itself, for people to look at: nothing is decided by it. 0 bytes: it does not know."""

    memory_bytes: int = 0
    used_memory_bytes: int = 0
    sights: tuple[SessionSight, ...] = ()
