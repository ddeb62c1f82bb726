"""Gradients: every `Gradient` node becomes the backward graph."""

from __future__ import annotations

from telegrad.autodiff import expand_gradients
from telegrad.ir.graph import Graph

from telegrad_server.compiler.rebuild import ordered


def gradients(graph: Graph) -> Graph:
    """Replace what is to be differentiated by its derivative, innermost first; in regions, too."""
    return ordered(graph.inputs, expand_gradients(graph.outputs, stop=[v.node for v in graph.inputs]))
