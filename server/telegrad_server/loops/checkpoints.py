"""What a loop needs of whoever keeps its checkpoints: a store on this machine's disk, or one over a wire."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from telegrad.ir.types import Type

from telegrad_server.checkpoints import Draft
from telegrad_server.checkpoints.contents import Latest


class Checkpoints(Protocol):
    """The checkpoints of a job that has one writer."""

    def restore(self, job: str, step: int) -> Latest:
        """The newest whole checkpoint up to a step, from which the job goes on; what comes after it is removed."""
        ...

    def write(self, draft: Draft, tensors: Iterable[tuple[str, Type, memoryview]]) -> object:
        """Write a checkpoint; it lasts when this returns."""
        ...

    def keep(self, job: str, *, last: int, best: Collection[int] = ()) -> object:
        """Remove all checkpoints but the ``last`` newest whole ones and those of ``best``."""
        ...
