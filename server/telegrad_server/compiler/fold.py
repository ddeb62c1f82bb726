"""Folding: what is known without running. Exact: no bit of any result changes, NaN and signed zeros included.

A value is *uniform* if it is a constant, or a constant broadcast. An op that is correctly rounded on every
device, applied to uniform operands, is uniform again and is computed here, on scalars. Others (exp, tanh) differ
in the last bits from device to device and are left to it. Moves of moves become one move.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from telegrad.ir.graph import Graph
from telegrad.ir.op import Op
from telegrad.ir.types import DType
from telegrad.ir.value import Node, Number, Value, apply
from telegrad.ops import elementwise as e
from telegrad.ops.shape import BroadcastTo, Flip, Permute, Reshape
from telegrad.wire.arrays import Array, numpy_dtype

from telegrad_server.compiler.rebuild import rewritten

_CORRECTLY_ROUNDED: dict[type[Op], np.ufunc] = {
    e.Add: np.add,
    e.Subtract: np.subtract,
    e.Multiply: np.multiply,
    e.Divide: np.divide,
    e.Negative: np.negative,
    e.Abs: np.absolute,
    e.Sqrt: np.sqrt,
    e.Square: np.square,
    e.Equal: np.equal,
    e.NotEqual: np.not_equal,
    e.Less: np.less,
    e.LessEqual: np.less_equal,
    e.Greater: np.greater,
    e.GreaterEqual: np.greater_equal,
    e.LogicalAnd: np.logical_and,
    e.LogicalOr: np.logical_or,
    e.LogicalXor: np.logical_xor,
    e.LogicalNot: np.logical_not,
    e.Isnan: np.isnan,
    e.Isinf: np.isinf,
    e.Isfinite: np.isfinite,
}


def fold(graph: Graph) -> Graph:
    """Compute what is uniform and join moves of moves."""
    exacting = {
        id(v.node) for node in graph.nodes if not isinstance(node.op, e.Elementwise | e.Cast) for v in node.inputs
    }

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if not inputs:
            return None
        if isinstance(node.op, e.Elementwise | e.Cast):
            # a sum or a product of matrices adds up in another order when its operand is one element repeated
            is_scalar = node.types[0].shape == ()
            return _folded(node, inputs) if is_scalar or id(node) not in exacting else None
        if isinstance(node.op, Reshape | BroadcastTo | Permute | Flip):
            return _moved(node, inputs[0])
        return None

    return rewritten(graph, rule)


def _uniform(value: Value) -> e.Constant | None:
    """The constant of which all elements of the value are copies."""
    node = value.node
    if isinstance(node.op, BroadcastTo):
        node = node.inputs[0].node
    return node.op if isinstance(node.op, e.Constant) else None


def _scalar(constant: e.Constant) -> Array:
    return np.full((), constant.value, numpy_dtype(constant.dtype))


def _folded(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    constants = [_uniform(v) for v in inputs]
    if isinstance(node.op, e.Where) and constants[0] is not None:
        chosen = inputs[1 if constants[0].value else 2]
        return (chosen,) if chosen.type == node.types[0] and not chosen.node.op.is_view else None
    known = [_scalar(c) for c in constants if c is not None]
    if len(known) < len(inputs):
        return None
    with np.errstate(all="ignore"):
        if isinstance(node.op, e.Cast):
            if inputs[0].dtype.is_float and not node.op.dtype.is_float:
                return None  # out of range it is whatever the device makes of it
            return _filled(known[0].astype(numpy_dtype(node.op.dtype)), node)
        ufunc = _CORRECTLY_ROUNDED.get(type(node.op))
        return None if ufunc is None else _filled(np.asarray(ufunc(*known)), node)


def _filled(result: Array, node: Node) -> Sequence[Value] | None:
    """The node's value as a constant, broadcast; None if a Python number cannot say it (the payload of a NaN)."""
    type = node.types[0]
    number = _number(result, type.dtype)
    again = np.full((), number, result.dtype)
    if result.dtype != numpy_dtype(type.dtype) or again.tobytes() != result.tobytes():
        return None
    scalar = apply(e.Constant(number, type.dtype), (), origin=node.origin)
    return scalar if type.shape == () else apply(BroadcastTo(type.shape), scalar, origin=node.origin)


def _number(result: Array, dtype: DType) -> Number:
    if dtype.kind == "float":
        return float(result)
    return bool(result) if dtype.kind == "bool" else int(result)


def _moved(node: Node, x: Value) -> Sequence[Value] | None:
    """A move without effect is its operand, and a move of a move of the same kind is one move."""
    op, type = node.op, node.types[0]
    if _uniform(x) is not None:
        if type == x.type:
            return (x,)
        scalar = x.node.inputs if isinstance(x.node.op, BroadcastTo) else (x,)
        return scalar if type.shape == () else apply(BroadcastTo(type.shape), scalar, origin=node.origin)
    if type == x.type and isinstance(op, Reshape | BroadcastTo):
        return (x,)
    inner = x.node.op
    if isinstance(op, Permute):
        axes = tuple(inner.axes[a] for a in op.axes) if isinstance(inner, Permute) else op.axes
        below = x.node.inputs[0] if isinstance(inner, Permute) else x
        if axes == tuple(range(len(axes))):
            return (below,)
        return apply(Permute(axes), (below,), origin=node.origin) if below is not x else None
    if isinstance(op, BroadcastTo) and isinstance(inner, BroadcastTo):
        return apply(op, x.node.inputs, origin=node.origin)
    # where the innermost operand is no view it is contiguous, and one reshape gives the same strides as two; of a view
    # it might not, and then a sum after it would add up in another order
    if isinstance(op, Reshape) and isinstance(inner, Reshape) and not x.node.inputs[0].node.op.is_view:
        return apply(op, x.node.inputs, origin=node.origin)
    return None
