"""What sessions hold, to be looked at: by session, and in it by scope. Never what others' hold.

Looking takes the worker's lock, so it is bounded: of very many names only their number is told.
"""

from __future__ import annotations

from collections.abc import Iterable

from telegrad_server.seats import Seat, Tenants
from telegrad_server.sessions import Session
from telegrad_server.sights import ScopeSight, SessionSight

MOST_SCOPES = 64
"""So many scopes of a session are told, those that were opened first."""

MOST_SCOPES_IN_ALL = 2048
MOST_NAMES = 50_000
"""The bytes of so many names are added up by one census, in all; of scopes beyond, only the number of names is told."""


class _Budget:
    """What one census may still look at."""

    def __init__(self) -> None:
        self.names, self.scopes = MOST_NAMES, MOST_SCOPES_IN_ALL


def census(seats: Iterable[Seat], now: float, tenant: str | None = None) -> list[SessionSight]:
    """A tenant's sessions, or all; those whose replicas another worker's session has here are not among them."""
    budget = _Budget()
    return [
        _sight(seat, now, budget)
        for seat in seats
        if not seat.session.is_peers and (tenant is None or seat.session.tenant == tenant)
    ]


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


def _sight(seat: Seat, now: float, budget: _Budget) -> SessionSight:
    session = seat.session
    scopes = list(session.names.scopes.all())
    shown = scopes[: min(MOST_SCOPES, budget.scopes)]
    budget.scopes -= len(shown)
    return SessionSight(
        id=session.id,
        tenant=session.tenant,
        is_attached=seat.deliver is not None,
        lease_seconds=session.lease_seconds,
        heard_seconds=max(0.0, now - session.heard_at),
        tensors=len(session.names),
        bytes=session.account.nbytes,
        queued=len(session.queue),
        scopes=tuple([_scope(session, scope, budget) for scope in shown]),
        hidden_scopes=len(scopes) - len(shown),
    )


def _scope(session: Session, scope: int, budget: _Budget) -> ScopeSight:
    tree = session.names.scopes
    names = tree.names_in(scope)
    is_added = len(names) <= budget.names
    budget.names -= len(names) * is_added
    return ScopeSight(scope, tree.parent(scope), len(names), session.names.bytes_of(names) if is_added else None)
