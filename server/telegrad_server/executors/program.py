"""A plan made ready for one array module: arena, views into it, and a flat list of calls.

All that can be done once is done here, so that a step of a run costs one call of the array library and about
0.1 µs beside it: a step whose operands and result all lie in the arena has its arguments bound, the others
look them up in a list by slot. Consecutive steps that kernels do are one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from telegrad.ir.types import Type
from telegrad.ops.index import Gather, ScatterAdd
from telegrad.wire.arrays import numpy_dtype

from telegrad_server.compiler.collective import Finish
from telegrad_server.compiler.plan import Place, Plan, Slot, Step
from telegrad_server.executors.array_module import LibraryModule
from telegrad_server.executors.company import finish_view
from telegrad_server.executors.cuda_kernels import CudaKernels
from telegrad_server.executors.driver import Driver, KernelCall, Where, copying
from telegrad_server.executors.kernels import Body, body
from telegrad_server.executors.native import Native

Array = Any

BOUND, ONE, TWO, MANY, VIEW, VIEWS = range(6)
"""What a call does with its function f and its fields a, b, c, where v is the list of values by slot:

BOUND f(*a) · ONE f(v[a], v[b]) · TWO f(v[a], v[b], v[c]) · MANY f(v of each in a)
VIEW v[b] = f(v[a]) · VIEWS v[each in b] = f(v of each in a)
"""

Call = tuple[int, Callable[..., Any], Any, Any, Any]


class Program:
    """What a run needs of a plan: the values known beforehand, the calls, and which slots take fresh memory."""

    def __init__(
        self,
        plan: Plan,
        module: LibraryModule,
        arena: Array,
        *,
        loop: Callable[[Step], Body],
        native: Native | None,
        cuda: CudaKernels | None = None,
        is_poisoned: bool,
    ) -> None:
        """``loop`` gives the body of a step that owns plans, ``native`` and ``cuda`` the kernels."""
        self._cuda = cuda
        self._loop = loop
        self._module = module
        self._slots = plan.slots
        self._arena = arena
        self._is_poisoned = is_poisoned
        self._kernels = [native.calls(plan, step) if native is not None else [] for step in plan.steps]
        library = native.library if native is not None and any(self._kernels) else None
        self.driver = Driver(library) if library is not None else None
        self._wanted = self._looked_up(plan)
        self._checked: set[tuple[int, int]] = set()  # index slots, and how many rows they are numbers of
        self._shadows: dict[int, Array] = {}  # of arrays that are not there yet: only addresses and strides are theirs
        self.point: Callable[[list[Array]], None] | None = None
        """What tells kernels where the arrays of a run are."""
        self.values: list[Array | None] = [None] * len(plan.slots)
        self.calls: list[Call] = []
        self.steps: list[int] = []  # for each call the number of its step
        self.results: list[tuple[int, Type]] = [
            (i, slot.type) for i, slot in enumerate(plan.slots) if slot.place is Place.RESULT
        ]
        kernels = zip(plan.steps, self._kernels, strict=True)
        self.uses_blas = any(
            (step.op.uses_blas and not found) or any(map(_uses_blas, step.plans)) for step, found in kernels
        )
        self.leaving = [k for k, i in enumerate(plan.outputs) if plan.slots[i].place in (Place.RESULT, Place.VIEW)]

    def load(self, plan: Plan) -> Iterator[int]:
        """Make everything ready; yields the number of each step before it is, so that an error has a place."""
        for i, slot in enumerate(self._slots):
            if slot.place is Place.ARENA:
                self.values[i] = self._in_arena(slot)
        for number, step in enumerate(plan.steps):
            yield number
            self._add(step, self._kernels[number])
            self.steps += [number] * (len(self.calls) - len(self.steps))
        self._close()
        self.steps += [len(plan.steps) - 1] * (len(self.calls) - len(self.steps))
        if self.driver is not None:
            self.point = self.driver.point()
        self._shadows.clear()

    def _bytes_of(self, slot: Slot) -> Array:
        return self._arena[slot.offset : slot.offset + slot.type.nbytes]

    def _in_arena(self, slot: Slot) -> Array:
        return self._bytes_of(slot).view(numpy_dtype(slot.type.dtype)).reshape(slot.type.shape)

    def _add(self, step: Step, kernels: list[KernelCall]) -> None:
        place = self._slots[step.outputs[0]].place
        if place is Place.CONSTANT:
            self._add_constant(step)
        elif place is Place.VIEW:
            self._add_view(step)
        elif kernels:
            self._add_kernels(step, kernels)
        else:
            self._close()
            self._add_body(step)
        if self._is_poisoned and step.frees:
            self._close()
            for i in step.frees:
                self.calls.append((BOUND, self._bytes_of(self._slots[i]).fill, (POISON,), None, None))

    def _close(self) -> None:
        """End a run of kernels: what follows is Python's."""
        found = self.driver.closed() if self.driver is not None else None
        if found is not None:
            self.calls.append((BOUND, *found, None, None))

    def _add_constant(self, step: Step) -> None:
        results = step.op.eval(self._module)
        for i, result in zip(step.outputs, results if len(step.outputs) > 1 else (results,), strict=True):
            array = self._module.lib.array(result, order="C", copy=True)
            if hasattr(array.flags, "writeable"):
                array.flags.writeable = False
            self.values[i] = array

    def _add_view(self, step: Step) -> None:
        if isinstance(step.op, Finish):
            self._close()
            self._add_finish(step.op, step.inputs[0], step.outputs[0])
            return
        function = partial(step.op.eval, self._module)
        known = [self.values[i] for i in step.inputs]
        is_single = len(step.outputs) == 1
        if all(array is not None for array in known):
            found = function(*known)
            for i, array in zip(step.outputs, (found,) if is_single else found, strict=True):
                self.values[i] = array
        else:
            self._add_moving_view(step, function)

    def _add_moving_view(self, step: Step, function: Callable[..., Any]) -> None:
        """Add a view of what lies elsewhere in every run, if Python reads it."""
        is_single = len(step.outputs) == 1
        if any(map(self._is_unknown, step.outputs)):
            self._close()  # it may look at the elements
        elif self.driver is not None:
            shadows = function(*[self._shadow(i) for i in step.inputs])
            self._shadows.update(zip(step.outputs, (shadows,) if is_single else shadows, strict=True))
        if self._wanted.isdisjoint(step.outputs):
            return
        if is_single and len(step.inputs) == 1:
            self.calls.append((VIEW, function, step.inputs[0], step.outputs[0], None))
        else:
            several = (lambda *arrays: (function(*arrays),)) if is_single else function
            self.calls.append((VIEWS, several, step.inputs, step.outputs, None))

    def _add_finish(self, op: Finish, token: int, out: int) -> None:
        """It waits when it is its turn; what it gives is known before, if the token's place is."""
        known = self.values[out] = self.values[token]
        if known is None:
            self._shadows[out] = self._shadow(token)
            self.calls.append((VIEW, finish_view(op), token, out, None))
        else:
            self.calls.append((BOUND, finish_view(op), (known,), None, None))

    # ---- kernels

    def _looked_up(self, plan: Plan) -> set[int]:
        """The slots whose arrays Python reads; kernels know by themselves where the others are."""
        wanted = set(plan.outputs)
        for step, kernels in zip(reversed(plan.steps), reversed(self._kernels), strict=True):
            is_view = self._slots[step.outputs[0]].place is Place.VIEW
            if is_view and not isinstance(step.op, Finish):
                if not wanted.isdisjoint(step.outputs):
                    wanted.update(step.inputs)
            elif not kernels or any(map(self._is_unknown, step.inputs)):
                wanted.update(step.inputs)
            elif isinstance(step.op, Gather | ScatterAdd):
                wanted.add(step.inputs[1])
        return wanted

    def _is_unknown(self, i: int) -> bool:
        """Whether nobody knows how the elements of a slot lie: they are copied, in C order."""
        return self._slots[i].place is Place.VIEW and self._slots[i].strides is None

    def _add_kernels(self, step: Step, kernels: list[KernelCall]) -> None:
        slots = (*step.inputs, *step.outputs)
        copied = [k for k, i in enumerate(slots) if self._is_unknown(i)]
        assert self.driver is not None
        self._check_rows(step)
        if copied:
            self._close()
            self._add_call(copying(self.driver.library, kernels, copied), slots)
        else:
            self.driver.add(kernels, [self._where(i) for i in slots])

    def _check_rows(self, step: Step) -> None:
        """Let Python look at the numbers of rows before a kernel uses them: once for each array of them."""
        if not isinstance(step.op, Gather | ScatterAdd):
            return
        rows = step.op.rows if isinstance(step.op, ScatterAdd) else self._slots[step.inputs[0]].type.shape[0]
        index = step.inputs[1]
        if (index, rows) not in self._checked:
            self._checked.add((index, rows))
            self._close()
            self._add_call(partial(_check, self._module, rows), (index,))

    def _where(self, i: int) -> Where:
        slot, array = self._slots[i], self.values[i]
        if array is not None:
            return Where(-1, array.ctypes.data)
        if slot.place is not Place.VIEW:
            return Where(i, 0)
        return Where(slot.base, self._shadow(i).ctypes.data - self._shadow(slot.base).ctypes.data)

    def _shadow(self, i: int) -> Array:
        """An array that lies as the slot's will, in memory that nobody touches."""
        if self.values[i] is not None:
            return self.values[i]
        if i not in self._shadows:
            slot = self._slots[i]
            assert slot.place is not Place.VIEW
            self._shadows[i] = np.empty(slot.type.shape, numpy_dtype(slot.type.dtype))
        return self._shadows[i]

    # ---- the rest

    def _add_body(self, step: Step) -> None:
        types = tuple(self._slots[i].type for i in step.inputs)
        over = step.inputs.index(step.over) if step.over >= 0 else -1
        if step.plans:
            function = self._loop(step)
        else:
            function = self._cuda.body(self._slots, step) if self._cuda is not None else None
            function = function or body(step.op, self._module, types, results=len(step.outputs), over=over)
        self._add_call(function, (*step.inputs, *step.outputs))

    def _add_call(self, function: Body, slots: tuple[int, ...]) -> None:
        known = [self.values[i] for i in slots]
        if all(array is not None for array in known):
            self.calls.append((BOUND, function, tuple(known), None, None))
        elif len(slots) == 2:
            self.calls.append((ONE, function, *slots, None))
        elif len(slots) == 3:
            self.calls.append((TWO, function, *slots))
        else:
            self.calls.append((MANY, function, slots, None, None))


def _check(module: LibraryModule, rows: int, index: Array) -> None:
    module.checked_index(index, rows)


def _uses_blas(plan: Plan) -> bool:
    return any(step.op.uses_blas or any(map(_uses_blas, step.plans)) for step in plan.steps)


POISON = 0xFF
"""The byte that fills memory nobody may read: NaN in every float, -1 in integers."""


def run_calls(calls: Iterator[Call], values: list[Any]) -> None:
    """Run the calls on the values. When one raises, ``calls`` stands behind it."""
    for code, function, a, b, c in calls:
        if code == BOUND:
            function(*a)
        elif code == TWO:
            function(values[a], values[b], values[c])
        elif code == ONE:
            function(values[a], values[b])
        elif code == VIEW:
            values[b] = function(values[a])
        elif code == MANY:
            function(*[values[i] for i in a])
        else:
            for i, array in zip(b, function(*[values[i] for i in a]), strict=True):
                values[i] = array
