"""What sessions hold, to be looked at: by session, and in it by scope. Never what others' hold.

Looking takes the worker's lock, so it is bounded: where a session has very many names, only their number is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from telegrad_server.seats import Seat, Tenants
from telegrad_server.sessions import Session

MOST_SCOPES = 64
"""So many scopes of a session are told, those that were opened first."""

MOST_NAMES = 10_000
"""The bytes in a scope of more names are not added up."""


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
    is_job: bool
    is_attached: bool
    lease_seconds: float | None
    heard_seconds: float
    tensors: int
    bytes: int
    queued: int
    scopes: tuple[ScopeSight, ...]
    hidden_scopes: int


def census(seats: Iterable[Seat], tenant: str, now: float) -> list[SessionSight]:
    """The tenant's sessions; those whose replicas another worker's session has here are not among them."""
    return [_sight(seat, now) for seat in seats if seat.session.tenant == tenant and not seat.session.is_peers]


def validate_accounts(seats: Iterable[Seat], tenants: Tenants) -> None:
    """Assert that every session keeps its invariants, and that the accounts add up."""
    total = 0
    for seat in seats:
        seat.session.validate()
        total += seat.session.account.nbytes
        if seat.session.under_way is None:
            room = sum(upload.type.nbytes for upload in seat.uploads)
            assert seat.session.account.nbytes == seat.session.held_bytes() + room
    assert tenants.nbytes == total


def _sight(seat: Seat, now: float) -> SessionSight:
    session = seat.session
    scopes = list(session.names.scopes.all())
    return SessionSight(
        id=session.id,
        is_job=session.lease_seconds is None,
        is_attached=seat.deliver is not None,
        lease_seconds=session.lease_seconds,
        heard_seconds=max(0.0, now - session.heard_at),
        tensors=len(session.names),
        bytes=session.account.nbytes,
        queued=len(session.queue),
        scopes=tuple([_scope(session, scope) for scope in scopes[:MOST_SCOPES]]),
        hidden_scopes=max(0, len(scopes) - MOST_SCOPES),
    )


def _scope(session: Session, scope: int) -> ScopeSight:
    tree = session.names.scopes
    names = tree.names_in(scope)
    added = session.names.bytes_of(names) if len(session.names) <= MOST_NAMES else None
    return ScopeSight(scope, tree.parent(scope), len(names), added)
