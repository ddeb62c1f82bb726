"""Kernels in C for the steps of a plan: those of groups are printed and compiled in one source before the plan is first
run, those with run-time shapes are in the library.

Where the compiler fails, a step is run by its ops on NumPy.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from telegrad.ir.op import Op
from telegrad.ir.types import Type
from telegrad.ops import elementwise as e
from telegrad.ops.attention import Attention, AttentionGradient
from telegrad.ops.convolution import Convolution, ConvolutionInput, ConvolutionWeight
from telegrad.ops.index import AddAlong, Gather, ScatterAdd, TakeAlong
from telegrad.ops.linalg import Matmul
from telegrad.ops.pooling import WindowArgmax
from telegrad.ops.random import RandomUniform
from telegrad.ops.reduce import Sum
from telegrad.ops.shape import Concat, Pad, Reshape
from telegrad.ops.slices import Unslice

from telegrad_server.compiler.c_source import Kernel, kernel
from telegrad_server.compiler.c_words import CHOICES, PRELUDE
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.layout import contiguous_strides
from telegrad_server.compiler.plan import Place, Plan, Slot, Step
from telegrad_server.executors.attention_kernels import attention_calls, attention_gradient_calls
from telegrad_server.executors.compiling import Compiler, compiled, found_compiler, working_folder
from telegrad_server.executors.convolving import convolution_calls
from telegrad_server.executors.copies import among_zeros_calls, concat_calls, reshape_calls
from telegrad_server.executors.driver import KernelCall, Layout
from telegrad_server.executors.library import (
    LINKS,
    Library,
    address_in,
    library_of,
    trial,
)
from telegrad_server.executors.numbers import number_calls
from telegrad_server.executors.pooling import along_calls, picks_from_windows, sum_calls, window_calls
from telegrad_server.executors.products import matmul_calls, packed_calls
from telegrad_server.executors.random_numbers import uniform_calls
from telegrad_server.executors.recycle import aligned_bytes
from telegrad_server.executors.rows import add_calls, pick_calls

Maker = Callable[[Any, Library, Sequence[Layout], Sequence[Type]], list[KernelCall]]
"""The calls for an op on operands that lie so; none if NumPy must do it."""


class _Addresses(NamedTuple):
    """Those of a printed kernel's two functions."""

    run: int
    end: int


class Native:
    """A compiler, the library, and the kernels that were printed in this process."""

    def __init__(self, compiler: Compiler, folder: Path) -> None:
        self.compiler = compiler
        self._folder = folder
        self._library = library_of(compiler, folder)
        self._printed: dict[str, _Addresses | None] = {}  # by text
        self.has_failed = False
        """Whether NumPy, which has other bits, stands in for something that could not be compiled."""

    @property
    def library(self) -> Library | None:
        """The library; None if it cannot be compiled."""
        found = self._library.library()
        self.has_failed |= found is None
        return found

    def begin(self) -> None:
        """Begin to compile the library in the background, unless it is there."""
        self._library.begin()

    def prepare(self, plan: Plan) -> None:
        """Compile what the plan, and those of its regions, need and what is not there yet; the library beside it."""
        texts = [k.text for k in dict.fromkeys(_kernels(plan)) if k.text not in self._printed]
        if not texts:
            return
        names = {text: f"k{hashlib.sha256(text.encode()).hexdigest()[:24]}" for text in texts}
        source = CHOICES + PRELUDE + "\n".join([text.replace("KERNEL", names[text]) for text in texts])
        self.begin()
        loaded = compiled(source, self.compiler, self._folder)
        loaded = loaded if self.library is not None else None
        self.has_failed |= loaded is None
        for text in texts:
            self._printed[text] = None if loaded is None else _addresses(loaded, names[text])

    def calls(self, plan: Plan, step: Step) -> list[KernelCall]:
        """The calls that do a step; none if it has no kernel."""
        if isinstance(step.op, Fused):
            made = _kernel_of(plan, step)
            found = self._printed.get(made.text)
            return _printed_calls(made, found, len(step.inputs) + len(step.outputs)) if found is not None else []
        make = MAKERS.get(type(step.op)) if plan.uses_library else None
        if make is None or self.library is None:
            return []
        if make is along_calls and not picks_from_windows(plan, step):
            return []
        types = [plan.slots[i].type for i in step.outputs]
        operands = [_layout(plan.slots[i]) for i in step.inputs]
        if make is matmul_calls and _is_the_same_in_all_trips(plan, step.inputs[1]):
            found = packed_calls(self.library, operands, types)
            if found:
                return found
        return make(step.op, self.library, operands, types)


