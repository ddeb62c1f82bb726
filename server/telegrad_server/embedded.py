"""The worker inside the client's process: what `telegrad.connect` loads when it is given no address."""

from __future__ import annotations

from functools import lru_cache

from telegrad_server.config import Config
from telegrad_server.executors import pick_executor
from telegrad_server.worker import Worker


@lru_cache
def open_worker(backend: str = "auto") -> Worker:
    """This process's worker for a backend; one for all sessions, since there is one device."""
    worker = Worker(Config(backend=backend, max_sessions=1 << 20), pick_executor(backend))
    worker.start()
    return worker
