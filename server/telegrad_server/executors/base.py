"""The Executor protocol: a plan and arrays in, arrays out. Arrays are the executor's own kind and never change."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol

from telegrad.ir.types import Type

from telegrad_server.compiler.plan import Plan
from telegrad_server.executors.memory import Memory

if TYPE_CHECKING:
    from telegrad_server.executors.communicator import Communicator

Array = Any
"""A NumPy or CuPy array in C order that nobody writes any more."""


class Executor(Protocol):
    """Runs plans on one device. `run` is used by one thread at a time; the rest by any."""

    name: str
    reason: str
    """Why this executor and not another: what was asked for, or what is wrong with the GPU."""

    is_host: bool
    """Whether arrays are in this process's memory and `run` returns when all is computed."""

    kernels: Literal["c", "cuda", "none"]
    """What it has for groups of ops: kernels in C or CUDA, or nothing, so that plans hold no groups."""

    device: str
    """What it says to other workers of the GPU that its arrays are on; empty where they cannot go from GPU to GPU."""

    @property
    def fingerprint(self) -> str:
        """All that decides the bits of a result. Equal fingerprints, equal bits."""
        ...

    def expect_kernels(self) -> None:
        """Make what all kernels need, in the background: there will be some."""
        ...

    def run(
        self, plan: Plan, inputs: Sequence[Array], *, company: AbstractContextManager[None] | None = None
    ) -> list[Array]:
        """The results of the plan: fresh arrays, or inputs under another shape; never memory that is used again
        while somebody holds them.

        ``company`` surrounds the run of a plan that is one of several workers'; such a run may pause while another
        thread runs something else. Raises ExecutionError or IndexRange with the node's origin, or OutOfDeviceMemory.
        Nothing has changed then.
        """
        ...

    def kernels_of(self, plan: Plan) -> list[str]:
        """What does each step of a plan: "printed" and "library" for kernels in C, "array" for the array library,
        "loop" for one with plans of its own, "view" and "constant" where there is nothing to do."""
        ...

    def from_host(self, type: Type, data: bytes | memoryview) -> Array:
        """An array with a copy of these bytes (little-endian, C order). DataCorrupt if they are too few or many."""
        ...

    def receive(self, type: Type) -> tuple[Any, memoryview]:
        """A buffer for an upload and its bytes, to be filled and given to `received`."""
        ...

    def received(self, buffer: Any) -> Array:
        """The array in a filled buffer."""
        ...

    def to_host(self, array: Array) -> memoryview:
        """The array's bytes, little-endian in C order; they stay valid while the view is held."""
        ...

    def is_of(self, array: Array, type: Type) -> bool:
        """Whether this is an array of this executor with elements of the type's, as far as a glance tells."""
        ...

    def type_of(self, array: Array) -> Type:
        """The type of an array."""
        ...

    def rows(self, array: Array, start: int, stop: int) -> Array:
        """Rows [start, stop) of an array with a first axis."""
        ...

    def joined(self, arrays: Sequence[Array]) -> Array:
        """The rows of several arrays, one after the other."""
        ...

    def nbytes(self, array: Array) -> int:
        """How many bytes the array holds."""
        ...

    def memory(self) -> Memory:
        """The device's memory, and how much of it is used, by this process or another. By any thread."""
        ...

    def exchange(self, host: Communicator, *, devices: Sequence[str], timeout_seconds: float) -> Communicator:
        """A group for this executor's arrays, over one for NumPy's that it uses alone, and closes.

        ``devices``: the ``device`` of every member, in the order of ranks. Every member must call it. WorkerLost if the
        host's group breaks.
        """
        ...
