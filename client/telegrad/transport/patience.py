"""How long a call is tried again while its server cannot be reached, and after which failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from telegrad.errors import ServerUnavailable, SessionError, TelegradError

LONGEST_PAUSE_SECONDS = 2.0

_Answer = TypeVar("_Answer")


def closed() -> SessionError:
    """What is said to who asks for jobs, datasets or checkpoints through a session that was closed."""
    return SessionError(
        "the session is closed, and jobs, datasets and checkpoints were reached through it; connect again and take them"
        ' from the new session, as with session.jobs["name"]',
        reason="SESSION_CLOSED",
    )


def begun(call: Callable[[], _Answer], closing: threading.Event) -> _Answer:
    """What the call returns. SessionError (SESSION_CLOSED) once ``closing`` is set."""
    if closing.is_set():
        raise closed()
    try:
        return call()
    except ValueError:  # of grpc, for a channel that was closed meanwhile
        if not closing.is_set():
            raise
        raise closed() from None


class Patience:
    """Waits between tries, and raises when that has been too long. SessionError if it is closed already."""

    def __init__(self, seconds: float, closing: threading.Event) -> None:
        if closing.is_set():
            raise SessionError("the session is closed; connect again", reason="SESSION_CLOSED")
        self._seconds, self._closing = seconds, closing
        self.heard()

    def heard(self) -> None:
        """The server has answered: it is waited for from now on."""
        self._began, self._pause = time.monotonic(), 0.05

    def begin(self, call: Callable[[], _Answer]) -> _Answer:
        """What the call returns. SessionError (SESSION_CLOSED) once the session is closed."""
        return begun(call, self._closing)

    def wait(self, failure: TelegradError) -> None:
        """Wait a little; raises the failure if it is of another kind, or that has been too long.

        SessionError (SESSION_CLOSED) if the session was closed meanwhile.
        """
        if not isinstance(failure, ServerUnavailable) or time.monotonic() - self._began > self._seconds:
            raise failure
        if self._closing.wait(self._pause):
            raise closed()
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)


def as_unavailable(error: TelegradError) -> TelegradError:
    """A call that was broken off, as a proxy or a server that stops does it, may be sent again as well."""
    if error.reason in ("CANCELLED", "DEADLINE_EXCEEDED", "CONNECTION_FAILED"):
        return ServerUnavailable(error.message)
    return error
