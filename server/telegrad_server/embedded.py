"""The worker inside the client's process: what `telegrad.connect` loads when it is given no address."""

from __future__ import annotations

import atexit
import os
from functools import lru_cache
from pathlib import Path

from telegrad_server.config import embedded_config
from telegrad_server.datasets import Catalog
from telegrad_server.executors import pick_executor
from telegrad_server.floor import Here
from telegrad_server.foreman import Foreman
from telegrad_server.worker import Worker

_OPENED: set[str] = set()


@lru_cache
def open_worker(backend: str = "auto") -> Worker:
    """This process's worker for a backend; one for all sessions, since there is one device."""
    config = embedded_config(backend, os.environ)
    worker = Worker(config, pick_executor(backend, kernels=config.native_kernels, kernels_dir=config.kernels_dir))
    worker.start()
    _OPENED.add(backend)
    return worker


def known_worker(backend: str) -> Worker | None:
    """The worker for a backend, if there is one already."""
    return open_worker(backend) if backend in _OPENED else None


def data_dir() -> Path:
    """Where this user's datasets and jobs are kept: TELEGRAD_DATA_DIR, else a folder of the user's data."""
    chosen = os.environ.get("TELEGRAD_DATA_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "telegrad"


def open_catalog() -> Catalog:
    """The datasets of this user; the folder is made when something is put."""
    return _catalog(data_dir())


def open_foreman(backend: str = "auto") -> Foreman:
    """The jobs of this user. ResourceError if another process has them open: one at a time may."""
    return _foreman(data_dir(), backend)


@lru_cache
def _foreman(folder: Path, backend: str) -> Foreman:
    foreman = Foreman(Here(open_worker(backend)), _catalog(folder), folder)
    foreman.start()
    atexit.register(foreman.stop)
    return foreman


@lru_cache
def _catalog(folder: Path) -> Catalog:
    return Catalog(folder / "datasets")
