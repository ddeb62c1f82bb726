"""Scans whose trips are kernels alone: many trips are one call of the library, without a step of Python between them.

A trip finds its slices by adding to an address. A carry is read where the trip before has written it: in the stacked
result, where it is one, else in one of two places that take turns.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from telegrad.ops.loops import Scan

from telegrad_server.compiler.arena import aligned
from telegrad_server.compiler.plan import Place, Plan
from telegrad_server.compiler.trips import UNIT_ROWS
from telegrad_server.executors.copies import copy_call
from telegrad_server.executors.driver import KernelCall, Table, Where
from telegrad_server.executors.library import Call, Library, Pointer
from telegrad_server.executors.program import Program
from telegrad_server.executors.recycle import aligned_bytes
from telegrad_server.executors.stopping import check_wanted

Array = Any

BLOCK = 32
"""Trips of one call: between two calls a run can be stopped."""


class Base(ctypes.Structure):
    """``struct tg_base``."""

    _fields_ = (
        ("begin", ctypes.c_void_p),
        ("other", ctypes.c_void_p),
        ("step", ctypes.c_long),
        ("source", ctypes.c_long),
    )


class Frame(ctypes.Structure):
    """``struct tg_table``."""

    _fields_ = (
        ("calls", ctypes.c_void_p),
        ("count", ctypes.c_long),
        ("pointers", ctypes.c_void_p),
        ("pointer_count", ctypes.c_long),
        ("frame", ctypes.c_void_p),
        ("bytes", ctypes.c_long),
    )


class Loop(ctypes.Structure):
    """``struct tg_loop``."""

    _fields_ = (
        ("once", Frame),
        ("trip", Frame),
        ("each", ctypes.c_void_p),
        ("bases", ctypes.c_void_p),
        ("base_count", ctypes.c_long),
        ("length", ctypes.c_long),
        ("is_reversed", ctypes.c_long),
        ("number", ctypes.c_void_p),
        ("by_rows", ctypes.c_void_p),
        ("rows", ctypes.c_long),
    )


def native_scan(op: Scan, plan: Plan, program: Program, library: Library, *, operands: int) -> NativeScan | None:
    """The body of a scan, which takes its operands and the arrays to write; None if a trip needs Python."""
    places = [plan.slots[i].place for i in plan.outputs]
    is_plain = all(place is Place.RESULT for place in places[: op.carries]) and all(
        place in (Place.RESULT, Place.INPUT) for place in places
    )
    if program.driver is None or len(program.calls) != 1 or not is_plain:
        return None
    stacked: dict[int, int] = {}  # slot -> the result that it is written to
    copies: list[tuple[KernelCall, list[Where]]] = []
    for k in range(op.carries, len(plan.outputs)):
        i = plan.outputs[k]
        if plan.slots[i].place is Place.RESULT and i not in stacked:
            stacked[i] = k
        else:
            stacked[len(plan.slots) + k] = k
            nbytes = plan.slots[i].type.nbytes
            rows = plan.trip.rows if plan.trip is not None and plan.slots[i].type.shape[:1] == (plan.trip.rows,) else 0
            copies.append((copy_call(library, nbytes, rows=rows), [Where(i, 0), Where(len(plan.slots) + k, 0)]))
    table = program.driver.table(copies)
    return NativeScan(op, plan, program, table, stacked, library, operands) if table is not None else None


class NativeScan:
    """The trips of a scan: called with its operands and the arrays to write."""

    def __init__(
        self,
        op: Scan,
        plan: Plan,
        program: Program,
        table: Table,
        stacked: dict[int, int],
        library: Library,
        operands: int,
    ) -> None:
        self._op, self._library, self._operands = op, library, operands
        self._held = program, table  # the kernels' arguments, and what they point to
        count = len(table.slots)
        self._each, self._addresses = (Base * count)(), (ctypes.c_void_p * count)()
        self._number = np.zeros((), np.int64)
        self._spare: list[Array] = []
        self._sources: list[tuple[int, int]] = []  # of each carry: the number of its base, and its bytes
        self._given: list[tuple[Base, int]] = []  # what begins where an operand does
        self._written: list[tuple[Base, int]] = []  # or a result
        numbers = {i: number for number, i in enumerate(table.slots)}
        parameter = {i: k for k, i in enumerate(plan.inputs)}
        for number, i in enumerate(table.slots):
            base = self._each[number]
            base.source = -1
            if i in stacked:
                out = plan.outputs[stacked[i]]
                base.step = plan.slots[out].type.nbytes
                self._written.append((base, stacked[i]))
            elif i not in parameter:
                self._spare += [aligned_bytes(plan.slots[i].type.nbytes) for _ in range(2)]
                base.begin, base.other = (x.ctypes.data for x in self._spare[-2:])
            elif parameter[i] == 0:
                base.begin = self._number.ctypes.data
            else:
                k = parameter[i] - 1
                if k < op.carries:
                    base.source = numbers[plan.outputs[k]]
                elif k < op.carries + op.xs:
                    base.step = plan.slots[i].type.nbytes
                self._given.append((base, k))
        self._sources = [(numbers[i], plan.slots[i].type.nbytes) for i in plan.outputs[: op.carries]]
        trip = [call for call in table.calls if not call.is_once]
        rows = plan.trip.rows if plan.trip is not None and all(call.by_rows for call in trip) else 0
        by_rows = (ctypes.c_void_p * len(trip))(*[call.by_rows for call in trip])
        once, self._once = _framed([call for call in table.calls if call.is_once], table.pointers)
        each, self._trip = _framed(trip, table.pointers)
        self._by_rows = by_rows
        self._loop = Loop(
            once,
            each,
            ctypes.addressof(self._each),
            ctypes.addressof(self._addresses),
            count,
            op.length,
            op.reverse,
            self._number.ctypes.data,
            ctypes.addressof(by_rows),
            -(-rows // UNIT_ROWS),
        )

    def __call__(self, *arrays: Array) -> None:
        given = [np.asarray(x, order="C") for x in arrays[: self._operands]]
        outs = arrays[self._operands :]
        for base, k in self._given:
            base.begin = given[k].ctypes.data
        for base, k in self._written:
            base.begin = outs[k].ctypes.data
        for first in range(0, self._op.length, BLOCK):
            check_wanted()
            self._library.loop(self._loop, first, min(first + BLOCK, self._op.length))
        for out, before, (number, nbytes) in zip(outs, given, self._sources, strict=False):
            address = self._addresses[number] if self._op.length else before.ctypes.data
            ctypes.memmove(out.ctypes.data, address, nbytes)


def _framed(calls: Sequence[KernelCall], pointers: Sequence[Pointer]) -> tuple[Frame, tuple[Any, ...]]:
    """The calls with their arguments one behind the other, and with those of the pointers that are in these. The second
    is what the first points to."""
    starts = list(accumulate([aligned(ctypes.sizeof(call.arguments)) for call in calls], initial=0))
    memory = aligned_bytes(max(starts[-1], 1))
    begin, array = memory.ctypes.data, (Call * len(calls))()
    places: dict[int, int] = {}
    for k, call in enumerate(calls):
        address, at = ctypes.addressof(call.arguments), begin + starts[k]
        ctypes.memmove(at, address, ctypes.sizeof(call.arguments))
        array[k] = Call(call.kernel, at, call.units, call.is_serial)
        places |= {address + place: at + place for _, place in call.pointers}
    own = [Pointer(places[p.at], p.base, p.offset) for p in pointers if p.at in places]
    table = (Pointer * len(own))(*own)
    frame = Frame(ctypes.addressof(array), len(calls), ctypes.addressof(table), len(own), begin, starts[-1])
    return frame, (memory, array, table)
