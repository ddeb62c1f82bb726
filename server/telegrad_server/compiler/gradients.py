"""Gradients: every `Gradient` node becomes the backward graph. Then regions are inlined, and fences for them erased."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.autodiff import expand_gradients
from telegrad.ir.graph import Graph
from telegrad.ir.value import Node, Value, origin
from telegrad.ops.control import Alias, Checkpoint, CustomVjp, StopGradient
from telegrad_server.compiler.rebuild import ordered, rewritten


def gradients(graph: Graph) -> Graph:
    """Replace what is to be differentiated by its derivative."""
    return ordered(graph.inputs, expand_gradients(graph.outputs, stop=[v.node for v in graph.inputs]))


def inline(graph: Graph) -> Graph:
    """Replace region ops by their regions, inner ones too, and drop what only told gradients where to stop."""
    while any(node.regions for node in graph.nodes):
        graph = rewritten(graph, _lower)
    return rewritten(graph, _erase)


def _lower(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    if isinstance(node.op, Checkpoint | CustomVjp):
        with origin(node.origin):
            return node.op.lower(inputs, node.regions)
    return None


def _erase(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    return inputs if isinstance(node.op, Alias | StopGradient) else None
