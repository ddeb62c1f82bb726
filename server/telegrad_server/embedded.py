"""The worker inside the client's process: what `telegrad.connect` loads when it is given no address."""

from __future__ import annotations

from functools import lru_cache

from telegrad_server.config import Config
from telegrad_server.executors import pick_executor
from telegrad_server.worker import Worker

_OPENED: set[str] = set()


@lru_cache
def open_worker(backend: str = "auto") -> Worker:
    """This process's worker for a backend; one for all sessions, since there is one device."""
    worker = Worker(Config(backend=backend, max_sessions=1 << 20), pick_executor(backend))
    worker.start()
    _OPENED.add(backend)
    return worker


def known_worker(backend: str) -> Worker | None:
    """The worker for a backend, if there is one already."""
    return open_worker(backend) if backend in _OPENED else None
