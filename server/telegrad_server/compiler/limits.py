"""The gate of cost: what a graph needs is known from its types, so too much is refused before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.errors import TooExpensive
from telegrad.ir.graph import Graph, Input
from telegrad.ir.op import Cost, identity
from telegrad.ir.value import Node, Origin


@dataclass(frozen=True, slots=True)
class Limits:
    """What one function may cost."""

    tensor_bytes: int = 64 << 30
    """The largest result of any node that takes memory; a view takes none."""

    flops: int = 10**16
    """Operations of the whole function."""

    moved_bytes: int = 10**16
    """Bytes that the ops of the whole function read and write."""


def check_cost(graph: Graph, limits: Limits) -> int:
    """The operations that the graph takes; TooExpensive, naming op, node and number, beyond the limits."""
    flops = moved = 0
    known: dict[tuple[object, ...], Cost] = {}
    for node in graph.nodes:
        if isinstance(node.op, Input):
            continue
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
            flops += cost.flops
            moved += cost.nbytes
        if flops > limits.flops or moved > limits.moved_bytes:
            error = TooExpensive(
                f"the function takes more than {limits.flops:.0e} operations or moves more than "
                f"{limits.moved_bytes:.0e} bytes; {node.op.name} is one too many",
                flops=flops,
                bytes=moved,
            )
            raise _located(error, node)
    for value in graph.outputs:  # a view that leaves is copied out
        if value.type.nbytes > limits.tensor_bytes:
            raise _too_large(
                value.node, f"makes a {value.type} of {value.type.nbytes} bytes", value.type.nbytes, limits
            )
    return flops


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
