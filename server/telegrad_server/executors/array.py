"""Runs plans with an array module, call by call: the executor on NumPy, and the frame of the one on CuPy.

Planned NumPy is also the oracle that faster executors are tested against.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import length_hint
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from telegrad.errors import ExecutionError, OutOfDeviceMemory, TelegradError
from telegrad.ir.types import Type, bool_
from telegrad.ops.loops import Scan
from telegrad.wire.arrays import array_bytes, array_from, numpy_dtype, type_of

from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.plan import Place, Plan, Step
from telegrad_server.executors.array_module import LibraryModule, NumpyModule
from telegrad_server.executors.arrivals import Arrivals
from telegrad_server.executors.communicator import Communicator
from telegrad_server.executors.cuda_kernels import CudaKernels
from telegrad_server.executors.fingerprint import numpy_fingerprint
from telegrad_server.executors.library import kernels_in_words
from telegrad_server.executors.loops import loop_body
from telegrad_server.executors.memory import Memory, host_memory
from telegrad_server.executors.native import Native, native_kernels
from telegrad_server.executors.native_loops import native_scan
from telegrad_server.executors.program import POISON, Program, run_calls
from telegrad_server.executors.recycle import LARGE_BYTES, Recycled, aligned_bytes
from telegrad_server.executors.stopping import WORKING
from telegrad_server.executors.timing import run_timed

Array = Any

CACHED_BYTES = 1 << 30
"""Arenas and recycled results of all loaded plans together; the plan used least recently is unloaded first."""

SMALL_BYTES = 4096

_FAILURES = (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, BufferError)
"""What array libraries raise when an op cannot be done; anything else is our own mistake."""


class Loaded:
    """A plan's program with its memory."""

    def __init__(self, program: Program, arena: Array, recycled: list[tuple[int, Recycled]], arena_bytes: int) -> None:
        self.program = program
        self.arena = arena
        self.recycled = recycled
        self.last_run = 0
        self._arena_bytes = arena_bytes

    @property
    def nbytes(self) -> int:
        """The bytes that it holds beside what the results' owners hold."""
        return self._arena_bytes + sum([memory.spare_bytes for _, memory in self.recycled])


class Inner:
    """The plan of a region, loaded as a part of the plan that owns it."""

    def __init__(self, executor: ArrayExecutor, plan: Plan) -> None:
        self.plan = plan
        self._executor = executor
        self._arena, self.program, self._recycled = executor.prepared(plan)

    def __call__(self, inputs: Sequence[Array], into: dict[int, Array]) -> list[Array]:
        """The results; those whose slots are in ``into`` are written there."""
        return self._executor.carry_out(self.plan, self.program, self._arena, self._recycled, inputs, into)


