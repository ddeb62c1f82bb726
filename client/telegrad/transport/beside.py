"""What a server does besides sessions, datasets and jobs: over channels that are opened when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from telegrad.errors import SessionError
from telegrad.transport.access import Address, parse_address
from telegrad.transport.channel import open_channel
from telegrad.transport.hello import access_metadata
from telegrad.transport.patience import closed
from telegrad.transport.remote_datasets import RemoteDatasets
from telegrad.transport.remote_jobs import RemoteJobs, Who

Front = tuple[Address, str | None, Sequence[tuple[str, str | bytes]]]
"""The server's own address, also where a session went on to a worker; its certificate's authority; and the token."""


class Beside:
    """Datasets and jobs of a server. ``who`` is the session, as `RemoteJobs` wants it."""

    def __init__(
        self,
        front: Front,
        *,
        who: Callable[[], Who],
        timeout_seconds: float,
        patience_seconds: float,
    ) -> None:
        address, ca_cert, metadata = front
        self._open = lambda: open_channel(address, ca_cert)
        self._metadata = tuple(metadata)
        self._who = who
        self._waits: Any = {"timeout_seconds": timeout_seconds, "patience_seconds": patience_seconds}
        self._is_closed = False
        self._datasets: RemoteDatasets | None = None
        self._jobs: RemoteJobs | None = None

    @property
    def datasets(self) -> RemoteDatasets:
        """Its datasets."""
        if self._datasets is None:
            self._check_open()
            self._datasets = RemoteDatasets(self._open(), self._metadata, **self._waits)
        return self._datasets

    @property
    def jobs(self) -> RemoteJobs:
        """Its jobs."""
        if self._jobs is None:
            self._check_open()
            self._jobs = RemoteJobs(self._open(), self._metadata, who=self._who, **self._waits)
        return self._jobs

    def _check_open(self) -> None:
        if self._is_closed:
            raise closed()

    def close(self) -> None:
        """Let go of the server."""
        self._is_closed = True
        for calls in (self._datasets, self._jobs):
            if calls is not None:
                calls.close()


def open_beside(
    address: str, *, token: str | None, ca_cert: str | None, timeout_seconds: float, patience_seconds: float
) -> Beside:
    """Datasets and jobs of a server without a session, which submitting alone needs. Close it in the end.

    ``patience_seconds``: for so long a server that cannot be reached is waited for.
    """
    where = parse_address(address)
    front = where, ca_cert, access_metadata(where, token)
    return Beside(front, who=_nobody, timeout_seconds=timeout_seconds, patience_seconds=patience_seconds)


def _nobody() -> Who:
    raise SessionError("a job is submitted by a session; open one with tg.connect", reason="SESSION_CLOSED")
