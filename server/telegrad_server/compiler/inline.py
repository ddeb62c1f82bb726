"""Inlining: ops that own regions become their regions, and joint rules their parts, once no gradient needs them.

Identities that only told autodiff where to stop (`StopGradient`, `Alias`) go as well. `Barrier` stays until
common subexpressions have been found, for it keeps a recomputation apart from what it recomputes.
"""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.ir.graph import Graph
from telegrad.ir.op import Op
from telegrad.ir.value import Node, Value, origin
from telegrad.ops.control import Alias, Barrier, Checkpoint, CustomVjp, Gradient, StopGradient
from telegrad.ops.parts import MARKS

from telegrad_server.compiler.rebuild import rewritten


def inline(graph: Graph) -> Graph:
    """Replace `Checkpoint` and `CustomVjp` by their regions, the outermost first, and drop identities.

    Ops whose joint rule has done its work (`Op.expands`) are replaced by their reference forms.
    """
    while _has(graph, Checkpoint, CustomVjp):
        graph = rewritten(graph, _lower)
    if any(node.op.expands for node in graph.nodes) and not _has(graph, Gradient):
        graph = rewritten(graph, _expand)
    return rewritten(graph, _without_identities) if _has(graph, Alias, StopGradient) else graph


def unmark(graph: Graph) -> Graph:
    """Drop the marks that say on which worker a part runs: here all of it runs on one."""
    return rewritten(graph, _without_marks) if _has(graph, *MARKS) else graph


def remove_barriers(graph: Graph) -> Graph:
    """Drop the fences around recomputations: their nodes stand where they must run already."""
    return rewritten(graph, _without_barriers) if _has(graph, Barrier) else graph


def _has(graph: Graph, *kinds: type[Op]) -> bool:
    return any(isinstance(node.op, kinds) for node in graph.nodes)


def _without_barriers(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    return inputs[: node.op.count] if isinstance(node.op, Barrier) else None


def _lower(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    if not isinstance(node.op, Checkpoint | CustomVjp):
        return None
    with origin(node.origin):
        return node.op.lower(inputs, node.regions)


def _expand(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    if not node.op.expands:
        return None
    with origin(node.origin):
        return node.op.in_primitives(*inputs)  # type: ignore[attr-defined]


def _without_marks(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    return inputs[:1] if isinstance(node.op, MARKS) else None


def _without_identities(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    return inputs if isinstance(node.op, Alias | StopGradient) else None
