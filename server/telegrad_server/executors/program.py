"""A plan made ready for one array module: arena, views into it, and a flat list of calls.

All that can be done once is done here, so that a step of a run costs one call of the array library and about
0.1 µs beside it: a step whose operands and result all lie in the arena has its arguments bound, the others
look them up in a list by slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from telegrad.ir.types import Type
from telegrad.wire.arrays import numpy_dtype

from telegrad_server.compiler.collective import Finish
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.plan import Place, Plan, Slot, Step
from telegrad_server.executors.array_module import LibraryModule
from telegrad_server.executors.company import finish_view
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
        is_poisoned: bool,
    ) -> None:
        """``loop`` gives the body of a step that owns plans, ``native`` that of a group of ops."""
        self._native = native
        self._loop = loop
        self._module = module
        self._slots = plan.slots
        self._arena = arena
        self._is_poisoned = is_poisoned
        self.values: list[Array | None] = [None] * len(plan.slots)
        self.calls: list[Call] = []
        self.steps: list[int] = []  # for each call the number of its step
        self.results: list[tuple[int, Type]] = [
            (i, slot.type) for i, slot in enumerate(plan.slots) if slot.place is Place.RESULT
        ]
        self.uses_blas = _uses_blas(plan)
        self.leaving = [k for k, i in enumerate(plan.outputs) if plan.slots[i].place in (Place.RESULT, Place.VIEW)]

    def load(self, plan: Plan) -> Iterator[int]:
        """Make everything ready; yields the number of each step before it is, so that an error has a place."""
        for i, slot in enumerate(self._slots):
            if slot.place is Place.ARENA:
                self.values[i] = self._in_arena(slot)
        for number, step in enumerate(plan.steps):
            yield number
            self._add(step)
            self.steps += [number] * (len(self.calls) - len(self.steps))

    def _bytes_of(self, slot: Slot) -> Array:
        return self._arena[slot.offset : slot.offset + slot.type.nbytes]

    def _in_arena(self, slot: Slot) -> Array:
        return self._bytes_of(slot).view(numpy_dtype(slot.type.dtype)).reshape(slot.type.shape)

    def _add(self, step: Step) -> None:
        place = self._slots[step.outputs[0]].place
        if place is Place.CONSTANT:
            self._add_constant(step)
        elif place is Place.VIEW:
            self._add_view(step)
        else:
            self._add_body(step)
        if self._is_poisoned:
            for i in step.frees:
                self.calls.append((BOUND, self._bytes_of(self._slots[i]).fill, (POISON,), None, None))

    def _add_constant(self, step: Step) -> None:
        results = step.op.eval(self._module)
        for i, result in zip(step.outputs, results if len(step.outputs) > 1 else (results,), strict=True):
            array = self._module.lib.array(result, order="C", copy=True)
            if hasattr(array.flags, "writeable"):
                array.flags.writeable = False
            self.values[i] = array

    def _add_view(self, step: Step) -> None:
        if isinstance(step.op, Finish):
            self._add_finish(step.op, step.inputs[0], step.outputs[0])
            return
        function = partial(step.op.eval, self._module)
        known = [self.values[i] for i in step.inputs]
        is_single = len(step.outputs) == 1
        if all(array is not None for array in known):
            found = function(*known)
            for i, array in zip(step.outputs, (found,) if is_single else found, strict=True):
                self.values[i] = array
        elif is_single and len(step.inputs) == 1:
            self.calls.append((VIEW, function, step.inputs[0], step.outputs[0], None))
        else:
            several = (lambda *arrays: (function(*arrays),)) if is_single else function
            self.calls.append((VIEWS, several, step.inputs, step.outputs, None))

    def _add_finish(self, op: Finish, token: int, out: int) -> None:
        """It waits when it is its turn; what it gives is known before, if the token's place is."""
        known = self.values[out] = self.values[token]
        if known is None:
            self.calls.append((VIEW, finish_view(op), token, out, None))
        else:
            self.calls.append((BOUND, finish_view(op), (known,), None, None))

    def _add_kernel(self, step: Step) -> bool:
        """Add the call of a group's kernel; False if it has none."""
        call = self._native.body(self._slots, step) if self._native is not None else None
        if call is None:
            return False
        slots = (*step.inputs, *step.outputs)
        function, missing = call.bind([self.values[i] for i in slots])
        if missing:
            self.calls.append((MANY, function, tuple([slots[k] for k in missing]), None, None))
        else:
            self.calls.append((BOUND, call, (), None, None))
        return True

    def _add_body(self, step: Step) -> None:
        if isinstance(step.op, Fused) and self._add_kernel(step):
            return
        types = tuple(self._slots[i].type for i in step.inputs)
        over = step.inputs.index(step.over) if step.over >= 0 else -1
        if step.plans:
            function = self._loop(step)
        else:
            function = body(step.op, self._module, types, results=len(step.outputs), over=over)
        slots = (*step.inputs, *step.outputs)
        known = [self.values[i] for i in slots]
        if all(array is not None for array in known):
            self.calls.append((BOUND, function, tuple(known), None, None))
        elif len(slots) == 2:
            self.calls.append((ONE, function, *slots, None))
        elif len(slots) == 3:
            self.calls.append((TWO, function, *slots))
        else:
            self.calls.append((MANY, function, slots, None, None))


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
