"""The seam between a session and its server: one Protocol, over gRPC or in process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from telegrad.errors import TelegradError
from telegrad.ir.types import Type
from telegrad.wire.messages import Command, Event

Deliver = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server says of itself."""

    server_version: str
    incarnation: str
    ops: frozenset[str]
    backend: str
    fingerprint: str
    warnings: tuple[str, ...]


class Connection(Protocol):
    """A session's line to its server. Commands take effect once and in order, whatever the network does."""

    greeting: Greeting

    def open(self, deliver: Deliver, lost: Callable[[TelegradError], None]) -> None:
        """Open the session; events go to ``deliver`` in order, the end of everything to ``lost``."""
        ...

    def send(self, command: Command) -> int:
        """Hand over a command; returns its sequence number at once (or when there is room)."""
        ...

    def supply(self, function: bytes, data: bytes) -> None:
        """Give the server a function's bytes, outside the sequence."""
        ...

    def upload(self, name: int, type: Type, array: npt.NDArray[Any]) -> None:
        """Send the bytes of a tensor that was announced by Expect. The array may be changed afterwards."""
        ...

    def download(self, type: Type, ticket: str) -> npt.NDArray[Any]:
        """The array behind a ticket."""
        ...

    def close(self) -> None:
        """End the session and free everything."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the session is still there, as far as is known."""
        ...
