"""How ops work on a batch: the rules of `vmap`, by family. An op without a rule is mapped by a `Scan`.

A graph for one example becomes a graph for all. A value that depends on the batch has its axis in front, the others
stay as they are, and what depends on none of the batch is computed once. A rule gets a node, its operands, which of
them are batched (at least one is) and the size, and returns the node's outputs, all batched. It is looked up by class
and then by the classes above it, so a family is one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from telegrad.ir.graph import Graph, new_input
from telegrad.ir.op import Op
from telegrad.ir.types import Type
from telegrad.ir.value import Node, V, Value
from telegrad.ops import (
    attention,
    control,
    convolution,
    cross_entropy,
    index,
    linalg,
    loops,
    norm,
    parts,
    pooling,
    probability,
    reduce,
    replicas,
    searching,
    shape,
    slices,
    sparse,
    systems,
)
from telegrad.ops import elementwise as e
from telegrad.ops.shape import BroadcastTo, Permute, Reshape

Rule = Callable[[Node, Sequence[Any], Sequence[bool], int], Sequence[Any]]

RULES: dict[type[Op], Rule] = {}
"""The rule of each class of ops that has one."""


def batched(
    graph: Graph, inputs: Sequence[V], flags: Sequence[bool], size: int, *, anchor: V
) -> tuple[list[V], list[bool]]:
    """The outputs of the graph on a batch, and which of them are batched.

    ``flags`` says of which inputs the first axis is the batch; ``anchor`` is any value or tensor, to make constants of.
    The graph must be free of `Gradient` nodes.
    """
    known: dict[Value, V] = dict(zip(graph.inputs, inputs, strict=True))
    is_batched = {v for v, flag in zip(graph.inputs, flags, strict=True) if flag}
    for node in graph.body:
        operands = [known[v] for v in node.inputs]
        marks = [v in is_batched for v in node.inputs]
        if any(marks):
            outs = _rule_of(node.op)(node, operands, marks, size)
            is_batched.update(node.outputs)
        else:
            outs = (operands[0] if operands else anchor).bind(node.op, operands, node.regions)
        known.update(zip(node.outputs, outs, strict=True))
    return [known[v] for v in graph.outputs], [v in is_batched for v in graph.outputs]


def in_front(x: V, size: int) -> V:
    """x repeated along a new first axis."""
    return BroadcastTo((size, *x.shape))(Reshape((1, *x.shape))(x))


def _rule_of(op: Op) -> Rule:
    for cls in type(op).__mro__:
        if cls in RULES:
            return RULES[cls]
    return _by_scan


def _all(xs: Sequence[V], flags: Sequence[bool], size: int) -> list[V]:
    return [x if flag else in_front(x, size) for x, flag in zip(xs, flags, strict=True)]


def _by_scan(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    """One example after the other: right for every op, if not fast."""
    order = sorted(range(len(xs)), key=lambda i: not flags[i])
    operands = [xs[i] for i in order]
    inner = [new_input(node.inputs[i].type) for i in order]
    body = Node(node.op, tuple(inner[order.index(i)] for i in range(len(xs))), node.types, node.regions, node.origin)
    graph = Graph.of([new_input(loops.INDEX), *inner], body.outputs)
    return loops.Scan(size, 0, sum(flags)).results(*operands, regions=(graph,))


# ---- moves of the axes that a rule counts


def _one_by_one(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    """Elementwise: what has fewer axes gets ones behind the batch."""
    return node.op.results(*_lined_up(node, xs, flags))


def _lined_up(node: Node, xs: Sequence[V], flags: Sequence[bool]) -> list[V]:
    most = max(v.ndim for v in node.inputs)
    found: list[V] = []
    for x, v, flag in zip(xs, node.inputs, flags, strict=True):
        missing = most - v.ndim if flag else 0
        found.append(Reshape((x.shape[0], *(1,) * missing, *x.shape[1:]))(x) if missing else x)
    return found


def _as_is(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    """Leading axes are a batch to the op already."""
    return node.op.results(*_all(xs, flags, size))


def _next_axis(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    """The op's one axis is counted from the front."""
    op: Any = node.op
    return replace(op, axis=op.axis + 1).results(*_all(xs, flags, size))


