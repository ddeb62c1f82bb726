"""What all roles do: take tokens from a file, speak one line, and stop on a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

from telegrad.errors import ResourceError

from telegrad_server.access import Gate
from telegrad_server.config import Config
from telegrad_server.datasets import Catalog, parse_roots

STOP_SECONDS = 5.0


def gate(config: Config) -> Gate:
    """Who may come in."""
    return Gate.from_file(config.token_file) if config.token_file else Gate()


def catalog(config: Config) -> Catalog | None:
    """The datasets under ``data_dir``, None without it. ResourceError if those to be registered are not there."""
    if config.data_dir is None:
        if config.dataset_roots:
            raise ResourceError("--dataset-roots needs --data-dir, where what cannot be read as it is gets unpacked")
        if config.checkpoint_store:
            raise ResourceError("--checkpoint-store needs --data-dir, where the journal is that knows the jobs")
        return None
    return Catalog(
        Path(config.data_dir) / "datasets",
        most_bytes=config.max_tenant_dataset_bytes,
        roots=parse_roots(config.dataset_roots),
        cache_bytes=config.cache_bytes,
    )


def say(text: str) -> None:
    """A line for whoever started the process, and waits for it."""
    print(text, flush=True)


def reachable(host: str) -> str:
    """An address to connect to for one to listen on."""
    return {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)


def stopping() -> asyncio.Event:
    """Set by SIGTERM or SIGINT; a second signal ends the process at once."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    is_asked = False

    def ask() -> None:
        nonlocal is_asked
        if is_asked:
            os._exit(1)
        is_asked = True
        event.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    return event
