"""Cutting a graph into the parts that workers run, and the order in which each runs its own.

A part is what one worker computes at a stretch: the nodes of one micro-batch (or of none) that are equally many moves
away from the beginning. Marks are gone then; what crosses from part to part has a number. A view does not cross, it is
made again where it is used, so that every op meets the layout that it would meet on one worker: its bits are the same.

The order is that of a simulation in which each part takes one beat: a worker begins no more micro-batches than there
are stages behind it and its own, and then ends one before it begins another (1F1B). Every worker's order is a part of
one order for all, so none can wait for another in a circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from telegrad.ir.graph import Function, Graph, Input, new_input
from telegrad.ir.types import Type
from telegrad.ir.value import Node, Origin, Value
from telegrad.ops.parts import MARKS, MicroBatch

from telegrad_server.compiler.places import HOME, Place, place_of_input, places_of


class Key(NamedTuple):
    """Which part a node belongs to."""

    worker: int
    batch: int
    level: int


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A function that one worker runs. ``inputs`` and ``outputs`` are numbers of values."""

    key: Key
    function: Function
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Cut:
    """A function in parts, in an order in which they can be run. Values are numbered, the function's inputs first.

    ``outputs`` are the function's results: for each the number of its value and the worker on which it shall be.
    ``makers`` says where each value is before it moves: None for an input that the call brings along.
    """

    parts: tuple[Part, ...]
    types: tuple[Type, ...]
    makers: tuple[int | None, ...]
    outputs: tuple[tuple[int, int], ...]
    updates: tuple[tuple[int, int], ...]

    @property
    def workers(self) -> set[int]:
        """All workers that have something to do, or to give."""
        used = [self.makers[i] for part in self.parts for i in part.inputs]
        given = [self.makers[i] for i, worker in self.outputs if self.makers[i] != worker]
        found = [part.key.worker for part in self.parts] + [worker for _, worker in self.outputs]
        return {w for w in (*used, *given, *found) if w is not None}


def cut(function: Function, places: Sequence[int | None]) -> Cut:
    """The parts of a function whose graph has gone through all passes; ``places`` are where its inputs live."""
    return _Cutter(function, places).result()


class _Value(NamedTuple):
    """What a value comes to without marks: the value that they mark, and where it is wanted."""

    source: Value
    place: Place
    batch: int


