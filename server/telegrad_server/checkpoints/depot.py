"""What checkpoints ask of where they lie, whatever that is: a checkpoint is there whole or not at all.

The seam between the protocol, which differs (a folder is renamed; in an object store the manifest comes last), and what
is the same everywhere: what is in a checkpoint, which of them stay, which one a job goes on from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from telegrad_server.checkpoints.files import Output
from telegrad_server.checkpoints.places import Place

Read = Callable[[str, int], memoryview]
"""The bytes of a checkpoint's file, in memory of their own, as far as so many. OSError."""


class Entry(Protocol):
    """A checkpoint on its way in, which nobody sees."""

    def create(self, file: str) -> Output:
        """Begin one of its files."""
        ...

    def commit(self, manifest: bytes) -> Place:
        """Let it be there, with this manifest, once all its files are synced. It lasts when this returns."""
        ...

    def discard(self) -> None:
        """Remove what there is of it, unless it was committed."""
        ...


class Depot(Protocol):
    """Where the checkpoints of jobs lie, each job's in a home of its own. Every call raises OSError."""

    def homes(self) -> list[str]:
        """The names of the homes that are there."""
        ...

    def places(self, home: str) -> list[Place]:
        """The checkpoints in a home, oldest first; none if the home is not there."""
        ...

    def begin(self, home: str, step: int) -> Entry:
        """Begin a checkpoint: the next try of its step, when it is committed."""
        ...

    def read(self, home: str, place: Place, file: str, most_bytes: int) -> memoryview:
        """What `Read` gives of a checkpoint."""
        ...

    def put_away(self, home: str, places: Sequence[Place]) -> None:
        """Let checkpoints be there no more, for good and each at one stroke: no reader meets half of one."""
        ...

    def clean(self, home: str) -> None:
        """Remove what was put away. It may run beside a writer."""
        ...

    def sweep(self, home: str) -> None:
        """Remove also what crashes have left. What is on its way in fails: its writer was replaced."""
        ...

    def room(self) -> int:
        """The bytes for which there is room."""
        ...

    def remove_home(self, home: str) -> None:
        """Remove all that is in a home, and the home. If it is interrupted, calling it again does the rest."""
        ...
