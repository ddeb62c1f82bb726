"""Doors to groups over devices, of which each does what it is told to: for `member`, where there are no devices."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from telegrad_server.executors.communicator import Communicator
from telegrad_server.executors.direct import KEY_BYTES

WAIT_SECONDS = 1.0
"""So long one that can waits for others, as NCCL does, which says nothing of those that cannot."""


class Straight:
    """A group "over devices": the host's own, under another name."""

    def __init__(self, host: Communicator) -> None:
        self.host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)

    def give_up(self) -> None:
        self.host = None  # type: ignore[assignment]


class ToldDoor:
    """What happens at it is one of "opens", "no library", "does not open", "dies". Members meet in a folder."""

    def __init__(self, told: str, folder: Path) -> None:
        self._told = told
        self._folder = folder

    def key(self, rank: int, /) -> bytes:
        if self._told == "no library":
            raise OSError("libnccl.so.2: cannot open shared object file")
        return bytes([rank + 1]) * KEY_BYTES

    def open(self, host: Communicator, key: bytes, /) -> Straight:
        assert key == bytes([1]) * KEY_BYTES, "it is the first member's"
        if self._told == "does not open":
            raise RuntimeError("NCCL_ERROR_UNHANDLED_CUDA_ERROR: out of memory")
        if self._told == "dies":
            os._exit(1)
        (self._folder / str(host.rank)).touch()
        until = time.monotonic() + WAIT_SECONDS
        while len(list(self._folder.iterdir())) < host.size:
            host.check()
            if time.monotonic() > until:
                raise TimeoutError("the others did not come")
        return Straight(host)
