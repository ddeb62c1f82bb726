"""Values that other workers may take from this one: each once, by session and key, before or after it is there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from telegrad.wire import messages as m


class Offered(NamedTuple):
    """What is under a key "step/number": a value, or why there is none."""

    key: str
    value: Any = None
    error: m.ErrorRecord | None = None

    @property
    def step(self) -> int:
        """The run that it is for."""
        return step_of(self.key)


def step_of(key: str) -> int:
    """The run that an offer is for; -1 if the key names none."""
    number = key.partition("/")[0]
    return int(number) if number.isdecimal() and len(number) < 20 else -1


Taken = Callable[[Offered], None]

GONE = m.ErrorRecord("NOT_FOUND", "what was to be taken is offered no more")


@dataclass(slots=True, eq=False)
class _Session:
    """What one session offers in its latest step, and what others wait for."""

    step: int = -1
    there: dict[str, Offered] = field(default_factory=dict[str, Offered])
    wanted: dict[str, Taken] = field(default_factory=dict[str, Taken])


class Offers:
    """A worker's offers. Any thread; who takes one is told on the thread that makes it.

    ``bytes_of`` brings a value to the host.
    """

    def __init__(self, bytes_of: Callable[[Any], memoryview]) -> None:
        self.bytes_of = bytes_of
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}

    def open(self, session_id: str) -> None:
        """A session has begun, which may offer something."""
        with self._lock:
            self._sessions[session_id] = _Session()

    def put(self, session_id: str, offered: Offered) -> None:
        """Make an offer. Those of earlier steps end with it: nobody waits for them any more."""
        told: list[tuple[Taken, Offered]] = []
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                return
            if offered.step > session.step:
                session.step = offered.step
                session.there.clear()
                for key in [key for key in session.wanted if step_of(key) < session.step]:
                    told.append((session.wanted.pop(key), Offered(key, error=GONE)))
            taken = session.wanted.pop(offered.key, None)
            if taken is not None:
                told.append((taken, offered))
            elif offered.step == session.step:
                session.there[offered.key] = offered
        for taken, found in told:
            taken(found)

    def take(self, session_id: str, key: str, taken: Taken) -> None:
        """Tell ``taken`` what is offered under a key, now or once it is there; or that it will never be."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or step_of(key) < session.step:
                found: Offered | None = Offered(key, error=GONE)
            else:
                found = session.there.pop(key, None)
                if found is None:
                    session.wanted[key] = taken
        if found is not None:
            taken(found)

    def end(self, session_id: str) -> None:
        """The session is over: nothing of it is offered any more."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
        for key, taken in (session.wanted if session is not None else {}).items():
            taken(Offered(key, error=GONE))
