"""The gate of cost: what a graph needs is known from its types, so too much is refused before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.errors import TooExpensive
from telegrad.ir.graph import Graph, Input
from telegrad.ir.op import Cost, identity
from telegrad.ir.value import Node, Origin
from telegrad.ops.loops import Loop, Scan, Switch, While


@dataclass(frozen=True, slots=True)
class Limits:
    """What one function may cost."""

    tensor_bytes: int = 64 << 30
    """The largest result of any node that takes memory; a view takes none."""

    flops: int = 10**16
    """Operations of the whole function."""

    moved_bytes: int = 10**16
    """Bytes that the ops of the whole function read and write."""

    rules: int = 3_000_000
    """How often a rule of an op is asked for the gradients of the whole function."""

    calls: int = 10**11
    """How often the whole function carries out an op, counted in every trip of its loops."""


@dataclass(slots=True)
class _Sum:
    """What a graph costs so far."""

    flops: int = 0
    moved: int = 0
    calls: int = 0

    def add(self, other: _Sum, times: int = 1) -> None:
        self.flops += times * other.flops
        self.moved += times * other.moved
        self.calls += times * other.calls


def check_cost(graph: Graph, limits: Limits) -> int:
    """The operations that the graph takes; TooExpensive, naming op, node and number, beyond the limits."""
    return _checked(graph, limits).flops


def _checked(graph: Graph, limits: Limits) -> _Sum:
    total = _Sum()
    known: dict[tuple[object, ...], Cost] = {}
    for node in graph.nodes:
        if isinstance(node.op, Input):
            continue
        total.calls += 1
        if isinstance(node.op, Loop):
            total.add(_trips(node, limits))
        if not node.op.is_view:
            for type in node.types:
                if type.nbytes > limits.tensor_bytes:
                    raise _too_large(node, f"makes a {type} of {type.nbytes} bytes", type.nbytes, limits)
            key = (identity(node.op), *[v.type for v in node.inputs])
            cost = known.get(key)
            if cost is None:
                cost = known[key] = node.op.cost(*key[1:])
                working = node.op.working_bytes(*key[1:])
                if working > limits.tensor_bytes:
                    raise _too_large(node, f"needs {working} bytes to work in", working, limits)
            total.flops += cost.flops
            total.moved += cost.nbytes
        if total.flops > limits.flops or total.moved > limits.moved_bytes or total.calls > limits.calls:
            error = TooExpensive(
                f"the function takes more than {limits.flops:.0e} operations in {limits.calls:.0e} calls or moves more "
                f"than {limits.moved_bytes:.0e} bytes; {node.op.name} is one too many",
                flops=total.flops,
                bytes=total.moved,
                calls=total.calls,
            )
            raise _located(error, node)
    for value in graph.outputs:  # a view that leaves is copied out
        if value.type.nbytes > limits.tensor_bytes:
            raise _too_large(
                value.node, f"makes a {value.type} of {value.type.nbytes} bytes", value.type.nbytes, limits
            )
    return total


def _trips(node: Node, limits: Limits) -> _Sum:
    """What all trips of a loop cost: of a branch the dearest counts, of a while all that it may take."""
    inner = [_checked(region, limits) for region in node.regions]
    total = _Sum()
    match node.op:
        case Scan(length):
            total.add(inner[0], length)
        case While(max_trips):
            for each in inner:
                total.add(each, max_trips)
        case Switch():
            dearest = [max(c.flops for c in inner), max(c.moved for c in inner), max(c.calls for c in inner)]
            total.add(_Sum(*dearest))
        case _:
            pass
    if isinstance(node.op, Scan | While):
        total.calls += node.op.length if isinstance(node.op, Scan) else node.op.max_trips
    return total


def _too_large(node: Node, what: str, nbytes: int, limits: Limits) -> TooExpensive:
    error = TooExpensive(
        f"{node.op.name} {what}; one value may have {limits.tensor_bytes}",
        reason="OP_OUTPUT_LIMIT",
        bytes=nbytes,
        limit=limits.tensor_bytes,
    )
    return _located(error, node)


def _located(error: TooExpensive, node: Node) -> TooExpensive:
    error.details["op"] = node.op.name
    if isinstance(node.origin, Origin):
        error.details |= {"node": node.origin.node, "is_backward": node.origin.is_backward}
    return error
