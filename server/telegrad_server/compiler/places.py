"""On which worker each value of a graph is computed: it follows from the marks of `telegrad.ops.parts` and from where
the graph's inputs live.

What lives on a worker other than the home stays there: ops that use it run there, on the worker with the highest number
if there are several (and so do ops on views of it). Other ops run on the highest of the workers that their operands are
on; an operand without axes counts only if no other has any. Constants, and inputs that the call brings along, have no
place: they are made wherever they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from telegrad.ir.graph import Graph
from telegrad.ir.value import Node, Value, apply
from telegrad.ops.control import Checkpoint, CustomVjp, Gradient
from telegrad.ops.elementwise import Cast
from telegrad.ops.parts import MicroBatch, MoveBeside, MoveTo

from telegrad_server.compiler.rebuild import rewritten

HOME = 0


class Place(NamedTuple):
    """Where a value is: a worker, or None for anywhere. ``stays``: what uses it goes there."""

    worker: int | None
    stays: bool = False


ANYWHERE = Place(None)


def place_of_input(worker: int | None) -> Place:
    """The place of a graph's input that lives on a worker."""
    return Place(worker, bool(worker))


def places_of(node: Node, operands: Sequence[Place]) -> list[Place]:
    """Where the results of a node are, given where its operands are."""
    match node.op:
        case MoveTo(worker):
            return [Place(worker)]
        case MoveBeside():
            return [Place(operands[0].worker if operands[1].worker is None else operands[1].worker)]
        case MicroBatch():
            return [operands[0]]
        case Gradient(n):
            return [Place(x.worker) for x in operands[2 * n :]]
        case Checkpoint() | CustomVjp():
            return _through(node.regions[0], operands)
        case _:
            worker = _decided(zip([v.type.shape for v in node.inputs], operands, strict=True))
            stays = (node.op.is_view or isinstance(node.op, Cast)) and operands[0].stays
            return [Place(worker, stays)] * len(node.types)


def _decided(operands: Iterable[tuple[tuple[int, ...], Place]]) -> int | None:
    known = [(shape, place) for shape, place in operands if place.worker is not None]
    for chosen in (
        [p.worker for shape, p in known if p.stays and shape],
        [p.worker for shape, p in known if shape],
        [p.worker for _, p in known],
    ):
        if chosen:
            return max(w for w in chosen if w is not None)
    return None


def _through(region: Graph, operands: Sequence[Place]) -> list[Place]:
    found = dict(zip(region.inputs, operands, strict=True))
    for node in region.body:
        found.update(zip(node.outputs, places_of(node, [found[v] for v in node.inputs]), strict=True))
    return [found[v] for v in region.outputs]


def with_moves(graph: Graph, places: Sequence[Place]) -> Graph:
    """The graph with a `MoveTo` wherever an operand is elsewhere: so gradients go back the way that values came.

    ``places`` are those of the inputs. The graph may hold `Gradient` nodes.
    """
    found: dict[Value, Place] = dict(zip(graph.inputs, places, strict=True))
    moved: dict[tuple[Value, int], Value] = {}

    def on(value: Value, worker: int, origin: object) -> Value:
        if found[value].worker in (None, worker):
            return value
        known = moved.get((value, worker))
        if known is None:
            known = moved[value, worker] = apply(MoveTo(worker), (value,), origin=origin)[0]
            found[known] = Place(worker)
        return known

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        operands = [found[v] for v in inputs]
        regions = node.regions
        if isinstance(node.op, Checkpoint):
            regions = (with_moves(regions[0], operands),)
        results = places_of(node, operands)
        worker = results[0].worker if results else None
        if worker is not None and not isinstance(
            node.op, MoveTo | MoveBeside | MicroBatch | Gradient | Checkpoint | CustomVjp
        ):
            inputs = tuple([on(v, worker, node.origin) for v in inputs])
        made = Node(node.op, inputs, node.types, regions, node.origin).outputs
        found.update(zip(made, results, strict=True))
        return made

    return rewritten(graph, rule)
