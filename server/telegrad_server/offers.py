"""Values that other workers may take from this one: each once, by session and key, before or after it is there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from telegrad.wire import messages as m


class Offered(NamedTuple):
    """What is under a key "step/number": a value, or why there is none."""

    key: str
    value: Any = None
    error: m.ErrorRecord | None = None


Taken = Callable[[Offered], None]

GONE = m.ErrorRecord("SESSION_UNKNOWN", "the session that was to offer a value is over")


class Offers:
    """A worker's offers. Any thread; who takes one is told on the thread that makes it.

    ``bytes_of`` brings a value to the host.
    """

    def __init__(self, bytes_of: Callable[[Any], memoryview]) -> None:
        self.bytes_of = bytes_of
        self._lock = threading.Lock()
        self._there: dict[str, dict[str, Offered]] = {}
        self._wanted: dict[str, dict[str, Taken]] = {}

    def open(self, session_id: str) -> None:
        """A session has begun, which may offer something."""
        with self._lock:
            self._there[session_id] = {}

    def put(self, session_id: str, offered: Offered) -> None:
        """Make an offer. Those of another step of the session end with it: nobody has taken them, nobody will."""
        step = offered.key.partition("/")[0]
        with self._lock:
            taken = self._wanted.get(session_id, {}).pop(offered.key, None)
            known = self._there.get(session_id)
            if known is None:
                return
            for key in [key for key in known if key.partition("/")[0] != step]:
                del known[key]
            if taken is None:
                known[offered.key] = offered
        if taken is not None:
            taken(offered)

    def take(self, session_id: str, key: str, taken: Taken) -> None:
        """Tell ``taken`` what is offered under a key, now or once it is there; or that the session is over."""
        with self._lock:
            known = self._there.get(session_id)
            found = Offered(key, error=GONE) if known is None else known.pop(key, None)
            if found is None:
                self._wanted.setdefault(session_id, {})[key] = taken
        if found is not None:
            taken(found)

    def end(self, session_id: str) -> None:
        """The session is over: nothing of it is offered any more."""
        with self._lock:
            self._there.pop(session_id, None)
            wanted = self._wanted.pop(session_id, {})
        for key, taken in wanted.items():
            taken(Offered(key, error=GONE))