class ArrayExecutor:
    """The executor over an array module.

    A plan that takes more than ``capacity_bytes`` is refused before it begins; ``is_poisoned`` fills memory that
    nobody may read with `POISON`.
    """

    def __init__(
        self,
        module: LibraryModule,
        *,
        name: str,
        reason: str,
        fingerprint: str,
        native: Native | None = None,
        cuda: CudaKernels | None = None,
        capacity_bytes: int | None = None,
        cached_bytes: int = CACHED_BYTES,
        is_poisoned: bool = False,
    ) -> None:
        self.module = module
        self.name = name
        self.is_host = module.is_host
        self.reason = reason
        self._fingerprint = fingerprint
        self.device = ""
        self.native = native
        self._cuda = cuda
        self.kernels: Literal["c", "cuda", "none"] = (
            "c" if native is not None else "cuda" if cuda is not None else "none"
        )
        self._capacity_bytes = capacity_bytes
        self._cached_bytes = cached_bytes
        self._is_poisoned = is_poisoned
        self._runs = 0
        self._arrivals = Arrivals()
        self._loaded: WeakKeyDictionary[Plan, Loaded] = WeakKeyDictionary()  # a plan's memory goes with it

    @property
    def fingerprint(self) -> str:
        """See `Executor`."""
        has_failed = self.native is not None and self.native.has_failed
        return self._fingerprint + ("; some kernels were not compiled" if has_failed else "")

    def expect_kernels(self) -> None:
        """See `Executor`."""
        if self.native is not None:
            self.native.begin()

    # ---- running

    def run(
        self, plan: Plan, inputs: Sequence[Array], *, company: AbstractContextManager[None] | None = None
    ) -> list[Array]:
        """The results of the plan; see `Executor.run`."""
        if company is None:
            return self._run(plan, self._loaded.get(plan) or self._load(plan), inputs)
        loaded = self._loaded.pop(plan, None) or self._load(plan)
        self._loaded.pop(plan, None)  # while it pauses, another run of this plan needs memory of its own
        with company:
            results = self._run(plan, loaded, inputs)
        self._loaded[plan] = loaded
        return results

    def _run(self, plan: Plan, loaded: Loaded, inputs: Sequence[Array]) -> list[Array]:
        self._runs += 1
        loaded.last_run = self._runs
        program = loaded.program
        blas = self.module.blas if program.uses_blas else None
        with np.errstate(all="ignore"), blas.one_thread() if blas is not None else nullcontext():
            results = self.carry_out(plan, program, loaded.arena, loaded.recycled, inputs, {})
        self._publish([results[k] for k in program.leaving])
        return results

    def carry_out(
        self,
        plan: Plan,
        program: Program,
        arena: Array,
        recycled: list[tuple[int, Recycled]],
        inputs: Sequence[Array],
        into: dict[int, Array],
    ) -> list[Array]:
        """The results of a program with its memory; those whose slots are in ``into`` are written there."""
        values = program.values.copy()
        for i, array in zip(plan.inputs, inputs, strict=True):
            values[i] = array
        calls = iter(program.calls)
        try:
            fresh = [into[i] if i in into else self._fresh(memory) for i, memory in recycled]
            for (i, _), array in zip(recycled, fresh, strict=True):
                values[i] = array
            if self._is_poisoned:
                self._poison(arena, fresh)
            if program.point is not None:
                program.point(values)
            spans = WORKING.spans
            if spans is None:
                run_calls(calls, values)
            else:
                WORKING.spans = None  # what a loop repeats has no spans of its own
                run_timed(plan, program, calls, values, spans)
                WORKING.spans = spans
        except (TelegradError, MemoryError, *_FAILURES) as error:
            done = len(program.calls) - length_hint(calls)
            step = plan.steps[program.steps[done - 1]] if done else None
            found = self._explained(error, plan, step)
            raise found from (None if found is error else error)
        return [values[i] for i in plan.outputs]

    def _load(self, plan: Plan) -> Loaded:
        if self._capacity_bytes is not None and plan.peak_bytes > self._capacity_bytes:
            raise self._explained(MemoryError(), plan, None)
        arena, program, recycled = self.prepared(plan)
        loaded = Loaded(program, arena, recycled, _arena_bytes(plan))
        self._make_room(loaded.nbytes)
        self._loaded[plan] = loaded
        return loaded

    def prepared(self, plan: Plan) -> tuple[Array, Program, list[tuple[int, Recycled]]]:
        """The plan's arena, its program, and the memory for its results."""
        step = None
        try:
            if self.native is not None:
                self.native.prepare(plan)
            if self._cuda is not None:
                self._cuda.prepare(plan)
            arena = self._bytes(plan.arena_bytes)
            program = Program(
                plan,
                self.module,
                arena,
                loop=self._loop,
                native=self.native,
                cuda=self._cuda,
                is_poisoned=self._is_poisoned,
            )
            with np.errstate(all="ignore"):
                for number in program.load(plan):
                    step = plan.steps[number]
        except (TelegradError, MemoryError, *_FAILURES) as error:
            found = self._explained(error, plan, step)
            raise found from (None if found is error else error)
        return arena, program, [(i, Recycled(type)) for i, type in program.results]

    def kernels_of(self, plan: Plan) -> list[str]:
        """What does each step; kernels that are not there yet are compiled, since only then is it known."""
        if self.native is not None:
            self.native.prepare(plan)
        return [self._kernel_of(plan, step) for step in plan.steps]

    def _kernel_of(self, plan: Plan, step: Step) -> str:
        place = plan.slots[step.outputs[0]].place
        if place in (Place.VIEW, Place.CONSTANT):
            return place.value
        if step.plans:
            return "loop"
        if self.native is None or not self.native.calls(plan, step):
            return "array"
        return "printed" if isinstance(step.op, Fused) else "library"

    def _loop(self, step: Step) -> Callable[..., None]:
        inner = [Inner(self, plan) for plan in step.plans]
        uses_library = self.native is not None and any(plan.uses_library for plan in step.plans)
        library = self.native.library if self.native is not None and uses_library else None
        if isinstance(step.op, Scan) and library is not None:
            found = native_scan(step.op, inner[0].plan, inner[0].program, library, operands=len(step.inputs))
            if found is not None:
                return found
        return loop_body(step.op, inner, self.module, len(step.inputs))

    def _make_room(self, nbytes: int) -> None:
        """Unload plans, the one that ran least recently first, until ``nbytes`` more fit or none is left."""
        held = sum(loaded.nbytes for loaded in self._loaded.values())
        for plan, loaded in sorted(self._loaded.items(), key=lambda item: item[1].last_run):
            if held + nbytes <= self._cached_bytes:
                return
            held -= loaded.nbytes
            del self._loaded[plan]

    def is_loaded(self, plan: Plan) -> bool:
        """Whether the plan's program and memory are at hand."""
        return plan in self._loaded

    @property
    def cached_bytes(self) -> int:
        """The bytes that loaded plans hold beside what their results' owners hold."""
        return sum(loaded.nbytes for loaded in self._loaded.values())

    def _poison(self, arena: Array, results: list[Array]) -> None:
        arena.fill(POISON)
        for array in results:
            array.reshape(-1).view(np.uint8).fill(POISON)

    def _explained(self, error: BaseException, plan: Plan, step: Step | None) -> TelegradError:
        """The error as users meet it: with op, operand types and the client's node."""
        found: TelegradError
        if isinstance(error, TelegradError):
            found = error
        elif isinstance(error, MemoryError):
            found = OutOfDeviceMemory(
                f"{self.name} has no room for a plan of {plan.peak_bytes} bytes", bytes=plan.peak_bytes
            )
        else:
            found = ExecutionError(f"{type(error).__name__}: {error}")
        if step is not None and "op" not in found.details:  # else a region has said where
            types = ", ".join(str(plan.slots[i].type) for i in step.inputs)
            found.message = f"{step.op.name}({types}): {found.message}"
            found.args = (found.message,)
            found.details |= {"op": step.op.name, "types": types}
            if step.origin is not None:
                found.details |= {"node": step.origin.node, "is_backward": step.origin.is_backward}
        return found

    # ---- memory: what a GPU does differently

    def _bytes(self, nbytes: int) -> Array:
        return aligned_bytes(nbytes)

    def _fresh(self, memory: Recycled) -> Array:
        return memory.take()

    def _publish(self, arrays: Sequence[Array]) -> None:
        for array in arrays:
            array.flags.writeable = False

    # ---- host

    def memory(self) -> Memory:
        """This machine's memory."""
        return host_memory()

    def from_host(self, type: Type, data: bytes | memoryview) -> Array:
        """An array with a copy of these bytes."""
        if type.nbytes <= SMALL_BYTES and self.is_host and type.dtype is not bool_:
            return array_from(type, bytes(data))  # a third of the time, and a step has a number for each parameter
        buffer, view = self.receive(type)
        if len(data) != len(view):
            array_from(type, data)  # raises DataCorrupt with both numbers
        if len(data) > LARGE_BYTES:
            np.copyto(np.frombuffer(view, np.uint8), np.frombuffer(data, np.uint8))  # others may run meanwhile
        else:
            view[:] = data
        return self.received(buffer)

    def receive(self, type: Type) -> tuple[Any, memoryview]:
        """A buffer for an upload, and its bytes."""
        array = self._arrivals.take(type)
        return array, array.reshape(-1).view(np.uint8).data

    def received(self, buffer: Any) -> Array:
        """The array in a filled buffer. Booleans other than 0 and 1, which NumPy does not expect, become 1."""
        if buffer.dtype == np.bool_:
            np.not_equal(buffer.view(np.uint8), 0, out=buffer)
        if sys.byteorder == "big":
            buffer = buffer.byteswap()
        buffer.flags.writeable = False
        return buffer

    def to_host(self, array: Array) -> memoryview:
        """The array's bytes, little-endian in C order."""
        return array_bytes(array)

    def is_of(self, array: Array, type: Type) -> bool:
        """Whether this is an array with elements of the type's, as far as a glance tells."""
        return getattr(array, "dtype", None) is numpy_dtype(type.dtype)

    def type_of(self, array: Array) -> Type:
        """The type of an array."""
        return type_of(array)

    def rows(self, array: Array, start: int, stop: int) -> Array:
        """Rows [start, stop) of an array."""
        return array[start:stop]

    def joined(self, arrays: Sequence[Array]) -> Array:
        """The rows of several arrays, one after the other."""
        lib: Any = self.module.lib
        whole = lib.concatenate(arrays)
        self._publish([whole])
        return whole

    def nbytes(self, array: Array) -> int:
        """How many bytes the array holds."""
        return int(array.nbytes)

    def exchange(self, host: Communicator, *, devices: Sequence[str], timeout_seconds: float) -> Communicator:
        """The group itself: NumPy's arrays are what it exchanges."""
        return host


def _arena_bytes(plan: Plan) -> int:
    return plan.arena_bytes + sum([_arena_bytes(inner) for step in plan.steps for inner in step.plans])


def numpy_executor(
    *,
    reason: str = "",
    kernels: str = "off",
    kernels_dir: str | None = None,
    cached_bytes: int = CACHED_BYTES,
    is_poisoned: bool = False,
) -> ArrayExecutor:
    """The executor on this machine's processor. With ``kernels`` "auto" groups of ops become kernels in C, kept in
    ``kernels_dir``, else in the user's cache."""
    native = native_kernels(kernels_dir) if kernels == "auto" else None
    return ArrayExecutor(
        NumpyModule(),
        name="numpy",
        reason=reason,
        fingerprint=numpy_fingerprint(kernels_in_words(native.compiler) if native is not None else ""),
        native=native,
        capacity_bytes=machine_bytes(),
        cached_bytes=cached_bytes,
        is_poisoned=is_poisoned,
    )


def machine_bytes() -> int | None:
    """The memory of this machine or container, None if it does not say.

    Linux promises memory that it does not have and then kills whoever touches it, so nothing would be raised.
    """
    found: list[int] = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = ""
    if limit.isdigit():
        found.append(int(limit))
    return min(found, default=None)
