"""Loops on an array library: the plans of their regions, run again and again with memory of their own.

Stacked results are written where they belong; a carry goes from trip to trip in blocks that are used again
(`recycle`), so a trip costs its calls and a few microseconds beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from telegrad.errors import ExecutionError
from telegrad.ir.op import Op
from telegrad.ops.loops import Scan, Switch, While

from telegrad_server.compiler.plan import Place, Plan
from telegrad_server.executors.array_module import LibraryModule
from telegrad_server.executors.stopping import check_wanted

Array = Any


BLOCK = 4096
"""How many numbers of trips are made at once."""


class Inner(Protocol):
    """A region's plan, loaded."""

    plan: Plan

    def __call__(self, inputs: Sequence[Array], into: dict[int, Array]) -> list[Array]:
        """The results; those whose slots are in ``into`` are written there."""
        ...


def loop_body(op: Op, inner: Sequence[Inner], module: LibraryModule, operands: int) -> Callable[..., None]:
    """The body of a loop: takes its operands and then the arrays to write."""
    match op:
        case Scan():
            return partial(_scan, op, inner[0], module, operands)
        case Switch():
            return partial(_switch, inner, module, operands)
        case While():
            return partial(_while, op, inner[0], inner[1], module, operands)
        case _:
            raise ExecutionError(f"{op.name} owns regions and has no way to run them")


def _scan(op: Scan, trip: Inner, module: LibraryModule, operands: int, *arrays: Array) -> None:
    carries, end = op.carries, op.carries + op.xs
    given = [module.lib.asarray(x, order="C") for x in arrays[:operands]]
    outs = arrays[operands:]
    carry, xs, constants = given[:carries], given[carries:end], given[end:]
    direct, copied = _destinations(trip.plan, carries)
    for i, number in _trips(op, module):
        check_wanted()
        into = {slot: outs[k][i, ...] for slot, k in direct}
        results = trip([number, *carry, *[x[i, ...] for x in xs], *constants], into)
        for k in copied:
            outs[k][i, ...] = results[k]
        carry = results[:carries]
    _copy(module, outs, carry)


def _trips(op: Scan, module: LibraryModule) -> Iterator[tuple[int, Array]]:
    """The numbers of the trips in order, as Python's and as the array module's; a block at a time."""
    starts = range(0, op.length, BLOCK)
    for start in reversed(starts) if op.reverse else starts:
        count = min(BLOCK, op.length - start)
        numbers = module.lib.arange(start, start + count)
        for i in reversed(range(count)) if op.reverse else range(count):
            yield start + i, numbers[i, ...]


def _destinations(plan: Plan, carries: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Which stacked results a trip can write where they belong, as (slot, number), and which are copied there."""
    direct: dict[int, int] = {}
    copied: list[int] = []
    for k in range(carries, len(plan.outputs)):
        slot = plan.outputs[k]
        if plan.slots[slot].place is Place.RESULT and slot not in direct:
            direct[slot] = k
        else:
            copied.append(k)
    return list(direct.items()), copied


def _switch(branches: Sequence[Inner], module: LibraryModule, operands: int, *arrays: Array) -> None:
    number = min(max(int(arrays[0]), 0), len(branches) - 1)
    given = [module.lib.asarray(x, order="C") for x in arrays[1:operands]]
    branch, outs = branches[number], arrays[operands:]
    direct, copied = _destinations(branch.plan, 0)
    results = branch(given, {slot: outs[k] for slot, k in direct})
    for k in copied:
        module.copy_into(outs[k], results[k])


def _while(op: While, test: Inner, trip: Inner, module: LibraryModule, operands: int, *arrays: Array) -> None:
    given = [module.lib.asarray(x, order="C") for x in arrays[:operands]]
    carry, constants = given[: op.carries], given[op.carries :]
    number = 0
    while True:
        check_wanted()
        index = module.lib.asarray(np.int64(number))
        if not bool(test([index, *carry, *constants], {})[0]):
            break
        if number == op.max_trips:
            raise ExecutionError(
                f"while_loop has made its {op.max_trips} trips and the condition still holds; raise max_trips, or let "
                "the condition end it"
            )
        carry = trip([index, *carry, *constants], {})
        number += 1
    _copy(module, arrays[operands:], carry)


def _copy(module: LibraryModule, outs: Sequence[Array], values: Sequence[Array]) -> None:
    for out, value in zip(outs, values, strict=False):
        module.copy_into(out, value)
