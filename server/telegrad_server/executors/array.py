"""Runs a plan op by op with an array module.

A plan is loaded once: its arena, the views into it and a flat list of calls are made then, so that a step
of a run costs one function call beside the array library's own work.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from telegrad.errors import ExecutionError, OutOfDeviceMemory, TelegradError
from telegrad.ir.op import Op
from telegrad.ir.types import Type
from telegrad.ops.elementwise import Constant, Elementwise
from telegrad.ops.linalg import Matmul
from telegrad.wire.arrays import array_bytes, numpy_dtype
from telegrad_server.compiler.plan import Place, Plan, Slot, Step
from telegrad_server.executors.array_module import LibraryModule, NumpyModule

ARENA_CACHE_BYTES = 1 << 30
RECYCLED_BYTES = 64 * 1024  # results from this size on are recycled; smaller ones are cheap to make

Call = tuple[Callable[..., Any], tuple[int, ...], int, Any, tuple[int, ...]]
"""A step as it runs: function, operand slots, result slot, what it writes into (or None), slots to forget.

A result slot of -1 means several results; the last field then begins with their slots.
"""


class _Program:
    """A plan made ready: calls, the values known beforehand, and which slots get a fresh array each run."""

    def __init__(self, plan: Plan, module: LibraryModule, *, poison: bool) -> None:
        library = module.lib
        self.plan = plan
        self.arena = library.empty(plan.arena_bytes, dtype=np.uint8)
        self.poison = poison
        self.initial: list[Any] = [None] * len(plan.slots)
        self.fresh: list[tuple[int, Type]] = []
        self.calls: list[Call] = []
        self.steps: list[Step] = []
        self.multiple: dict[int, tuple[int, ...]] = {}
        self.results = tuple(dict.fromkeys(plan.outputs))
        for step in plan.steps:
            self._add(step, module)

    def _add(self, step: Step, module: LibraryModule) -> None:
        out = step.outputs[0]
        slot = self.plan.slots[out]
        if isinstance(step.op, Constant):
            array = step.op.eval(module)
            self.initial[out] = array
            return
        writer = _writer(step.op, module, slot)
        into = None
        function: Callable[..., Any] = writer or _evaluator(step.op, module)
        if writer is not None:
            if slot.place is Place.ARENA:
                into = self.view(slot)
            else:
                into = out
                self.fresh.append((out, slot.type))
        frees = tuple(i for i in step.frees if self.initial[i] is None)
        if len(step.outputs) > 1:
            self.multiple[len(self.calls)] = step.outputs
            out = -1
        self.calls.append((function, step.inputs, out, into, frees))
        self.steps.append(step)

    def view(self, slot: Slot) -> Any:
        """The slot's place in the arena as an array."""
        end = slot.offset + slot.type.nbytes
        return self.arena[slot.offset : end].view(numpy_dtype(slot.type.dtype)).reshape(slot.type.shape)


def _writer(op: Op, module: LibraryModule, slot: Slot) -> Callable[..., Any] | None:
    """A function that writes the op's result into a given array, if the array library has one."""
    if isinstance(op, Elementwise) and op.word:
        function = getattr(module, op.word)
        return function if hasattr(function, "nout") else None  # a ufunc takes ``out``
    if isinstance(op, Matmul) and slot.type.dtype.name in ("float32", "float64"):
        return module.lib.matmul
    return None


def _evaluator(op: Op, module: LibraryModule) -> Callable[..., Any]:
    return lambda *arrays: op.eval(module, *arrays)