def _next_axes(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    op: Any = node.op
    return replace(op, axes=tuple(a + 1 for a in op.axes)).results(*_all(xs, flags, size))


def _reshape(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    return Reshape((size, *node.types[0].shape)).results(*xs)


def _broadcast_to(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    (x,), to = xs, node.types[0].shape
    wide = Reshape((size, *(1,) * (len(to) - x.ndim + 1), *x.shape[1:]))(x)
    return (BroadcastTo((size, *to))(wide),)


def _permute(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    op: Any = node.op
    return Permute((0, *(a + 1 for a in op.axes))).results(*xs)


def _pad(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    op: Any = node.op
    return replace(op, before=(0, *op.before), after=(0, *op.after)).results(*xs)


def _sliced(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    op: Any = node.op
    bounds: dict[str, Any] = {"start": (0, *op.start), "stop": (size, *op.stop), "step": (1, *op.step)}
    if isinstance(op, slices.Unslice):
        bounds["shape"] = (size, *op.shape)
    if isinstance(op, slices.SliceSet):
        x, y = _all(xs, flags, size)
        missing = x.ndim - y.ndim
        return replace(op, **bounds).results(x, Reshape((size, *(1,) * missing, *y.shape[1:]))(y))
    return replace(op, **bounds).results(*xs)


def _to_front(x: V, axis: int) -> V:
    return Permute((axis, *(a for a in range(x.ndim) if a != axis)))(x)


def _from_front(x: V, axis: int) -> V:
    order = list(range(1, x.ndim))
    order.insert(axis, 0)
    return Permute(tuple(order))(x)


# ---- ops with operands of different roles


def _gather(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    x, at = xs
    if not flags[0]:
        return node.op.results(x, at)
    if flags[1]:
        return _by_scan(node, xs, flags, size)
    return (_to_front(node.op(_from_front(x, 1), at), at.ndim),)


def _scatter_add(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    x, at = xs
    if flags[1]:
        return _by_scan(node, xs, flags, size)
    return (_to_front(node.op(_from_front(x, at.ndim), at), 1),)


def _searchsorted(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    return _by_scan(node, xs, flags, size) if flags[0] else node.op.results(*xs)


def _merged(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    """A batch of batches is one batch, where the first operand alone has one."""
    if list(flags) != [True, *(False for _ in flags[1:])]:
        return _by_scan(node, xs, flags, size)
    x = xs[0]
    out = node.op(Reshape((size * x.shape[1], *x.shape[2:]))(x), *xs[1:])
    return (Reshape((size, *node.types[0].shape))(out),)


def _sparse_matmul(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    """The columns of all dense matrices are the columns of one, where the sparse matrix is shared."""
    if any(flags[:3]):
        return _by_scan(node, xs, flags, size)
    x = _from_front(xs[3], 1)
    n, _, k = x.shape
    out = node.op(*xs[:3], Reshape((n, size * k))(x))
    return (_to_front(Reshape((out.shape[0], size, k))(out), 1),)


# ---- ops about the graph


def _barrier(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    op: Any = node.op
    return control.Barrier(op.count).results(*_all(xs[: op.count], flags[: op.count], size), *xs[op.count :])


def _region(region: Graph, flags: Sequence[bool], size: int, *, sums: Sequence[bool] | None = None) -> Graph:
    """The region on a batch, all its outputs batched; those marked in ``sums`` are summed over the batch instead."""
    inputs = [
        new_input(Type((size, *v.shape), v.dtype) if flag else v.type)
        for v, flag in zip(region.inputs, flags, strict=True)
    ]
    anchor = inputs[0] if inputs else new_input(loops.INDEX)
    outs, marks = batched(region, inputs, flags, size, anchor=anchor)
    outs = _all(outs, marks, size)
    return Graph.of(inputs, [reduce.Sum((0,))(x) if sums and sums[i] else x for i, x in enumerate(outs)])


def _beside(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    return node.op.results(_all(xs[:1], flags[:1], size)[0], xs[1])


def _checkpoint(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    return node.op.results(*xs, regions=(_region(node.regions[0], flags, size),))


def _custom_vjp(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    forward, backward = node.regions
    # the gradient of an operand that is not batched is the sum of those of the examples
    sums = [not flag for v, flag in zip(node.inputs, flags, strict=True) if v.dtype.is_float]
    regions = (
        _region(forward, flags, size),
        _region(backward, [True] * len(backward.inputs), size, sums=sums),
    )
    return node.op.results(*xs, regions=regions)


def _scan(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    op: Any = node.op
    carries, end = op.carries, op.carries + op.xs
    operands = _all(xs[:carries], flags[:carries], size)
    operands += [_from_front(x, 1) if flag else x for x, flag in zip(xs[carries:end], flags[carries:end], strict=True)]
    operands += xs[end:]
    body = _region(node.regions[0], [False, *(True,) * carries, *flags[carries:]], size)
    results = op.results(*operands, regions=(body,))
    return [*results[:carries], *(_to_front(y, 1) for y in results[carries:])]


def _switch(node: Node, xs: Sequence[V], flags: Sequence[bool], size: int) -> Sequence[V]:
    if flags[0]:  # each example runs the branch that is its own, and no other
        return _by_scan(node, xs, flags, size)
    return node.op.results(*xs, regions=tuple(_region(branch, flags[1:], size) for branch in node.regions))


RULES.update(
    {
        e.Elementwise: _one_by_one,
        e.Cast: _one_by_one,
        index.CheckedIndex: _one_by_one,
        control.StopGradient: _one_by_one,
        control.Alias: _one_by_one,
        replicas.AllReduce: _one_by_one,
        linalg.Matmul: lambda node, xs, flags, size: node.op.results(*_lined_up(node, xs, flags)),
        systems.System: lambda node, xs, flags, size: node.op.results(*_lined_up(node, xs, flags)),
        systems.MatrixOp: lambda node, xs, flags, size: (
            node.op.results(*xs) if len(xs) == 1 else _by_scan(node, xs, flags, size)
        ),
        systems.PinvAbove: _as_is,
        shape.Triangle: _as_is,
        attention.Attention: _as_is,
        attention.AttentionGradient: _as_is,
        probability.Normalized: _next_axis,
        reduce.Position: _next_axis,
        reduce.Cumulative: _next_axis,
        shape.Concat: _next_axis,
        index.TakeAlong: _next_axis,
        index.AddAlong: _next_axis,
        index.Argsort: _next_axis,
        cross_entropy.SoftmaxCrossEntropy: _next_axis,
        reduce.Reduction: _next_axes,
        norm.Standardize: _next_axes,
        norm.StandardizeGradient: _next_axes,
        shape.Flip: _next_axes,
        Reshape: _reshape,
        BroadcastTo: _broadcast_to,
        Permute: _permute,
        shape.Pad: _pad,
        slices.Sliced: _sliced,
        index.Gather: _gather,
        index.ScatterAdd: _scatter_add,
        sparse.SparseMatmul: _sparse_matmul,
        searching.Searchsorted: _searchsorted,
        convolution.Convolution: _merged,
        convolution.ConvolutionInput: _merged,
        pooling.WindowArgmax: _merged,
        parts.MoveTo: _one_by_one,
        parts.MicroBatch: _one_by_one,
        parts.MoveBeside: _beside,
        control.Barrier: _barrier,
        control.Checkpoint: _checkpoint,
        control.CustomVjp: _custom_vjp,
        loops.Scan: _scan,
        loops.Switch: _switch,
    }
)
