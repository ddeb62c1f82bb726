"""Which checkpoints of a job there are, by name, and which of them may go."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

GONE = "gone-"
"""How the names begin of what is on its way out; nobody reads it, and anybody may remove it."""
WRITING = "writing-"
"""How the names begin of what is on its way in; its writer, or who comes after him, may remove it."""


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """Which checkpoint of a job: its step, and the number of the try, since a resumed job comes to a step again."""

    step: int
    attempt: int
    token: str = ""
    """Where two writers may come to the same try: what tells them apart."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.step:012d}.{self.attempt:04d}{self.token and '.'}{self.token}"


def places_in(names: Iterable[str]) -> list[Place]:
    """The checkpoints among names in a job's home, oldest first."""
    found = (re.fullmatch(r"(\d{12})\.(\d{4,})(?:\.([0-9a-f]{16}))?", name) for name in names)
    return sorted(Place(int(match[1]), int(match[2]), match[3] or "") for match in found if match)


def spent(
    places: Iterable[Place], is_whole: Callable[[Place], bool], *, last: int, best: Collection[int]
) -> list[Place]:
    """Those that may go, oldest first, when the ``last`` newest whole steps and the ``best`` ones stay.

    A damaged checkpoint counts for nothing: it makes none older, and stays until newer whole ones make it old, for it
    may be the reading that fails. A try goes once a newer one of its step is whole.
    """
    kept: set[int] = set()
    gone: list[Place] = []
    for place in sorted(places, reverse=True):
        if place.step in kept or (len(kept) >= last and place.step not in best):
            gone.append(place)
        elif is_whole(place):
            kept.add(place.step)
    return gone[::-1]
