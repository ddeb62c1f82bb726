"""The driver of a plan's kernels: consecutive ones are one call of the pool, in which Python does nothing.

A kernel's arguments are made when a plan is loaded. Pointers into memory that stays where it is are set then; those to
the plan's operands and results once at the beginning of each run, by the addresses of their arrays.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from telegrad.ir.types import Type

from telegrad_server.compiler.layout import Strides
from telegrad_server.executors.library import Call, Library, Pointer

Array = Any

HEAD_BYTES = object.__basicsize__
"""Behind so many bytes an array of NumPy has the address of its elements: to ask it for that takes a microsecond."""

Layout = tuple[Type, Strides]
"""An operand's type, and its strides in elements."""


class KernelCall(NamedTuple):
    """A kernel, by its address, and its arguments, an array or structure of ctypes.

    ``pointers`` says where in them, in bytes, the addresses of a step's operands and results belong: (number, place),
    the results being numbered after the operands. ``memory`` is what else they point to.
    """

    kernel: int
    arguments: Any
    units: int
    is_serial: bool = False
    pointers: tuple[tuple[int, int], ...] = ()
    memory: tuple[Array, ...] = ()
    by_rows: int = 0
    """The kernel that does units of rows, in a trip that is cut by rows; 0 if there is none."""
    is_once: bool = False
    """Whether a loop does it before its first trip, and not in each."""

    def call(self) -> Call:
        """What the pool runs."""
        return Call(self.kernel, ctypes.addressof(self.arguments), self.units, self.is_serial)

    def point(self, place: int, address: int) -> None:
        """Set a pointer in the arguments."""
        ctypes.c_void_p.from_address(ctypes.addressof(self.arguments) + place).value = address


class Where(NamedTuple):
    """Where a slot's elements begin: bytes from the array of slot ``base``; -1 stands for an address."""

    base: int
    offset: int


class Table(NamedTuple):
    """Calls, the pointers in their arguments, and the slots whose arrays these point into, by number."""

    calls: tuple[KernelCall, ...]
    pointers: tuple[Pointer, ...]
    slots: tuple[int, ...]


class Driver:
    """The kernels of one plan."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._runs = 0  # of kernels, with something else between them
        self._open: list[KernelCall] = []
        self._kept: list[KernelCall] = []
        self._pointers: list[Pointer] = []
        self._numbers: dict[int, int] = {}  # slot -> its number among those whose arrays are looked up

    def add(self, calls: Sequence[KernelCall], places: Sequence[Where]) -> None:
        """Add a step's calls; ``places`` are those of its operands and results."""
        for call in calls:
            for number, place in call.pointers:
                base, offset = places[number]
                if base < 0:
                    call.point(place, offset)
                else:
                    at = ctypes.addressof(call.arguments) + place
                    self._pointers.append(Pointer(at, self._numbers.setdefault(base, len(self._numbers)), offset))
        self._open += calls

    def closed(self) -> tuple[Callable[[Any, int], None], tuple[Any, int]] | None:
        """What runs all that were added since the last time, as a function and its arguments; None if none were."""
        if not self._open:
            return None
        count = len(self._open)
        calls = (Call * count)(*[call.call() for call in self._open])
        self._kept += self._open
        self._open = []
        self._runs += 1
        return self.library.run, (calls, count)

    def table(self, more: Sequence[tuple[KernelCall, Sequence[Where]]]) -> Table | None:
        """All calls, and then ``more``, to be run without Python between them; None if there was anything else."""
        if self._runs != 1 or self._open:
            return None
        for call, places in more:
            self.add([call], places)
        self._kept += self._open
        self._open = []
        return Table(tuple(self._kept), tuple(self._pointers), tuple(self._numbers))

    def point(self) -> Callable[[list[Array | None]], None] | None:
        """What sets the pointers for a run, given the arrays by slot; None if all are set."""
        if not self._pointers:
            return None
        count, slots = len(self._pointers), tuple(self._numbers)
        pointers = (Pointer * count)(*self._pointers)
        arrays = (ctypes.c_void_p * len(slots))()
        point, write = self.library.point, struct.Struct(f"{len(slots)}P").pack_into

        def run(values: list[Array]) -> None:
            write(arrays, 0, *[id(values[i]) for i in slots])  # of an object: where it begins
            point(pointers, count, arrays, HEAD_BYTES)

        return run


def copying(library: Library, calls: Sequence[KernelCall], copied: Sequence[int]) -> Callable[..., None]:
    """What runs a step by itself on the arrays of its operands and results, of which it copies some in C order."""
    count = len(calls)
    array = (Call * count)(*[call.call() for call in calls])

    def run(*arrays: Array) -> None:
        held = [np.ascontiguousarray(x) if k in copied else x for k, x in enumerate(arrays)]
        for call in calls:
            for number, place in call.pointers:
                call.point(place, held[number].ctypes.data)
        library.run(array, count)

    return run