MAKERS: Mapping[type[Op], Maker] = {
    Attention: attention_calls,
    AttentionGradient: attention_gradient_calls,
    Concat: concat_calls,
    Pad: among_zeros_calls,
    Reshape: reshape_calls,
    Unslice: among_zeros_calls,
    Matmul: matmul_calls,
    Convolution: convolution_calls,
    ConvolutionInput: convolution_calls,
    ConvolutionWeight: convolution_calls,
    WindowArgmax: window_calls,
    TakeAlong: along_calls,
    AddAlong: along_calls,
    Gather: pick_calls,
    ScatterAdd: add_calls,
    Sum: sum_calls,
    RandomUniform: uniform_calls,
    **dict.fromkeys((e.Add, e.Subtract, e.Multiply, e.Divide, e.Power, e.Negative, e.Sqrt, e.Cast), number_calls),
}
"""The library's kernels, by the class of op. Whether an op gets one follows from it, its types and layouts."""


def native_kernels(kept: str | None = None) -> Native | None:
    """The kernels of this process, kept in a folder of this name or in the user's cache; None without a compiler that
    can make what the library needs."""
    compiler = found_compiler()
    folder = working_folder(trial(), compiler, kept, links=LINKS) if compiler is not None else None
    return Native(compiler, folder) if compiler is not None and folder is not None else None


def _addresses(loaded: ctypes.CDLL, name: str) -> _Addresses:
    return _Addresses(address_in(loaded, name), address_in(loaded, f"{name}_end"))


def _kernels(plan: Plan) -> Iterator[Kernel]:
    for step in plan.steps:
        if isinstance(step.op, Fused):
            yield _kernel_of(plan, step)
        for inner in step.plans:
            yield from _kernels(inner)


def _kernel_of(plan: Plan, step: Step) -> Kernel:
    assert isinstance(step.op, Fused)
    rows = plan.trip.rows if plan.trip is not None else 0
    return kernel(step.op, [_layout(plan.slots[i])[1] for i in step.inputs], rows=rows)


def _is_the_same_in_all_trips(plan: Plan, i: int) -> bool:
    """Whether a slot of a scan's body is an operand, or a view of one, that does not change."""
    base = plan.slots[i].base if plan.slots[i].place is Place.VIEW else i
    return plan.trip is not None and base in plan.inputs[plan.trip.varying :]


def _layout(slot: Slot) -> Layout:
    """How a kernel finds a slot's elements: what lies nobody knows how is copied in C order."""
    return slot.type, contiguous_strides(slot.type.shape) if slot.strides is None else slot.strides


def _printed_calls(made: Kernel, found: _Addresses, count: int) -> list[KernelCall]:
    """A printed kernel takes an array of addresses: of operands and results, ``count`` of them, and of partial sums."""
    partials = tuple([aligned_bytes(nbytes) for nbytes in made.partials])
    arguments = (ctypes.c_void_p * (count + len(partials)))()
    for k, partial in enumerate(partials):
        arguments[count + k] = partial.ctypes.data
    pointers = tuple([(k, k * ctypes.sizeof(ctypes.c_void_p)) for k in range(count)])
    by_rows = found.run if made.is_by_rows else 0
    calls = [KernelCall(found.run, arguments, made.units, pointers=pointers, memory=partials, by_rows=by_rows)]
    if partials:
        calls.append(KernelCall(found.end, arguments, 1, is_serial=True))
    return calls
