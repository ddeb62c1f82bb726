"""How long a call is tried again while its server cannot be reached, and after which failures."""

from __future__ import annotations

import threading
import time

from telegrad.errors import ServerUnavailable, SessionError, TelegradError

LONGEST_PAUSE_SECONDS = 2.0


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

    def wait(self, failure: TelegradError) -> None:
        """Wait a little; raises the failure if it is of another kind, or that has been too long."""
        if not isinstance(failure, ServerUnavailable) or time.monotonic() - self._began > self._seconds:
            raise failure
        if self._closing.wait(self._pause):
            raise failure
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)


def as_unavailable(error: TelegradError) -> TelegradError:
    """A call that was broken off, as a proxy or a server that stops does it, may be sent again as well."""
    if error.reason in ("CANCELLED", "DEADLINE_EXCEEDED", "CONNECTION_FAILED"):
        return ServerUnavailable(error.message)
    return error