class _Builder:
    """A part while it is written."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.local: dict[Value, Value] = {}
        self.inputs: dict[int, Value] = {}
        self.exports: dict[int, Value] = {}
        self.nodes: list[Node] = []
        self.after: set[Key] = set()

    def add(self, node: Node, inputs: tuple[Value, ...]) -> None:
        made = Node(node.op, inputs, node.types, node.regions, node.origin)
        self.nodes.append(made)
        self.local.update(zip(node.outputs, made.outputs, strict=True))

    def part(self) -> Part:
        inputs = tuple(self.inputs.values())
        graph = Graph(inputs, tuple(self.exports.values()), (*[v.node for v in inputs], *self.nodes))
        return Part(self.key, Function(graph), tuple(self.inputs), tuple(self.exports))


class _Cutter:
    def __init__(self, function: Function, places: Sequence[int | None]) -> None:
        self.graph, self.updates = function.graph, function.updates
        self.values: dict[Value, _Value] = {}
        self.level: dict[int, int] = {}
        self.key: dict[int, Key] = {}  # of nodes that have a place
        self.input_number = {v: i for i, v in enumerate(self.graph.inputs)}
        for v, worker in zip(self.graph.inputs, places, strict=True):
            self.values[v] = _Value(v, place_of_input(worker), -1)
        for node in self.graph.body:
            self._settle(node)
        self.outputs = self._outputs(places)
        self._sink()
        self.needs = self._needs()
        self.builders: dict[Key, _Builder] = {}
        self.numbers: dict[tuple[Value, int], int] = {}
        self.types: list[Type] = [v.type for v in self.graph.inputs]
        self.makers: list[int | None] = list(places)

    # ---- where and when

    def _settle(self, node: Node) -> None:
        given = [self.values[v] for v in node.inputs]
        results = places_of(node, [x.place for x in given])
        batch = max([x.batch for x in given], default=-1)
        if isinstance(node.op, MARKS):
            if isinstance(node.op, MicroBatch):
                batch = max(batch, node.op.number)
            else:
                batch = given[0].batch
            self.values[Value(node)] = _Value(given[0].source, results[0], batch)
            return
        worker = results[0].worker if results else None
        if worker is not None:
            level = max([self._level_at(x.source, worker) for x in given], default=0)
            self.key[id(node)] = Key(worker, batch, level)
        for v, place in zip(node.outputs, results, strict=True):
            self.values[v] = _Value(v, place, batch)

    def _level_at(self, source: Value, worker: int) -> int:
        """From which level on a worker can have the value."""
        made = self.key.get(id(source.node))
        return 0 if made is None else made.level + (made.worker != worker)

    def _outputs(self, places: Sequence[int | None]) -> list[tuple[Value, int]]:
        targets = {j: places[i] for i, j in self.updates}
        found: list[tuple[Value, int]] = []
        for j, v in enumerate(self.graph.outputs):
            known = self.values[v]
            worker = targets.get(j, known.place.worker)
            found.append((known.source, HOME if worker is None else worker))
        return found

    def _sink(self) -> None:
        """Let what a gradient is computed from wait for the gradient: else the forward would make it, and keep it."""
        leaving = {source.node for source, _ in self.outputs}
        users: dict[int, list[Key | None]] = {}
        for node in reversed(self.graph.nodes):
            key = self.key.get(id(node))
            if key is None:
                continue
            found = users.get(id(node), [])
            if _is_backward(node) and found and node not in leaving and None not in found:
                first = min([k for k in found if k is not None], key=lambda k: (k.batch, k.level))
                if first.batch == key.batch:  # else it is added to another's: what it is made of would wait, too
                    key = self.key[id(node)] = first
            for v in node.inputs:
                source = self.values[v].source.node
                made = self.key.get(id(source))
                if made is not None:
                    users.setdefault(id(source), []).append(key if made.worker == key.worker else None)

    def _needs(self) -> dict[int, dict[int, Key]]:
        """For each node without a place, and each worker that needs it, the first part that does."""
        needs: dict[int, dict[int, Key]] = {}

        def need(source: Value, key: Key) -> None:
            node = source.node
            if id(node) not in self.key and not isinstance(node.op, Input):
                known = needs.setdefault(id(node), {})
                first = known.get(key.worker, key)
                known[key.worker] = min(first, key, key=lambda k: (k.batch, k.level))

        for source, worker in self.outputs:
            need(source, Key(worker, -1, 0))
        for node in reversed(self.graph.nodes):
            key = self.key.get(id(node))
            for each in [key] if key else needs.get(id(node), {}).values():
                for v in node.inputs:
                    need(self.values[v].source, each)
        return needs

    # ---- writing the parts

    def result(self) -> Cut:
        groups: dict[Key, list[Node]] = {}
        for node in self.graph.body:
            if isinstance(node.op, MARKS):
                continue
            key = self.key.get(id(node))
            if key is not None:
                groups.setdefault(key, []).append(node)
            elif not _is_cheap(node):
                for first in self.needs.get(id(node), {}).values():
                    groups.setdefault(first, []).append(node)
        for source, worker in self.outputs:
            if self._is_everywhere(source.node):
                groups.setdefault(Key(worker, -1, 0), [])
        for key in sorted(groups, key=lambda k: (k.batch, k.level, k.worker)):
            builder = self.builders[key] = _Builder(key)
            for node in groups[key]:
                if Value(node) not in builder.local:
                    builder.add(node, tuple([self._in(builder, self.values[v].source) for v in node.inputs]))
        outputs = tuple([(self._result(source, worker), worker) for source, worker in self.outputs])
        order = one_forward_one_backward({key: builder.after for key, builder in self.builders.items()})
        parts = tuple([self.builders[key].part() for key in order if self.builders[key].exports])
        return Cut(parts, tuple(self.types), tuple(self.makers), outputs, self.updates)

    def _in(self, builder: _Builder, source: Value) -> Value:
        """The value inside of a part: made there, made again, or coming in."""
        wanted, again = source, list[Node]()
        while source not in builder.local:
            node = source.node
            if not self._is_made_again(node, builder.key.worker):
                builder.local[source] = self._coming(builder, source)
            else:
                again.append(node)
                if not node.inputs:
                    break
                source = self.values[node.inputs[0]].source
        for node in reversed(again):
            builder.add(node, tuple([builder.local[self.values[v].source] for v in node.inputs]))
        return builder.local[wanted]

    def _is_everywhere(self, node: Node) -> bool:
        return not isinstance(node.op, Input) and id(node) not in self.key and _is_cheap(node)

    def _is_made_again(self, node: Node, worker: int) -> bool:
        if isinstance(node.op, Input):
            return False
        if self._is_everywhere(node):
            return True
        if not _is_view(node):
            return False
        base = self.values[node.inputs[0]].source
        made = self.key.get(id(base.node))
        where = self.values[base].place.worker if made is None else made.worker
        return where == worker or base.type.nbytes <= node.types[0].nbytes

    def _coming(self, builder: _Builder, source: Value) -> Value:
        maker, number = self._number(source, builder.key.worker)
        if maker is not None:
            builder.after.add(maker)
        given = builder.inputs.get(number)
        if given is None:
            given = builder.inputs[number] = new_input(source.type)
        return given

    def _number(self, source: Value, worker: int) -> tuple[Key | None, int]:
        """The number of a value that leaves the part in which it is made, for use on a worker."""
        found = self.input_number.get(source)
        if found is not None:
            return None, found
        maker = self.key.get(id(source.node)) or self.needs[id(source.node)][worker]
        return maker, self._exported(self.builders[maker], source)

    def _exported(self, builder: _Builder, source: Value) -> int:
        at = (source, builder.key.worker)
        number = self.numbers.get(at)
        if number is None:
            number = self.numbers[at] = len(self.types)
            self.types.append(source.type)
            self.makers.append(builder.key.worker)
            builder.exports[number] = builder.local[source]
        return number

    def _result(self, source: Value, worker: int) -> int:
        """The number of a result."""
        if not self._is_everywhere(source.node):
            return self._number(source, worker)[1]
        builder = self.builders[Key(worker, -1, 0)]
        self._in(builder, source)
        return self._exported(builder, source)


def _is_backward(node: Node) -> bool:
    return isinstance(node.origin, Origin) and node.origin.is_backward


def _is_view(node: Node) -> bool:
    return node.op.is_view and len(node.inputs) == 1 and not node.regions


def _is_cheap(node: Node) -> bool:
    """Whether a node without a place is rather made again than kept."""
    return not node.inputs or _is_view(node)


# ---- the order


def one_forward_one_backward(parts: dict[Key, set[Key]]) -> list[Key]:
    """The parts, given which others each must wait for, in the order in which they are run."""
    batches: dict[tuple[int, int], list[Key]] = {}
    for key in sorted(parts):
        if key.batch >= 0:
            batches.setdefault((key.worker, key.batch), []).append(key)
    starts: dict[int, int] = {}
    for (worker, _), keys in batches.items():
        starts[worker] = min(starts.get(worker, keys[0].level), keys[0].level)
    limits = {w: 1 + len({s for s in starts.values() if s > level}) for w, level in starts.items()}
    to_start = {w: sorted(b for v, b in batches if v == w) for w in starts}
    left = {at: len(keys) for at, keys in batches.items()}
    in_flight = dict.fromkeys(starts, 0)
    waiting = {key: len(after) for key, after in parts.items()}
    users: dict[Key, list[Key]] = {}
    for key, after in parts.items():
        for other in after:
            users.setdefault(other, []).append(key)
    ready: dict[int, set[Key]] = {key.worker: set() for key in parts}
    for key, count in waiting.items():
        if not count:
            ready[key.worker].add(key)
    order: list[Key] = []

    def is_start(key: Key) -> bool:
        return key.batch >= 0 and batches[key.worker, key.batch][0] == key

    def may_run(key: Key) -> bool:
        worker = key.worker
        return not is_start(key) or (to_start[worker][0] == key.batch and in_flight[worker] < limits[worker])

    def run(key: Key) -> None:
        ready[key.worker].discard(key)
        order.append(key)
        if key.batch >= 0:
            at = (key.worker, key.batch)
            if is_start(key):
                to_start[key.worker].remove(key.batch)
                in_flight[key.worker] += 1
            left[at] -= 1
            in_flight[key.worker] -= not left[at]

    while len(order) < len(parts):
        chosen: list[Key] = []
        for worker in sorted(ready):
            able = [key for key in ready[worker] if may_run(key)]
            if able:
                chosen.append(min(able, key=lambda k: (not is_start(k), k.batch, k.level)))
        if not chosen:  # no micro-batch can begin where it should: then whichever comes first
            chosen = [min([key for keys in ready.values() for key in keys], key=lambda k: (k.batch, k.level, k.worker))]
        for key in chosen:
            run(key)
        for key in chosen:
            for user in users.get(key, ()):
                waiting[user] -= 1
                if not waiting[user]:
                    ready[user.worker].add(user)
    return order
