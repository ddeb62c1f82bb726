"""Folding: what is known without running. Exact: no bit of any result changes.

Scalar constants are computed where Python's double rounds like the dtype (+, -, *, / of float32 rounded from
double are correctly rounded: Figueroa 1995); moves of moves become one move.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

from telegrad.ir import types as t
from telegrad.ir.graph import Graph
from telegrad.ir.types import DType
from telegrad.ir.value import Node, Value, apply
from telegrad.ops import elementwise as e
from telegrad.ops.shape import BroadcastTo, Permute, Reshape
from telegrad_server.compiler.rebuild import rewritten


def fold(graph: Graph) -> Graph:
    """Compute scalar constants and join moves of moves."""
    return rewritten(graph, _fold)


_BINARY: dict[type[object], Callable[[float, float], float]] = {
    e.Add: lambda x, y: x + y,
    e.Subtract: lambda x, y: x - y,
    e.Multiply: lambda x, y: x * y,
    e.Divide: lambda x, y: x / y,
}


def _rounded(x: float, dtype: DType) -> float:
    if dtype is t.float64 or not math.isfinite(x):
        return x
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def _constant(value: Value) -> float | None:
    op = value.node.op
    if isinstance(op, e.Constant) and op.dtype in (t.float32, t.float64) and isinstance(op.value, float):
        return _rounded(op.value, op.dtype)
    return None


def _fold(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    op = node.op
    binary = _BINARY.get(type(op))
    if binary is not None and node.types[0].shape == ():
        x, y = _constant(inputs[0]), _constant(inputs[1])
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y) and not (
            isinstance(op, e.Divide) and y == 0
        ):
            dtype = node.types[0].dtype
            return apply(e.Constant(_rounded(binary(x, y), dtype), dtype), (), origin=node.origin)
    if isinstance(op, e.Negative) and node.types[0].shape == ():
        x = _constant(inputs[0])
        if x is not None:
            return apply(e.Constant(-x, node.types[0].dtype), (), origin=node.origin)
    if inputs and isinstance(op, Reshape | BroadcastTo | Permute):
        return _joined(node, inputs[0])
    return None


def _joined(node: Node, x: Value) -> Sequence[Value] | None:
    op, inner = node.op, x.node.op
    if node.types[0] == x.type and not isinstance(op, Permute):
        return (x,)
    if isinstance(op, Reshape) and isinstance(inner, Reshape):
        return apply(op, x.node.inputs, origin=node.origin)
    if isinstance(op, BroadcastTo) and isinstance(inner, BroadcastTo):
        return apply(op, x.node.inputs, origin=node.origin)
    if isinstance(op, Permute):
        axes = op.axes
        if isinstance(inner, Permute):
            axes = tuple(inner.axes[a] for a in op.axes)
            x = x.node.inputs[0]
        if axes == tuple(range(len(axes))):
            return (x,)
        if axes != op.axes or isinstance(inner, Permute):
            return apply(Permute(axes), (x,), origin=node.origin)
    return None
