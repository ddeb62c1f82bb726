"""Kernels in CUDA for the steps of a plan: printed and compiled in one source before the plan is first run.

What they run on is a `Device`: a GPU through CuPy, or in tests the host's processor on the same text.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from telegrad_server.compiler.cuda_source import CudaKernel, Launch, cuda_kernel
from telegrad_server.compiler.cuda_words import PRELUDE
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.layout import contiguous_strides, is_contiguous
from telegrad_server.compiler.plan import Place, Plan, Slot, Step

Array = Any

ALIGNMENT = 16
"""Bytes that a thread reads at once, and that memory of our own begins at a multiple of."""

Start = Callable[[tuple[int, int], int, Sequence[Array]], None]
"""Start a kernel: blocks in x and y, threads of each, and the arrays that it is given."""


class Device(Protocol):
    """What compiles kernels and runs them, one after the other in the order in which they are started."""

    def load(self, source: str, names: Sequence[str]) -> Mapping[str, Start]:
        """The kernels of a source. Raises RuntimeError if it does not compile."""
        ...

    def room(self, nbytes: int) -> Array:
        """Memory for partial sums, at a multiple of 16 bytes."""
        ...

    def address(self, array: Array) -> int:
        """Where an array's first element is."""
        ...

    def copied(self, array: Array) -> Array:
        """A copy in C order, at a multiple of 16 bytes."""
        ...


class CudaKernels:
    """A device and the kernels that it has loaded."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._loaded: dict[str, Mapping[str, Start] | None] = {}  # by text

    def prepare(self, plan: Plan) -> None:
        """Compile what the plan, and those of its regions, need and what is not there yet."""
        kernels = {k.text: k for k in printed_kernels(plan) if k.text not in self._loaded}
        if not kernels:
            return
        source, names = joined(list(kernels.values()))
        try:
            found = self._device.load(source, [name + x.suffix for k, name in names.items() for x in k.launches])
        except (RuntimeError, OSError) as error:
            logging.warning("kernels are not used; the array library runs instead: %s", error)
            self._loaded.update(dict.fromkeys(kernels))
            return
        for k, name in names.items():
            self._loaded[k.text] = {x.suffix: found[name + x.suffix] for x in k.launches}

    def body(self, slots: Sequence[Slot], step: Step) -> Callable[..., None] | None:
        """What does a step, given the arrays of its operands and results; None if it has no kernel."""
        if not isinstance(step.op, Fused):
            return None
        made = _kernel_of(slots, step)
        found = self._loaded.get(made.text)
        if found is None:
            return None
        partials = [self._device.room(nbytes) for nbytes in made.partials]
        copied = frozenset(k for k, i in enumerate(step.inputs) if _is_unknown(slots[i]))
        starts = [(found[launch.suffix], launch) for launch in made.launches]
        return _started(self._device, starts, made.aligned, copied, partials)


def joined(kernels: Sequence[CudaKernel]) -> tuple[str, dict[CudaKernel, str]]:
    """Kernels as one source without its prelude for a device, and their names in it."""
    names = {k: f"k{hashlib.sha256(k.text.encode()).hexdigest()[:24]}" for k in kernels}
    return PRELUDE + "\n".join([k.text.replace("KERNEL", name) for k, name in names.items()]), names


def printed_kernels(plan: Plan) -> Iterator[CudaKernel]:
    """The kernels of a plan and of its regions."""
    for step in plan.steps:
        if isinstance(step.op, Fused):
            yield _kernel_of(plan.slots, step)
        for inner in step.plans:
            yield from printed_kernels(inner)


def _kernel_of(slots: Sequence[Slot], step: Step) -> CudaKernel:
    assert isinstance(step.op, Fused)
    given = [slots[i] for i in step.inputs]
    strides = [contiguous_strides(s.type.shape) if s.strides is None else s.strides for s in given]
    return cuda_kernel(step.op, strides, [_is_aligned(slots, s) for s in given])


def _is_unknown(slot: Slot) -> bool:
    """Whether nobody knows how its elements lie: they are copied, in C order."""
    return slot.place is Place.VIEW and slot.strides is None


def _is_aligned(slots: Sequence[Slot], slot: Slot) -> bool:
    """Whether its first element is that of memory of our own. What a run brings along is looked at then."""
    if slot.place is not Place.VIEW or slot.strides is None:
        return True
    base = slots[slot.base]
    return base.type.size == slot.type.size and is_contiguous(slot.type.shape, slot.strides)


def _started(
    device: Device,
    starts: Sequence[tuple[Start, Launch]],
    aligned: Sequence[bool],
    copied: frozenset[int],
    partials: Sequence[Array],
) -> Callable[..., None]:
    def run(*arrays: Array) -> None:
        given = list(arrays)
        for k, is_promised in enumerate(aligned):
            if k in copied or (is_promised and device.address(given[k]) % ALIGNMENT):
                given[k] = device.copied(given[k])
        for start, launch in starts:
            start(launch.grid, launch.block, [*given, *partials])

    return run
