"""The plan: in which order nodes run, and where each value lives.

Values that nobody sees outside live in one arena, at offsets chosen best-fit over their lifetimes. A view
shares its base's place. An elementwise op whose operand dies with it writes over that operand: this is how
gradient contributions add up in place, in the fixed order in which `autodiff` chained them. Results do not
live in the arena, since their life goes on. The plan holds no arrays and no code, so any executor can run it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from telegrad.ir.graph import Function, Graph, Input
from telegrad.ir.op import Op
from telegrad.ir.types import Type
from telegrad.ir.value import Node, Origin, Value
from telegrad.ops.elementwise import Elementwise

ALIGNMENT = 64


class Place(Enum):
    """Where a slot's array lives."""

    INPUT = "input"
    ARENA = "arena"
    RESULT = "result"  # outlives the run, itself or through a view of it
    VIEW = "view"


@dataclass(frozen=True, slots=True)
class Slot:
    """A value's place. ``offset`` is in bytes from the arena's start; ``base`` is the slot that a view shares."""

    type: Type
    place: Place
    offset: int = -1
    base: int = -1


@dataclass(frozen=True, slots=True)
class Step:
    """One op. ``frees`` are slots that nobody needs after it; ``over`` is the operand that it overwrites, or -1."""

    op: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    frees: tuple[int, ...]
    over: int
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All that an executor needs to run a function."""

    slots: tuple[Slot, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    updates: tuple[tuple[int, int], ...]
    arena_bytes: int
    peak_bytes: int
    flops: int

    @property
    def input_types(self) -> tuple[Type, ...]:
        """The types of the operands."""
        return tuple(self.slots[i].type for i in self.inputs)

    @property
    def output_types(self) -> tuple[Type, ...]:
        """The types of the results."""
        return tuple(self.slots[i].type for i in self.outputs)

    def text(self) -> str:
        """The plan, one line a step."""
        lines = [f"arena {self.arena_bytes} bytes"]
        for step in self.steps:
            outs = ", ".join(f"{i}:{self._where(i)}" for i in step.outputs)
            over = f" over {step.over}" if step.over >= 0 else ""
            frees = f" frees {', '.join(map(str, step.frees))}" if step.frees else ""
            lines.append(f"{outs} = {step.op.name}({', '.join(map(str, step.inputs))}){over}{frees}")
        lines.append(f"-> {', '.join(map(str, self.outputs))}")
        return "\n".join(lines)

    def _where(self, i: int) -> str:
        slot = self.slots[i]
        if slot.place is Place.ARENA:
            return f"@{slot.offset}"
        return f"{slot.place.value}{f' of {slot.base}' if slot.place is Place.VIEW else ''}"


def make_plan(function: Function) -> Plan:
    """The plan of a function whose graph has gone through all passes."""
    graph = function.graph
    numbers, types = _number(graph)
    base, is_input = _bases(graph, numbers)
    escaping = {base[numbers[_key(v)]] for v in graph.outputs}
    last = _last_uses(graph, numbers, base)
    arena = _Arena()
    slots: list[Slot | None] = [None] * len(types)
    steps: list[Step] = []
    offsets: dict[int, int] = {}
    for i in is_input:
        slots[i] = Slot(types[i], Place.INPUT)
    dying = _dying(last, escaping, is_input)
    flops = 0
    for k, node in enumerate(n for n in graph.nodes if not isinstance(n.op, Input)):
        inputs = tuple([numbers[_key(v)] for v in node.inputs])
        outputs = tuple([numbers[id(node), i] for i in range(len(node.types))])
        over = _overwritten(node, inputs, types, base, offsets, dying.get(k, ()))
        for i in outputs:
            if base[i] != i:
                slots[i] = Slot(types[i], Place.VIEW, base=base[i])
            elif i in escaping:
                slots[i] = Slot(types[i], Place.RESULT)
            else:
                offset = offsets[over] if over >= 0 else arena.take(types[i].nbytes)
                offsets[i] = offset
                slots[i] = Slot(types[i], Place.ARENA, offset)
        frees = tuple(i for i in dying.get(k, ()) if i != over)
        for i in frees:
            if i in offsets:
                arena.give(offsets[i], types[i].nbytes)
        where = node.origin if isinstance(node.origin, Origin) else None
        steps.append(Step(node.op, inputs, outputs, dying.get(k, ()), over, where))
        flops += node.op.cost(*(v.type for v in node.inputs)).flops
    done = tuple(s for s in slots if s is not None)
    results = sum(s.type.nbytes for s in done if s.place is Place.RESULT)
    return Plan(
        done,
        tuple(steps),
        tuple(numbers[_key(v)] for v in graph.inputs),
        tuple(numbers[_key(v)] for v in graph.outputs),
        function.updates,
        arena.top,
        arena.top + results,
        flops,
    )


def _key(value: Value) -> tuple[int, int]:
    return id(value.node), value.index


def _number(graph: Graph) -> tuple[dict[tuple[int, int], int], list[Type]]:
    numbers: dict[tuple[int, int], int] = {}
    types: list[Type] = []
    for node in graph.nodes:
        for i, type in enumerate(node.types):
            numbers[id(node), i] = len(types)
            types.append(type)
    return numbers, types


def _bases(graph: Graph, numbers: dict[tuple[int, int], int]) -> tuple[list[int], list[int]]:
    """For each value the value whose memory it shares (itself if none); and which are inputs."""
    base: list[int] = []
    inputs: list[int] = []
    for node in graph.nodes:
        for i in range(len(node.types)):
            number = len(base)
            if isinstance(node.op, Input):
                inputs.append(number)
            if node.op.is_view and i < len(node.inputs):
                base.append(base[numbers[_key(node.inputs[i])]])
            else:
                base.append(number)
    return base, inputs


def _last_uses(graph: Graph, numbers: dict[tuple[int, int], int], base: Sequence[int]) -> dict[int, int]:
    """For each base the step after which nobody needs it."""
    last: dict[int, int] = {}
    for k, node in enumerate(n for n in graph.nodes if not isinstance(n.op, Input)):
        for value in node.inputs:
            last[base[numbers[_key(value)]]] = k
        for i in range(len(node.types)):
            last.setdefault(base[numbers[id(node), i]], k)
    return last


def _dying(last: dict[int, int], escaping: set[int], inputs: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """For each step the bases that end with it."""
    kept = escaping | set(inputs)
    found: dict[int, list[int]] = {}
    for i, k in last.items():
        if i not in kept:
            insort(found.setdefault(k, []), i)
    return {k: tuple(v) for k, v in found.items()}


def _overwritten(
    node: Node,
    inputs: tuple[int, ...],
    types: list[Type],
    base: Sequence[int],
    offsets: dict[int, int],
    dying: Sequence[int],
) -> int:
    """The operand that the node's result may overwrite: it ends here, lives in the arena and has the result's type."""
    if not (isinstance(node.op, Elementwise) and node.op.word):
        return -1
    for i in inputs:
        if base[i] == i and i in dying and i in offsets and types[i] == node.types[0]:
            # an operand that is also seen through a view of another shape must stay as it is while it is read
            if all(j == i or base[j] != i for j in inputs):
                return i
    return -1


class _Arena:
    """Best-fit offsets over time. ``top`` is the most that was ever in use."""

    def __init__(self) -> None:
        self.top = 0
        self._free: list[tuple[int, int]] = []  # (offset, size), by offset, never adjacent

    def take(self, nbytes: int) -> int:
        size = _aligned(nbytes)
        best = -1
        for k, (_, free) in enumerate(self._free):
            if free >= size and (best < 0 or free < self._free[best][1]):
                best = k
        if best >= 0:
            offset, free = self._free.pop(best)
            if free > size:
                insort(self._free, (offset + size, free - size))
            return offset
        if self._free and sum(self._free[-1]) == self.top:  # grow the free block at the end
            offset, _ = self._free.pop()
            self.top = offset + size
            return offset
        offset = self.top
        self.top += size
        return offset

    def give(self, offset: int, nbytes: int) -> None:
        size = _aligned(nbytes)
        insort(self._free, (offset, size))
        k = self._free.index((offset, size))
        if k + 1 < len(self._free) and offset + size == self._free[k + 1][0]:
            size += self._free.pop(k + 1)[1]
            self._free[k] = (offset, size)
        if k > 0 and sum(self._free[k - 1]) == offset:
            start, before = self._free.pop(k - 1)
            self._free[k - 1] = (start, before + size)


def _aligned(nbytes: int) -> int:
    return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)