class ArrayExecutor:
    """The executor over an array module: NumPy here, CuPy by `cupy_module`."""

    def __init__(
        self, module: LibraryModule, *, name: str, reason: str, fingerprint: str, poison: bool = False
    ) -> None:
        self.module = module
        self.name = name
        self.reason = reason
        self.fingerprint = fingerprint
        self._poison = poison
        self._programs: OrderedDict[int, _Program] = OrderedDict()
        self._arena_bytes = 0
        self._recycled: dict[int, list[Any]] = {}

    # ---- running

    def run(self, plan: Plan, inputs: Sequence[Any]) -> list[Any]:
        """The results of the plan; see `Executor.run`."""
        program = self._program(plan)
        values = program.initial.copy()
        for i, array in zip(plan.inputs, inputs, strict=True):
            values[i] = array
        number = 0
        try:
            for i, type in program.fresh:
                values[i] = self._empty(type)
            if program.poison:
                program.arena.fill(0xA5)
            with np.errstate(all="ignore"):
                for number, (function, operands, out, into, frees) in enumerate(program.calls):
                    arguments = [values[i] for i in operands]
                    if into is None:
                        result = function(*arguments)
                        if out >= 0:
                            values[out] = result
                        else:
                            for i, part in zip(program.multiple[number], result, strict=True):
                                values[i] = part
                    elif type_is_int(into):
                        function(*arguments, out=values[out])
                    else:
                        function(*arguments, out=into)
                        values[out] = into
                    for i in frees:
                        values[i] = None
        except TelegradError as error:
            raise _located(error, program.steps[number], plan) from None
        except MemoryError as error:
            raise _located(
                OutOfDeviceMemory(f"the device has no room: {error}"), program.steps[number], plan
            ) from None
        except Exception as error:
            message = f"{program.steps[number].op.name} failed: {error}"
            raise _located(ExecutionError(message), program.steps[number], plan) from error
        return [self._result(values[i], plan.slots[i].type) for i in plan.outputs]

    def _program(self, plan: Plan) -> _Program:
        program = self._programs.get(id(plan))
        if program is None:
            program = _Program(plan, self.module, poison=self._poison)
            self._programs[id(plan)] = program
            self._arena_bytes += plan.arena_bytes
            while self._arena_bytes > ARENA_CACHE_BYTES and len(self._programs) > 1:
                _, old = self._programs.popitem(last=False)
                self._arena_bytes -= old.plan.arena_bytes
        else:
            self._programs.move_to_end(id(plan))
        return program

    def _result(self, value: Any, type: Type) -> Any:
        array = value if hasattr(value, "strides") else self.module.lib.asarray(value)
        assert array.shape == type.shape and array.dtype == numpy_dtype(type.dtype), (array.shape, array.dtype, type)
        return self._frozen(array)

    def _frozen(self, array: Any) -> Any:
        if array.flags.writeable:
            array = array.view()
            array.flags.writeable = False
        return array

    # ---- memory

    def _empty(self, type: Type) -> Any:
        """Memory for a result. Large blocks are used again once nobody refers to them.

        A block is an untyped array that only the pool and views of it refer to; CPython counts both kinds of
        reference, and this thread is the only one that hands blocks out, so a block that nobody but the pool
        refers to can have no reader.
        """
        nbytes = type.nbytes
        if nbytes < RECYCLED_BYTES:
            return self.module.lib.empty(type.shape, dtype=numpy_dtype(type.dtype))
        blocks = self._recycled.setdefault(nbytes, [])
        for i in range(len(blocks)):
            if sys.getrefcount(blocks[i]) == 2:  # the list, and the argument of getrefcount
                return blocks[i].view(numpy_dtype(type.dtype)).reshape(type.shape)
        block = self.module.lib.empty(nbytes, dtype=np.uint8)
        if len(blocks) < 64:
            blocks.append(block)
        return block.view(numpy_dtype(type.dtype)).reshape(type.shape)

    def trim(self) -> None:
        """Give back blocks that nobody uses."""
        for nbytes, blocks in self._recycled.items():
            self._recycled[nbytes] = [b for b in blocks if sys.getrefcount(b) > 3]

    # ---- host

    def from_host(self, type: Type, data: bytes | memoryview) -> Any:
        """An array with a copy of these bytes."""
        buffer, view = self.receive(type)
        view[:] = data
        return self.received(buffer)

    def receive(self, type: Type) -> tuple[Any, memoryview]:
        """A buffer for an upload, and its bytes."""
        array = np.empty(type.shape, dtype=numpy_dtype(type.dtype))
        return array, memoryview(array.reshape(-1).view(np.uint8))

    def received(self, buffer: Any) -> Any:
        """The array in a filled buffer; booleans other than 0 and 1 become 1."""
        if buffer.dtype == np.bool_:
            buffer = buffer.view(np.uint8) != 0
        if sys.byteorder == "big":
            buffer = buffer.byteswap()
        return self._frozen(buffer)

    def to_host(self, array: Any) -> memoryview:
        """The array's bytes, little-endian in C order."""
        return array_bytes(array)

    def nbytes(self, array: Any) -> int:
        """How many bytes the array keeps alive."""
        while array.base is not None and hasattr(array.base, "nbytes"):
            array = array.base
        return int(array.nbytes)


def type_is_int(value: Any) -> bool:
    """Whether a call writes into a fresh result (given by slot) and not into the arena."""
    return value.__class__ is int


def _located(error: TelegradError, step: Step, plan: Plan) -> TelegradError:
    types = ", ".join(str(plan.slots[i].type) for i in step.inputs)
    error.details.setdefault("op", step.op.name)
    error.details.setdefault("types", types)
    if step.origin is not None:
        error.details.setdefault("node", step.origin.node)
        error.details.setdefault("is_backward", step.origin.is_backward)
    if not error.message.startswith(step.op.name):
        error.message = f"{step.op.name}({types}): {error.message}"
    return error


def numpy_executor(*, reason: str = "", poison: bool = False) -> ArrayExecutor:
    """The executor on this machine's processor."""
    from telegrad_server.executors.fingerprint import numpy_fingerprint

    return ArrayExecutor(
        NumpyModule(), name="numpy", reason=reason, fingerprint=numpy_fingerprint(), poison=poison
    )
