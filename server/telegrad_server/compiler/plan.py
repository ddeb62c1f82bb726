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
from typing import NamedTuple

from telegrad.ir.graph import Function, Graph, Input
from telegrad.ir.op import Op
from telegrad.ir.text import op_text
from telegrad.ir.types import Type
from telegrad.ir.value import Node, Origin, Value
from telegrad.ops.elementwise import Cast, Elementwise
from telegrad.ops.loops import Scan

from telegrad_server.compiler.arena import Arena, aligned
from telegrad_server.compiler.collective import Finish, Start, StartAllReduce
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.layout import Strides, contiguous_strides, is_contiguous, view_strides
from telegrad_server.compiler.schedule import Demand, schedule
from telegrad_server.compiler.trips import Trip, trip_of

CONSTANT_BYTES = 64 * 1024
"""Values without operands up to this size are made once, when a plan is loaded."""


class Place(Enum):
    """Where a slot's elements live."""

    INPUT = "input"
    CONSTANT = "constant"
    ARENA = "arena"
    RESULT = "result"
    VIEW = "view"


class Slot(NamedTuple):
    """A value's place.

    ``offset`` is in bytes from the arena's start (ARENA); ``base`` is the slot whose memory a view shares, and
    ``strides`` its strides in elements, None if they are not known before it runs (VIEW).
    """

    type: Type
    place: Place
    offset: int = -1
    base: int = -1
    strides: Strides | None = None


