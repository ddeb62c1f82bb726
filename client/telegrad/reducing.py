"""Where the gradients of a data-parallel function are reduced: a graph of one replica to one with the reductions in it.

A gradient with respect to a value that is the same on all replicas is reduced over them, and nothing else is. Then each
reduction moves as near to its use as it can, since it is linear: through sums, so that gradients which are added up
are reduced once, and out of scans that add them up or stack them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from telegrad.ir.graph import Graph, rewrite
from telegrad.ir.value import Node, Value, apply
from telegrad.ops.control import Gradient, StopGradient, zeros_like
from telegrad.ops.elementwise import Add, Constant
from telegrad.ops.loops import Scan
from telegrad.ops.replicas import AllReduce, has_any, region_flags, varying
from telegrad.ops.shape import BroadcastTo


def with_reductions(graph: Graph, flags: Sequence[bool], objective: str) -> Graph:
    """The graph with its gradients reduced; ``flags`` says which inputs vary. Nodes keep their origins."""
    return _moved(Graph.of(graph.inputs, _reduced(graph, flags, AllReduce(objective, objective))))


def _reduced(graph: Graph, flags: Sequence[bool], op: AllReduce) -> tuple[Value, ...]:
    if not has_any(graph, (Gradient,)):
        return graph.outputs
    varies = varying(graph, flags)

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if isinstance(node.op, Gradient):
            xs = node.inputs[2 * node.op.outputs :]
            made = Node(node.op, inputs, node.types, (), node.origin).outputs
            return [g if x in varies else apply(op, (g,), origin=node.origin)[0] for g, x in zip(made, xs, strict=True)]
        if not node.regions:
            return None
        inside, _ = region_flags(node, [v in varies for v in node.inputs])
        regions = [Graph.of(r.inputs, _reduced(r, f, op)) for r, f in zip(node.regions, inside, strict=True)]
        return Node(node.op, inputs, node.types, tuple(regions), node.origin).outputs

    return rewrite(graph, rule)


# ---- moving reductions towards their uses


def _uses(graph: Graph) -> Counter[Value]:
    return Counter([*graph.outputs, *(v for node in graph.nodes for v in node.inputs)])


def _moved(graph: Graph) -> Graph:
    if not has_any(graph, (AllReduce,)):
        return graph
    mover = _Mover(_uses(graph))
    return Graph.of(graph.inputs, rewrite(graph, mover.rule))


class _Mover:
    """Puts linear nodes below the reductions of their operands, where nothing else uses these."""

    def __init__(self, uses: Counter[Value]) -> None:
        self._uses = uses
        self._parts: dict[Value, tuple[Value | None, AllReduce, Value]] = {}
        """What is known to be a value plus the reduction of another: (the first or None, op, the other)."""

    def rule(self, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        """What becomes of a node."""
        if isinstance(node.op, AllReduce):
            (out,) = apply(node.op, inputs, origin=node.origin)
            self._parts[out] = (None, node.op, inputs[0])
            return (out,)
        if isinstance(node.op, StopGradient):
            return self._stopped(node, inputs[0])
        if isinstance(node.op, Add):
            return self._added(node, inputs)
        if isinstance(node.op, Scan) and has_any(node.regions[0], (AllReduce,)):
            return self._out_of_scan(node, inputs)
        if any(has_any(region, (AllReduce,)) for region in node.regions):
            return Node(node.op, inputs, node.types, tuple(map(_moved, node.regions)), node.origin).outputs
        return None

    def _alone(self, before: Value, now: Value) -> tuple[Value | None, AllReduce, Value] | None:
        """The parts of an operand that nobody else uses."""
        return self._parts.get(now) if self._uses[before] == 1 else None

    def _stopped(self, node: Node, x: Value) -> Sequence[Value] | None:
        found = self._alone(node.inputs[0], x)
        if found is None or found[0] is not None:
            return None
        stopped = apply(node.op, (found[2],), origin=node.origin)[0]
        return (self._made(None, found[1], stopped, node.origin),)

    def _added(self, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if len({v.type for v in inputs}) > 1:
            return None
        first, second = (self._alone(a, b) for a, b in zip(node.inputs, inputs, strict=True))
        if first is not None and second is not None and first[1] == second[1]:
            base = first[0] or second[0]
            if first[0] is not None and second[0] is not None:
                (base,) = apply(node.op, (first[0], second[0]), origin=node.origin)
            total = apply(node.op, (first[2], second[2]), origin=node.origin)[0]
            return (self._made(base, first[1], total, node.origin),)
        for found, other in ((first, inputs[1]), (second, inputs[0])):
            if found is not None and found[0] is None:
                return (self._made(other, found[1], found[2], node.origin),)
        return None

    def _made(self, base: Value | None, op: AllReduce, x: Value, origin: object) -> Value:
        (out,) = apply(op, (x,), origin=origin)
        if base is not None:
            (out,) = apply(Add(), (base, out), origin=origin)
        self._parts[out] = (base, op, x)
        return out

    def _out_of_scan(self, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        """The scan without the reductions that only add up in a carry, or are stacked."""
        op = node.op
        assert isinstance(op, Scan)
        body = _moved(node.regions[0])
        uses = _uses(body)
        outputs, operands = list(body.outputs), list(inputs)
        moved = {
            i: v.node for i, out in enumerate(body.outputs) if (v := _reduction(i, out, body, op, uses)) is not None
        }
        for i, reduce in moved.items():
            raw, out = reduce.inputs[0], body.outputs[i]
            if i < op.carries:
                inner = [raw if v.node is reduce else v for v in out.node.inputs]
                (raw,) = apply(out.node.op, inner, origin=out.node.origin)
                operands[i] = zeros_like(inputs[i])
            outputs[i] = raw
        region = Graph.of(body.inputs, outputs)
        results = list(Node(op, tuple(operands), node.types, (region,), node.origin).outputs)
        for i, reduce in moved.items():
            base = inputs[i] if i < op.carries and not _is_zero(inputs[i]) else None
            assert isinstance(reduce.op, AllReduce)
            results[i] = self._made(base, reduce.op, results[i], node.origin)
        return results


def _reduction(number: int, out: Value, body: Graph, op: Scan, uses: Counter[Value]) -> Value | None:
    """The reduction that a result of a body is, or that it adds to a carry which is used for nothing else."""
    node = out.node
    if number >= op.carries:
        return out if isinstance(node.op, AllReduce) else None
    carry = body.inputs[1 + number]
    if not isinstance(node.op, Add) or uses[out] != 1 or uses[carry] != 1 or carry not in node.inputs:
        return None
    other = node.inputs[1 if node.inputs[0] == carry else 0]
    return other if isinstance(other.node.op, AllReduce) and other.type == carry.type else None


def _is_zero(x: Value) -> bool:
    node = x.node.inputs[0].node if isinstance(x.node.op, BroadcastTo) else x.node
    return isinstance(node.op, Constant) and node.op.value == 0
