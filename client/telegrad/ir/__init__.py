"""The language that client and server speak: types, ops, values, graphs. Standard library only."""

from telegrad.ir.graph import Function, Graph, Input, Replication, new_input, rewrite, topological
from telegrad.ir.op import Cost, Op, make_op
from telegrad.ir.types import DType, Shape, Type
from telegrad.ir.value import Node, Number, Operators, Origin, Value, apply, operator, origin

__all__ = [
    "Cost", "DType", "Function", "Graph", "Input", "Node", "Number", "Op", "Operators", "Origin",
    "Replication", "Shape", "Type", "Value", "apply", "make_op", "new_input", "operator", "origin", "rewrite",
    "topological",
]  # fmt: skip
