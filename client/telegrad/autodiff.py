"""Reverse-mode differentiation, graph to graph.

``gradient(ys, gs, xs)`` walks back from the ys in reverse topological order and asks each op for its
rule. Three things are done here and nowhere else: contributions to a value used several times are
added in a fixed order (that of the walk), broadcasting is undone, and what no x depends on is left out.
Since rules are written in values, the result can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from telegrad.errors import GraphError, TooExpensive
from telegrad.ir.graph import Graph, rewrite, topological
from telegrad.ir.types import Shape
from telegrad.ir.value import Node, Origin, Value, origin
from telegrad.ops.control import Gradient, zeros_like
from telegrad.ops.elementwise import Add
from telegrad.ops.reduce import Sum
from telegrad.ops.shape import Reshape


def gradient(ys: Sequence[Value], gs: Sequence[Value], xs: Sequence[Value]) -> tuple[Value, ...]:
    """sum_i <g_i, dy_i/dx_j> for each x_j, zeros where no y depends on x_j.

    Every value, also in regions, must be free of `Gradient` nodes (see `expand_gradients`). Raises GraphError for an
    op without a rule.
    """
    found = _walk_back(topological(ys), ys, gs, xs)
    return tuple([zeros_like(x) if g is None else g for x, g in zip(xs, found, strict=True)])


def partial_gradient(ys: Sequence[Value], gs: Sequence[Value], xs: Sequence[Value]) -> tuple[Value | None, ...]:
    """The same for rules of ops with regions: None where no y depends on x_j. No x may depend on another."""
    return _walk_back(topological(ys, stop=[x.node for x in xs]), ys, gs, xs)


def _walk_back(
    order: Sequence[Node], ys: Sequence[Value], gs: Sequence[Value], xs: Sequence[Value]
) -> tuple[Value | None, ...]:
    wanted = {(id(x.node), x.index) for x in xs}
    x_nodes = {id(x.node) for x in xs}
    depends = set(x_nodes)
    for node in order:
        if any(id(v.node) in depends for v in node.inputs):
            depends.add(id(node))

    sums: dict[tuple[int, int], Value] = {}

    def add(value: Value, g: Value) -> None:
        key = (id(value.node), value.index)
        g = unbroadcast(g, value.shape)
        known = sums.get(key)
        sums[key] = g if known is None else Add()(known, g)

    for y, g in zip(ys, gs, strict=True):
        if id(y.node) in depends:
            add(y, g)

    for node in reversed(order):
        if id(node) not in depends or not any(id(v.node) in depends for v in node.inputs):
            continue
        cotangents = [sums.get((id(node), i)) for i in range(len(node.types))]
        for i in range(len(cotangents)):
            if (id(node), i) not in wanted:
                sums.pop((id(node), i), None)
        if all(g is None for g in cotangents):
            continue
        with origin(_backward_of(node)):
            for value, g in zip(node.inputs, rule(node, cotangents), strict=True):
                if g is not None and id(value.node) in depends:
                    add(value, g)

    return tuple([sums.get((id(x.node), x.index)) for x in xs])


_RULES_LEFT: ContextVar[list[int] | None] = ContextVar("telegrad_rules_left", default=None)


@contextmanager
def at_most(rules: int) -> Generator[None, None, None]:
    """Raise TooExpensive when more than ``rules`` rules are asked for inside.

    Nested regions and derivatives of derivatives multiply: a few hundred nodes can have a gradient of billions.
    """
    token = _RULES_LEFT.set([rules])
    try:
        yield
    finally:
        _RULES_LEFT.reset(token)


def rule(node: Node, cotangents: Sequence[Value | None]) -> Sequence[Value | None]:
    """The node's own rule: one gradient (or None) for each input, free of `Gradient` nodes."""
    left = _RULES_LEFT.get()
    if left is not None:
        left[0] -= 1
        if left[0] < 0:
            raise TooExpensive("the gradient of this graph takes more rules than one function may", op=node.op.name)
    vjp = getattr(node.op, "vjp", None)
    if vjp is None:
        raise GraphError(f"{node.op.name} has no gradient", reason="GRADIENT_MISSING", op=node.op.name)
    outs = node.outputs
    single = len(outs) == 1
    extra: dict[str, Any] = {"regions": node.regions, "gradient": partial_gradient} if node.regions else {}
    return vjp(cotangents[0] if single else tuple(cotangents), outs[0] if single else outs, *node.inputs, **extra)


def unbroadcast(g: Value, shape: Shape) -> Value:
    """g summed over the axes along which a value of ``shape`` was broadcast."""
    if g.shape == shape:
        return g
    lead = g.ndim - len(shape)
    axes = tuple(i for i in range(g.ndim) if i < lead or (shape[i - lead] == 1 and g.shape[i] != 1))
    if axes:
        g = Sum(axes)(g)
    return g if g.shape == shape else Reshape(shape)(g)


def expand_gradients(outputs: Sequence[Value], *, stop: Sequence[Node] = ()) -> tuple[Value, ...]:
    """The same values with every `Gradient` node replaced by its backward graph, innermost first."""
    nodes = topological(outputs, stop=stop)
    if not any(isinstance(node.op, Gradient) or node.regions for node in nodes):
        return tuple(outputs)
    return rewrite(Graph((), tuple(outputs), tuple(nodes)), _expand)


def _expand(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    if isinstance(node.op, Gradient):
        n = node.op.outputs
        with origin(node.origin):
            return gradient(inputs[:n], inputs[n : 2 * n], inputs[2 * n :])
    if node.regions:
        regions = tuple(
            Graph.of(r.inputs, expand_gradients(r.outputs, stop=[v.node for v in r.inputs])) for r in node.regions
        )
        return Node(node.op, inputs, node.types, regions, node.origin).outputs
    return None


def _backward_of(node: Node) -> object:
    return Origin(node.origin.node, True) if isinstance(node.origin, Origin) else node.origin
