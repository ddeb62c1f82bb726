"""Stops what nobody waits for any more: a loop looks at each trip whether the party its thread works for is gone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from telegrad.errors import Cancelled

if TYPE_CHECKING:
    from telegrad_server.executors.timing import Spans


class Party(Protocol):
    """Who wants the result."""

    @property
    def is_over(self) -> bool:
        """Whether nobody wants it any more."""
        ...


class _Working(threading.local):
    party: Party | None = None
    spans: Spans | None = None


WORKING = _Working()
"""``party`` is who this thread works for, ``spans`` where it says when it did what, if they want to know."""


def check_wanted() -> None:
    """Raise Cancelled if the party that this thread works for is gone."""
    party = WORKING.party
    if party is not None and party.is_over:
        raise Cancelled("its session has ended while it ran")