class Step(NamedTuple):
    """One op on slots. ``over`` is the operand slot whose memory the first result takes, -1 for none; ``frees`` are the
    arena slots that nobody reads after it. Steps without operands whose slot is a CONSTANT, and views of these,
    run once, when the plan is loaded. ``plans`` are those of the regions of a loop.
    """

    op: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    frees: tuple[int, ...]
    over: int
    origin: Origin | None
    plans: tuple[Plan, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Plan:
    """All that an executor needs to run a function. ``peak_bytes`` is arena, results, constants and what
    its neediest op works in."""

    slots: tuple[Slot, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    updates: tuple[tuple[int, int], ...]
    arena_bytes: int
    peak_bytes: int
    flops: int
    uses_library: bool
    """Whether steps that have a kernel in the executor's library are done by it."""

    trip: Trip | None = None
    """Of the body of a scan whose steps have kernels: what is the same in all trips, and whether they can be cut."""

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
            for plan in step.plans:
                yield from (f"    {line}" for line in plan._lines())
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


def make_plan(function: Function, *, flops: int = 0, uses_library: bool = False, trip: Trip | None = None) -> Plan:
    """The plan of a function whose graph has gone through all passes and takes ``flops`` operations. With ``trip`` it
    is that of a scan's body."""
    return _Planner(function.graph, trip).plan(function.updates, flops, uses_library)


class _Planner:
    """Numbers the values of a graph as slots and finds, for each, whose memory it lives in."""

    def __init__(self, graph: Graph, trip: Trip | None) -> None:
        self.trip = trip
        self.body: list[Node] = []
        self.reads: list[tuple[int, ...]] = []  # for each node of the body the slots of its operands
        self.makes: list[tuple[int, ...]] = []  # and of its results
        self.types: list[Type] = []
        self.maker: list[int] = []  # for each slot the number of its node in the body, -1 for an input
        self.base: list[int] = []  # the slot whose memory it shares, itself if none
        self.strides: list[Strides | None] = []
        self.place: list[Place] = []  # of the base; ARENA where it is scratch
        self._first: dict[int, int] = {}  # node -> the slot of its first output
        for node in graph.nodes:
            self._number(node)
        self.inputs = tuple([self._slot(value) for value in graph.inputs])
        leaving = {value: self._leaving(value) for value in dict.fromkeys(graph.outputs)}
        self.outputs = tuple([leaving[value] for value in graph.outputs])
        for i in self.outputs:
            if self.place[i] is Place.ARENA:
                self.place[self.base[i]] = Place.RESULT
        self.is_scratch = [b == i and self.place[i] is Place.ARENA for i, b in enumerate(self.base)]
        self.blocks = [self._blocks(reads) for reads in self.reads]

    def _slot(self, value: Value) -> int:
        return self._first[id(value.node)] + value.index

    def _number(self, node: Node) -> int:
        """Give the node's outputs slots; the first of them."""
        first = self._first[id(node)] = len(self.types)
        op, maker, reads = node.op, -1, ()
        if not isinstance(op, Input):
            maker = len(self.body)
            reads = tuple([self._first[id(v.node)] + v.index for v in node.inputs])
            self.body.append(node)
            self.reads.append(reads)
            self.makes.append((first,) if len(node.types) == 1 else tuple(range(first, first + len(node.types))))
        for index, type in enumerate(node.types):
            base, strides, place = first + index, contiguous_strides(type.shape), Place.ARENA
            if maker < 0:
                place = Place.INPUT
            elif op.is_view and index < len(reads):
                x = reads[index]
                found = view_strides(op, self.types[x], self.strides[x], type)
                if found != "copy":
                    base, strides, place = self.base[x], found, self.place[self.base[x]]
            elif not reads and op.is_pure and not node.regions and type.nbytes <= CONSTANT_BYTES:
                place = Place.CONSTANT
            self.types.append(type)
            self.maker.append(maker)
            self.base.append(base)
            self.strides.append(strides)
            self.place.append(place)
        return first

    def _leaving(self, value: Value) -> int:
        """The slot that leaves the run for this output: its own, or that of a copy."""
        i = self._slot(value)
        if self._is_whole(i):
            return i
        return self._number(Node(Cast(value.dtype), (value,), (value.type,), (), value.node.origin))

    def _is_whole(self, i: int) -> bool:
        """Whether the slot is its base's memory in C order, under whatever shape."""
        type, base = self.types[i], self.base[i]
        return base == i or (type.size == self.types[base].size and is_contiguous(type.shape, self.strides[i]))

    def _blocks(self, reads: tuple[int, ...]) -> tuple[int, ...]:
        """The scratch memory behind the slots."""
        found = [b for b in [self.base[i] for i in reads] if self.is_scratch[b]]
        return tuple(found) if len(found) < 2 else tuple(dict.fromkeys(found))

    def plan(self, updates: tuple[tuple[int, int], ...], flops: int, uses_library: bool) -> Plan:
        order = self._order()
        types = self.types
        arena = Arena(is_by_size=self.trip is not None and self.trip.rows > 0)
        slots: list[Slot | None] = [None] * len(types)
        offsets: dict[int, int] = {}
        steps: list[Step] = []
        for i in self.inputs:
            slots[i] = Slot(types[i], Place.INPUT)
        for k, ending in zip(order, self._ends(order), strict=True):
            node, reads, makes = self.body[k], self.reads[k], self.makes[k]
            over = self._overwritten(k, ending) if ending and self.is_scratch[makes[0]] else -1
            for i in makes:
                if self.is_scratch[i]:
                    is_over = over >= 0 and i == makes[0]
                    offset = offsets[i] = offsets[self.base[over]] if is_over else arena.take(types[i].nbytes)
                    slots[i] = Slot(types[i], Place.ARENA, offset)
                elif self.base[i] != i:
                    slots[i] = Slot(types[i], Place.VIEW, -1, self.base[i], self.strides[i])
                else:
                    slots[i] = Slot(types[i], self.place[i])
            frees = tuple(ending if over < 0 else [i for i in ending if i != self.base[over]])
            for i in frees:
                arena.give(offsets[i], types[i].nbytes)
            plans = tuple([_region_plan(node.op, region, uses_library) for region in node.regions])
            steps.append(Step(node.op, reads, makes, frees, over, _origin(node), plans))
        kept = [i for i, place in enumerate(self.place) if place in _KEPT and self.base[i] == i]
        working = max([_working_bytes(step, types) for step in steps], default=0)
        return Plan(
            slots=tuple([slot for slot in slots if slot is not None]),
            steps=tuple(steps),
            inputs=self.inputs,
            outputs=self.outputs,
            updates=updates,
            arena_bytes=arena.top,
            peak_bytes=arena.top + sum([types[i].nbytes for i in kept]) + working,
            flops=flops,
            uses_library=uses_library,
            trip=self.trip,
        )

    def _order(self) -> list[int]:
        sizes = [aligned(type.nbytes) for type in self.types]
        demands: list[Demand] = []
        started: list[int] = []
        for node, reads, makes, blocks in zip(self.body, self.reads, self.makes, self.blocks, strict=True):
            after = [m for m in [self.maker[i] for i in reads] if m >= 0]
            haste = ""
            if isinstance(node.op, Start):  # every worker starts them in one order
                after, haste = [*after, *started], "early"
                started = [len(demands)]
            elif isinstance(node.op, Finish):
                haste = "late"
            unique = after if len(after) < 2 else dict.fromkeys(after)
            scratch = sum([sizes[i] for i in makes if self.is_scratch[i]])
            demands.append(Demand(tuple(unique), blocks, scratch, isinstance(node.op, Elementwise | Fused), haste))
        return schedule(demands, sizes)

    def _ends(self, order: Sequence[int]) -> list[list[int]]:
        """For each step the scratch slots that nobody reads after it."""
        last: dict[int, int] = {}
        for step, k in enumerate(order):
            for block in self.blocks[k]:
                last[block] = step
            for i in self.makes[k]:
                if self.is_scratch[i]:
                    last[i] = step
        ends: list[list[int]] = [[] for _ in order]
        for i, step in last.items():
            ends[step].append(i)
        return ends

    def _overwritten(self, k: int, ending: Sequence[int]) -> int:
        """The operand that the result may overwrite: it ends here and has the result's type, element by element."""
        node, reads = self.body[k], self.reads[k]
        if isinstance(node.op, StartAllReduce) and len(reads) == 1:  # the bucket is where its only value is
            (i,) = reads
            return i if self.base[i] in ending and self._is_whole(i) else -1
        if not isinstance(node.op, Elementwise | Fused):
            return -1
        may = reads if isinstance(node.op, Elementwise) else tuple([reads[position] for position in node.op.over])
        for i in may:
            if self.base[i] in ending and self.types[i] == node.types[0] and self._is_whole(i):
                # memory that is also seen through another layout must stay as it is while it is read
                shared = [j for j in reads if self.base[j] == self.base[i]]
                if all(j in may and self.types[j] == self.types[i] and self._is_whole(j) for j in shared):
                    return i
        return -1


def _region_plan(op: Op, region: Graph, uses_library: bool) -> Plan:
    trip = trip_of(op, region) if uses_library and isinstance(op, Scan) else None
    return make_plan(Function(region), uses_library=uses_library, trip=trip)


_KEPT = (Place.RESULT, Place.CONSTANT)


def _working_bytes(step: Step, types: Sequence[Type]) -> int:
    inner = sum([plan.peak_bytes for plan in step.plans])  # each has an arena of its own
    return step.op.working_bytes(*[types[i] for i in step.inputs]) + inner


def _origin(node: Node) -> Origin | None:
    return node.origin if isinstance(node.origin, Origin) else None
