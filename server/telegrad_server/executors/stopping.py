"""Stops what nobody waits for any more: a loop looks at each trip whether the party its thread works for is gone."""

from __future__ import annotations

import threading
from typing import Protocol

from telegrad.errors import Cancelled


class Party(Protocol):
    """Who wants the result."""

    @property
    def is_over(self) -> bool:
        """Whether nobody wants it any more."""
        ...


class _Working(threading.local):
    party: Party | None = None


WORKING = _Working()
"""``party`` is who this thread works for."""


def check_wanted() -> None:
    """Raise Cancelled if the party that this thread works for is gone."""
    party = WORKING.party
    if party is not None and party.is_over:
        raise Cancelled("its session has ended while it ran")
