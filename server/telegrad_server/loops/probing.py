"""Probes: functions that say of every value inside another function whether it is finite, computed where that runs.

A probe has the other's inputs and one result: a flag for each value of floating-point numbers, in running order. From
the flags `Probe.cause` goes back from a result that is not finite to the node where that began: whose operands are.
What is not finite elsewhere, such as a mask of infinities before a softmax, is not on the way and is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from telegrad.ir.graph import Function, Graph, Input
from telegrad.ir.value import Origin, Value
from telegrad.ops import elementwise, reduce, shape
from telegrad.wire.codec import encode_function

from telegrad_server.compiler.unrolled import unrolled


class Cause(NamedTuple):
    """Where values began not to be finite: a node, or an input of the function by number (-1 for a node)."""

    what: str
    node: int
    is_backward: bool
    input: int


class Probe:
    """A probe for a function. ``data`` is its bytes."""

    def __init__(self, function: Function) -> None:
        self._updates = [output for _, output in function.updates]
        self._graph = unrolled(function)
        found = [v for node in self._graph.nodes for v in node.outputs if v.type.dtype.is_float]
        self._numbers = {value: i for i, value in enumerate(found)}
        flags = [reduce.all(elementwise.isfinite(value)) for value in found]
        self.data = encode_function(Function(Graph.of(self._graph.inputs, [shape.stack(flags)])))

    def updated(self, flags: Sequence[bool]) -> int | None:
        """The number of an update's result that is not finite; None if all are."""
        return next((i for i in self._updates if not self._is_finite(self._graph.outputs[i], flags)), None)

    def cause(self, result: int, flags: Sequence[bool]) -> Cause | None:
        """Why the result of a number is not finite; None if it is."""
        value = self._graph.outputs[result]
        if self._is_finite(value, flags):
            return None
        while True:
            node = value.node
            if isinstance(node.op, Input):
                return Cause("", -1, False, self._graph.inputs.index(value))
            before = [v for v in node.inputs if not self._is_finite(v, flags)]
            if not before:
                break
            value = min(before, key=lambda v: self._numbers[v])
        operands = ", ".join([str(v.type) for v in node.inputs])
        origin = node.origin if isinstance(node.origin, Origin) else Origin(-1)
        return Cause(f"{node.op.name}({operands})", origin.node, origin.is_backward, -1)

    def _is_finite(self, value: Value, flags: Sequence[bool]) -> bool:
        number = self._numbers.get(value)
        return number is None or flags[number]
