"""Who is in a group, and how its end is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from telegrad.errors import WorkerLost


@dataclass(frozen=True)
class Member:
    """One worker of a group: its name for people, where its `Listener` listens, and its `host_identity`."""

    worker: str
    host: str
    port: int
    machine: str

    def __str__(self) -> str:
        return f"{self.worker} at {self.host}:{self.port}"


def host_identity() -> str:
    """What is equal for processes that may share memory: the boot of the machine, the process namespace, the user.

    A guess that costs nothing when it is wrong: whether memory can be shared is tried.
    """
    if sys.platform != "linux":
        return ""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')} {os.getuid()}"


@dataclass(frozen=True)
class Group:
    """What all members of a group know: its name, how many times it was built, who is in it."""

    name: str
    generation: int
    members: tuple[Member, ...]

    def describe(self, ranks: Sequence[int]) -> str:
        """Ranks in words."""
        named = [f"rank {r} ({self.members[r]})" for r in ranks if 0 <= r < len(self.members)]
        return " and ".join(named) or "no member"

    def __str__(self) -> str:
        return f"group {self.name}, generation {self.generation}"


@dataclass(frozen=True)
class Failure:
    """Why a group broke: one word, the rank at whose end it broke (-1: none), and a sentence."""

    cause: str
    """closed: a connection ended, or carried nonsense. timeout. abort. left: a member closed its end. mismatch:
    members made different calls. refused: a member did not let this one in."""
    rank: int
    text: str

    def error(self, group: Group, *, during: str) -> WorkerLost:
        """The exception to raise, a new one for each caller."""
        worker = group.members[self.rank].worker if 0 <= self.rank < len(group.members) else ""
        return WorkerLost(
            f"{group} is broken: {self.text}; under way here: {during}; build the group again with a newer generation",
            cause=self.cause,
            rank=self.rank,
            worker=worker,
            during=during,
            group=group.name,
            generation=group.generation,
        )

    def encode(self) -> bytes:
        """As the payload of a frame."""
        return f"{self.cause}\n{self.rank}\n{self.text}".encode()[:4096]

    @classmethod
    def decode(cls, data: bytes) -> Failure:
        """What `encode` wrote."""
        cause, rank, text = ([*data.decode(errors="replace").split("\n", 2), "", ""])[:3]
        return cls(cause, int(rank) if rank.lstrip("-").isdigit() else -1, text)
