"""Loops: those over one body are joined, and what nobody needs of a loop is neither carried nor stacked. Exact.

The rule of a scan makes its forward again with more results (`telegrad.ops.loops`). Both are over the same region
inputs, on the same operands, with the same carries: one loop gives the results of both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace

from telegrad.ir.graph import Graph
from telegrad.ir.op import result_types
from telegrad.ir.value import Node, Value
from telegrad.ops.loops import Loop, Scan, Switch, While

from telegrad_server.compiler.rebuild import rewritten, without_dead_code


def in_regions(graph: Graph, run: Callable[[Graph], Graph]) -> Graph:
    """The graph with ``run`` applied to the regions of its loops, to the outer ones first."""

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if not isinstance(node.op, Loop):
            return None
        regions = tuple([in_regions(run(region), run) for region in node.regions])
        return Node(node.op, inputs, node.types, regions, node.origin).outputs

    return rewritten(graph, rule) if _has_loops(graph) else graph


def _has_loops(graph: Graph) -> bool:
    return any(isinstance(node.op, Loop) for node in graph.nodes)


# ---- joining


def join_loops(graph: Graph) -> Graph:
    """Let scans over one body be one scan with the results of all."""
    groups: dict[Hashable, list[Node]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Scan):
            body = node.regions[0]
            key = (node.op, node.inputs, body.inputs, body.outputs[: node.op.carries])
            groups.setdefault(key, []).append(node)
    group_of = {id(node): tuple(group) for group in groups.values() if len(group) > 1 for node in group}
    if not group_of:
        return graph
    joined: dict[int, dict[Value, Value]] = {}  # the first of a group -> what became of each stacked value

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        group = group_of.get(id(node))
        if group is None:
            return None
        assert isinstance(node.op, Scan)
        carries, first = node.op.carries, group[0]
        if first is node:
            results = dict.fromkeys(v for member in group for v in member.regions[0].outputs[carries:])
            body = first.regions[0]
            region = Graph.of(body.inputs, (*body.outputs[:carries], *results))
            types = result_types(node.op, tuple([v.type for v in inputs]), (region,))
            made = Node(node.op, inputs, types, (region,), node.origin).outputs
            joined[id(first)] = dict(zip(results, made[carries:], strict=True))
            kept[id(first)] = made[:carries]
        stacked = joined[id(first)]
        return (*kept[id(first)], *[stacked[v] for v in node.regions[0].outputs[carries:]])

    kept: dict[int, tuple[Value, ...]] = {}
    return rewritten(graph, rule)


# ---- pruning


def prune_loops(graph: Graph) -> Graph:
    """Drop the carries, results and operands of loops that nobody needs."""
    if not _has_loops(graph):
        return graph
    needed = {(id(v.node), v.index) for v in graph.outputs}
    slim: dict[int, _Slim] = {}
    for node in reversed(graph.nodes):
        wanted = [i for i in range(len(node.types)) if (id(node), i) in needed]
        if not wanted:
            continue
        operands: Sequence[Value] = node.inputs
        if isinstance(node.op, Loop):
            found = slim[id(node)] = _slimmed(node, wanted)
            operands = [node.inputs[i] for i in found.operands]
        needed.update([(id(v.node), v.index) for v in operands])

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        found = slim.get(id(node))
        if found is None or (len(found.results) == len(node.types) and len(found.operands) == len(node.inputs)):
            return None
        operands = tuple([inputs[i] for i in found.operands])
        types = tuple([node.types[i] for i in found.results])
        made = Node(found.op, operands, types, found.regions, node.origin).outputs
        by_result = dict(zip(found.results, made, strict=True))
        return [by_result.get(i, made[0]) for i in range(len(node.types))]  # nobody looks at the others

    return rewritten(graph, rule)


class _Slim:
    """A loop without what nobody needs: its op and regions, and which operands and results are left."""

    def __init__(self, op: Loop, regions: tuple[Graph, ...], operands: list[int], results: list[int]) -> None:
        self.op = op
        self.regions = regions
        self.operands = operands
        self.results = results


def _slimmed(node: Node, wanted: list[int]) -> _Slim:
    """The loop with the ``wanted`` results alone."""
    match node.op:
        case Switch():
            inner = [_pruned(region, wanted) for region in node.regions]
            used = sorted({i for _, reads in inner for i in reads})
            regions = tuple([_with_inputs(region, used) for region, _ in inner])
            return _Slim(node.op, regions, [0, *(1 + i for i in used)], wanted)
        case Scan(_, carries, xs):
            body = node.regions[0]
            live = set(wanted)
            while True:  # a carry is needed if its end is, or if a trip reads it for something needed
                more = {i - 1 for i in _reads(body, live) if 0 < i <= carries} - live
                if not more:
                    break
                live |= more
            results = sorted(live)
            region, reads = _pruned(body, results)
            kept = [i for i in range(carries) if i in live]
            used = kept + [i - 1 for i in reads if i > carries]
            op = replace(node.op, carries=len(kept), xs=sum(carries <= i < carries + xs for i in used))
            return _Slim(op, (_with_inputs(region, [0, *(1 + i for i in used)]),), used, results)
        case While(_, carries):
            test, body = node.regions
            live = set(wanted) | {i - 1 for i in _reads(test, [0]) if 0 < i <= carries}
            while True:
                more = {i - 1 for i in _reads(body, live) if 0 < i <= carries} - live
                if not more:
                    break
                live |= more
            results = sorted(live)
            region, reads = _pruned(body, results)
            test, tested = _pruned(test, [0])
            constants = {i - 1 for i in (*reads, *tested) if i > carries}
            used = results + sorted(constants)
            places = [0, *(1 + i for i in used)]
            regions = (_with_inputs(test, places), _with_inputs(region, places))
            return _Slim(replace(node.op, carries=len(results)), regions, used, results)
        case _:
            return _Slim(node.op, node.regions, list(range(len(node.inputs))), list(range(len(node.types))))  # type: ignore[arg-type]


def _pruned(region: Graph, results: Sequence[int]) -> tuple[Graph, list[int]]:
    """The region with some of its results, its own loops pruned, and the numbers of the inputs that it needs then."""
    outputs = tuple([region.outputs[i] for i in results])
    graph = prune_loops(without_dead_code(Graph(region.inputs, outputs, region.nodes)))
    return graph, _reads(graph, range(len(outputs)))


def _reads(region: Graph, results: Iterable[int]) -> list[int]:
    """The numbers of the inputs that some results need."""
    needed = {id(region.outputs[i].node) for i in results}
    for node in reversed(region.nodes):
        if id(node) in needed:
            needed.update([id(v.node) for v in node.inputs])
    return [i for i, v in enumerate(region.inputs) if id(v.node) in needed]


def _nodes(values: Sequence[Value]) -> set[Node]:
    return {v.node for v in values}


def _with_inputs(region: Graph, places: Sequence[int]) -> Graph:
    """The region with the inputs at these places; it needs no other."""
    inputs = tuple([region.inputs[i] for i in places])
    dropped = _nodes(region.inputs) - _nodes(inputs)
    known = [v.node for v in inputs]
    return Graph(
        inputs, region.outputs, (*known, *(n for n in region.nodes if n not in dropped and n not in set(known)))
    )
