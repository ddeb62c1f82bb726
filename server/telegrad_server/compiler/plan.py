"""The plan: in which order nodes run, and where each value lives.

Values that nobody sees outside live in one arena, at offsets chosen best-fit over their lifetimes. A view
shares its base's place and keeps it alive. An elementwise op whose operand ends with it writes over that
operand: this is how gradient contributions add up in place, in the fixed order in which `autodiff` chained
them. Results do not live in the arena, since their life goes on; each is contiguous and no larger than it
looks, so a view that leaves is copied out. A plan holds no arrays and no code: any executor can run it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from telegrad.ir.graph import Function, Graph, Input
from telegrad.ir.op import Op
from telegrad.ir.text import op_text
from telegrad.ir.types import Type
from telegrad.ir.value import Node, Origin, Value
from telegrad.ops.elementwise import Cast, Elementwise

from telegrad_server.compiler.arena import Arena, aligned
from telegrad_server.compiler.layout import Strides, contiguous_strides, is_contiguous, view_strides
from telegrad_server.compiler.schedule import Demand, schedule

CONSTANT_BYTES = 64 * 1024
"""Values without operands up to this size are made once, when a plan is loaded."""


class Place(Enum):
    """Where a slot's elements live."""

    INPUT = "input"
    CONSTANT = "constant"
    ARENA = "arena"
    RESULT = "result"
    VIEW = "view"


@dataclass(frozen=True, slots=True)
class Slot:
    """A value's place.

    ``offset`` is in bytes from the arena's start (ARENA); ``base`` is the slot whose memory a view shares, and
    ``strides`` its strides in elements, None if they are not known before it runs (VIEW).
    """

    type: Type
    place: Place
    offset: int = -1
    base: int = -1
    strides: Strides | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One op on slots. ``over`` is the operand slot whose memory the result takes, -1 for none; ``frees`` are the
    arena slots that nobody reads after it. Steps without operands whose slot is a CONSTANT, and views of these,
    run once, when the plan is loaded.
    """

    op: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    frees: tuple[int, ...]
    over: int
    origin: Origin | None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Plan:
    """All that an executor needs to run a function. ``peak_bytes`` is arena, results and constants together."""

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
        return tuple([self.slots[i].type for i in self.inputs])

    @property
    def output_types(self) -> tuple[Type, ...]:
        """The types of the results."""
        return tuple([self.slots[i].type for i in self.outputs])

    def text(self) -> str:
        """The plan, one line a step: where each result goes, what it is computed from, what ends."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"arena {self.arena_bytes} bytes, peak {self.peak_bytes} bytes"
        for i in self.inputs:
            yield f"%{i} input : {self.slots[i].type}"
        for step in self.steps:
            made = ", ".join(f"%{i} {self._where(i, step)}" for i in step.outputs)
            types = ", ".join(str(self.slots[i].type) for i in step.outputs)
            frees = f"; ends {_names(step.frees)}" if step.frees else ""
            yield f"{made} = {op_text(step.op)}({_names(step.inputs)}) : {types}{frees}"
        yield f"-> {_names(self.outputs)}"

    def _where(self, i: int, step: Step) -> str:
        slot = self.slots[i]
        if slot.place is Place.ARENA:
            return f"@{slot.offset}" + (f" over %{step.over}" if step.over >= 0 else "")
        if slot.place is Place.VIEW:
            return f"view of %{slot.base} {list(slot.strides) if slot.strides is not None else '?'}"
        return slot.place.value


def _names(slots: Sequence[int]) -> str:
    return ", ".join(f"%{i}" for i in slots)


def make_plan(function: Function) -> Plan:
    """The plan of a function whose graph has gone through all passes."""
    return _Planner(function.graph).plan(function.updates)


