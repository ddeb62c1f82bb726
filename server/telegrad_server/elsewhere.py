"""What stands at home for a value that lives on another worker: who has it, under what name, and its type."""

from __future__ import annotations

from typing import Protocol

from telegrad.errors import TelegradError
from telegrad.ir.types import Shape, Type


class Peer(Protocol):
    """The worker that has the value, in another process of the same session."""

    worker: int
    """Its number in the session."""

    name: str

    lost: TelegradError | None
    """Why it is gone, and everything on it, if it is."""


class Elsewhere:
    """A value on another worker. When nobody holds this any more, the value is freed there."""

    __slots__ = ("__weakref__", "copy", "name", "peer", "type")

    nbytes = 0
    """What it takes here."""

    def __init__(self, peer: Peer, name: int, type: Type) -> None:
        self.peer = peer
        self.name = name
        self.type = type
        self.copy: bytes | None = None
        """The value itself, if it is a number that came home on the way."""

    @property
    def shape(self) -> Shape:
        """The sizes of the axes."""
        return self.type.shape
