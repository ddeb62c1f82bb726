"""Kernels in C for the groups of a plan: printed, compiled in one source before the plan is first run, and called.

A kernel is called with the addresses of its operands and results, and the interpreter's lock is released meanwhile.
Where the compiler fails, a group is run by its ops on NumPy.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from telegrad_server.compiler.c_source import Kernel, kernel
from telegrad_server.compiler.c_words import PRELUDE
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.layout import contiguous_strides
from telegrad_server.compiler.plan import Plan, Slot, Step
from telegrad_server.executors.compiling import Compiler, cache_folder, compiled, found_compiler
from telegrad_server.executors.recycle import aligned_bytes

Array = Any
Function = Callable[..., Any]


class Native:
    """A compiler, and the kernels it has made in this process."""

    def __init__(self, compiler: Compiler, folder: Path) -> None:
        self.compiler = compiler
        self._folder = folder
        self._functions: dict[str, tuple[Function, Function] | None] = {}  # by text

    def prepare(self, plan: Plan) -> None:
        """Compile what the plan, and those of its regions, need and what is not there yet."""
        texts = [k.text for k in dict.fromkeys(_kernels(plan)) if k.text not in self._functions]
        if not texts:
            return
        names = {text: f"k{hashlib.sha256(text.encode()).hexdigest()[:24]}" for text in texts}
        source = PRELUDE + "\n".join([text.replace("KERNEL", names[text]) for text in texts])
        library = compiled(source, self.compiler, self._folder)
        for text in texts:
            self._functions[text] = None if library is None else _functions(library, names[text])

    def body(self, slots: Sequence[Slot], step: Step) -> Call | None:
        """What runs a step of a group on its operands and results; None if there is no kernel."""
        made = _kernel_of(slots, step)
        found = self._functions.get(made.text)
        if found is None:
            return None
        copied = tuple([k for k, i in enumerate(step.inputs) if _is_unknown(slots[i])])
        return Call(made, *found, operands=len(step.inputs), results=len(step.outputs), copied=copied)


def native_kernels() -> Native | None:
    """The kernels of this process; None where there is no compiler."""
    compiler = found_compiler()
    return Native(compiler, cache_folder()) if compiler is not None else None


def _functions(library: ctypes.CDLL, name: str) -> tuple[Function, Function]:
    run, end = library[name], library[f"{name}_end"]
    run.argtypes, run.restype = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long], None
    end.argtypes, end.restype = [ctypes.c_void_p], None
    return run, end


def _kernels(plan: Plan) -> Iterator[Kernel]:
    for step in plan.steps:
        if isinstance(step.op, Fused):
            yield _kernel_of(plan.slots, step)
        for inner in step.plans:
            yield from _kernels(inner)


def _kernel_of(slots: Sequence[Slot], step: Step) -> Kernel:
    assert isinstance(step.op, Fused)
    read = [slots[i] for i in step.inputs]
    return kernel(step.op, [contiguous_strides(s.type.shape) if s.strides is None else s.strides for s in read])


def _is_unknown(slot: Slot) -> bool:
    """Whether nobody knows how the elements of a slot lie: they are copied, in C order."""
    return slot.base >= 0 and slot.strides is None


class Call:
    """A kernel with room for its arguments; `bind` fixes the addresses of arrays that stay where they are."""

    def __init__(
        self, kernel: Kernel, run: Function, end: Function, *, operands: int, results: int, copied: Sequence[int]
    ) -> None:
        self._run, self._end = run, end
        self._units = kernel.units
        self._copied = copied
        self._partials = [aligned_bytes(nbytes) for nbytes in kernel.partials]
        count = operands + results
        self._addresses = (ctypes.c_void_p * (count + len(self._partials)))()
        for k, partial in enumerate(self._partials):
            self._addresses[count + k] = partial.ctypes.data
        self._at = ctypes.addressof(self._addresses)

    def bind(self, arrays: Sequence[Array | None]) -> tuple[Function, tuple[int, ...]]:
        """What runs the kernel on the arrays that are not known now, and which those are."""
        missing: list[int] = []
        for k, array in enumerate(arrays):
            if array is None or k in self._copied:
                missing.append(k)
            else:
                self._addresses[k] = array.ctypes.data
        slots = tuple(missing)

        def run(*given: Array) -> None:
            for k, array in zip(slots, given, strict=True):
                if k in self._copied:
                    array = np.ascontiguousarray(array)
                self._addresses[k] = array.ctypes.data
            self()

        return run, slots

    def __call__(self) -> None:
        """Run it on what is bound."""
        self._run(self._at, 0, self._units)
        if self._partials:
            self._end(self._at)