class _Planner:
    """Numbers the values of a graph as slots and finds, for each, whose memory it lives in."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.body: list[Node] = []
        self.first: dict[int, int] = {}  # node -> the slot of its first output
        self.types: list[Type] = []
        self.base: list[int] = []  # the slot whose memory a slot shares, itself if none
        self.strides: list[Strides | None] = []
        self.place: list[Place] = []  # of the base, ARENA where it is scratch
        for node in graph.nodes:
            self._number(node)
        leaving = {value: self._leaving(value) for value in dict.fromkeys(graph.outputs)}
        self.outputs = [leaving[value] for value in graph.outputs]
        for i in self.outputs:
            if self.place[i] is Place.ARENA:
                self.place[self.base[i]] = Place.RESULT

    def slot(self, value: Value) -> int:
        return self.first[id(value.node)] + value.index

    def _number(self, node: Node) -> int:
        """Give the node's outputs slots; the first of them."""
        first = self.first[id(node)] = len(self.types)
        if not isinstance(node.op, Input):
            self.body.append(node)
        for index, type in enumerate(node.types):
            i = first + index
            base, strides, place = i, contiguous_strides(type.shape), Place.ARENA
            if isinstance(node.op, Input):
                place = Place.INPUT
            elif not node.inputs and node.op.is_pure and type.nbytes <= CONSTANT_BYTES:
                place = Place.CONSTANT
            elif node.op.is_view and index < len(node.inputs):
                x = self.slot(node.inputs[index])
                found = view_strides(node.op, self.types[x], self.strides[x], type)
                if found != "copy":
                    base, strides, place = self.base[x], found, self.place[self.base[x]]
            self.types.append(type)
            self.base.append(base)
            self.strides.append(strides)
            self.place.append(place)
        return first

    def _is_whole(self, i: int) -> bool:
        """Whether the slot is its base's memory in C order, under whatever shape."""
        return self.types[i].size == self.types[self.base[i]].size and is_contiguous(
            self.types[i].shape, self.strides[i]
        )

    def _leaving(self, value: Value) -> int:
        """The slot that leaves the run for this output: its own, or that of a copy."""
        i = self.slot(value)
        if self._is_whole(i):
            return i
        return self._number(Node(Cast(value.dtype), (value,), (value.type,), (), value.node.origin))

    def plan(self, updates: tuple[tuple[int, int], ...]) -> Plan:
        order = [self.body[k] for k in self._order()]
        ends = self._ends(order)
        arena = Arena()
        slots: dict[int, Slot] = {}
        offsets: dict[int, int] = {}
        steps: list[Step] = []
        for value in self.graph.inputs:
            i = self.slot(value)
            slots[i] = Slot(self.types[i], Place.INPUT)
        for k, node in enumerate(order):
            inputs = tuple([self.slot(v) for v in node.inputs])
            outputs = tuple(range(self.first[id(node)], self.first[id(node)] + len(node.types)))
            over = self._overwritten(node, inputs, ends[k]) if self._is_scratch(outputs[0]) else -1
            for i in outputs:
                if self._is_scratch(i):
                    offsets[i] = arena.take(self.types[i].nbytes) if over < 0 else offsets[self.base[over]]
                slots[i] = self._placed(i, offsets.get(i, -1))
            frees = tuple([i for i in ends[k] if over < 0 or i != self.base[over]])
            for i in frees:
                arena.give(offsets[i], self.types[i].nbytes)
            steps.append(
                Step(node.op, inputs, outputs, frees, over, node.origin if isinstance(node.origin, Origin) else None)
            )
        own = [i for i in range(len(self.types)) if self.base[i] == i]
        kept = sum([self.types[i].nbytes for i in own if self.place[i] in (Place.RESULT, Place.CONSTANT)])
        return Plan(
            slots=tuple([slots[i] for i in range(len(self.types))]),
            steps=tuple(steps),
            inputs=tuple([self.slot(v) for v in self.graph.inputs]),
            outputs=tuple(self.outputs),
            updates=updates,
            arena_bytes=arena.top,
            peak_bytes=arena.top + kept,
            flops=sum([node.op.cost(*[v.type for v in node.inputs]).flops for node in order]),
        )

    def _is_scratch(self, i: int) -> bool:
        return self.base[i] == i and self.place[i] is Place.ARENA

    def _placed(self, i: int, offset: int) -> Slot:
        if self.base[i] != i:
            return Slot(self.types[i], Place.VIEW, base=self.base[i], strides=self.strides[i])
        return Slot(self.types[i], self.place[i], offset=offset)

    def _blocks(self, node: Node) -> tuple[int, ...]:
        """The scratch memory that a node reads."""
        bases = dict.fromkeys([self.base[self.slot(v)] for v in node.inputs])
        return tuple([b for b in bases if self.place[b] is Place.ARENA])

    def _order(self) -> list[int]:
        numbers = {id(node): k for k, node in enumerate(self.body)}
        demands: list[Demand] = []
        for node in self.body:
            after = dict.fromkeys([numbers[id(v.node)] for v in node.inputs if id(v.node) in numbers])
            first = self.first[id(node)]
            made = [i for i in range(first, first + len(node.types)) if self._is_scratch(i)]
            demands.append(
                Demand(
                    after=tuple(after),
                    blocks=self._blocks(node),
                    makes=sum([aligned(self.types[i].nbytes) for i in made]),
                    may_overwrite=isinstance(node.op, Elementwise),
                )
            )
        return schedule(demands, [aligned(type.nbytes) for type in self.types])

    def _ends(self, order: Sequence[Node]) -> list[list[int]]:
        """For each step the scratch slots that nobody reads after it."""
        last: dict[int, int] = {}
        for k, node in enumerate(order):
            for block in self._blocks(node):
                last[block] = k
            first = self.first[id(node)]
            for i in range(first, first + len(node.types)):
                if self._is_scratch(i):
                    last[i] = k
        ends: list[list[int]] = [[] for _ in order]
        for i, k in last.items():
            ends[k].append(i)
        return ends

    def _overwritten(self, node: Node, inputs: tuple[int, ...], ends: Sequence[int]) -> int:
        """The operand that the result may overwrite: it ends here and has the result's type, element by element."""
        if not isinstance(node.op, Elementwise):
            return -1
        for i in inputs:
            if self.base[i] in ends and self.types[i] == node.types[0] and self._is_whole(i):
                # memory that is also seen through another layout must stay as it is while it is read
                shared = [j for j in inputs if self.base[j] == self.base[i]]
                if all(self.types[j] == self.types[i] and self._is_whole(j) for j in shared):
                    return i
        return -1
