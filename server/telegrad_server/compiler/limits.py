"""The gate of cost: what a graph needs is known from its types, so too much is refused before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.errors import TooExpensive
from telegrad.ir.graph import Graph, Input
from telegrad.ir.value import Node, Origin
from telegrad.ops.index import Slice
from telegrad.ops.shape import BroadcastTo


@dataclass(frozen=True)
class Limits:
    """What one function may cost."""

    tensor_bytes: int = 64 << 30
    flops: int = 10**16


def check_cost(graph: Graph, limits: Limits) -> None:
    """Raise TooExpensive, naming op and node, for a result or a computation beyond the limits."""
    flops = 0
    for node in graph.nodes:
        if isinstance(node.op, Input):
            continue
        for type in node.types:
            # a broadcast or a slice allocates nothing by itself; whoever uses it is checked
            if type.nbytes > limits.tensor_bytes and not isinstance(node.op, BroadcastTo | Slice):
                raise TooExpensive(
                    f"{node.op.name} makes a {type} of {type.nbytes} bytes; one result may have {limits.tensor_bytes}",
                    reason="OP_OUTPUT_LIMIT",
                    **_details(node),
                )
        flops += node.op.cost(*(v.type for v in node.inputs)).flops
        if flops > limits.flops:
            raise TooExpensive(
                f"the function needs more than {limits.flops:.0e} operations, {node.op.name} being the one too many",
                reason="OP_COST_LIMIT",
                **_details(node),
            )
    for value in graph.outputs:
        if value.type.nbytes > limits.tensor_bytes:
            raise TooExpensive(
                f"a result {value.type} has {value.type.nbytes} bytes; one may have {limits.tensor_bytes}",
                reason="OP_OUTPUT_LIMIT",
            )


def _details(node: Node) -> dict[str, object]:
    where = node.origin
    found: dict[str, object] = {"op": node.op.name}
    if isinstance(where, Origin):
        found |= {"node": where.node, "is_backward": where.is_backward}
    return found
