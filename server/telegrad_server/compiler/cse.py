"""Common subexpressions: of two pure nodes with the same op on the same values, one is enough. Exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from functools import lru_cache

from telegrad.ir.graph import Graph
from telegrad.ir.op import Op
from telegrad.ir.value import Node, Value
from telegrad_server.compiler.rebuild import rewritten


def common_subexpressions(graph: Graph) -> Graph:
    """Let every value be computed once; the first node stays, with its origin."""
    known: dict[Hashable, tuple[Value, ...]] = {}

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if not node.op.is_pure or node.regions:
            return None
        key = (same_op(node.op), tuple([(id(v.node), v.index) for v in inputs]))
        found = known.get(key)
        if found is None:
            is_same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            kept = node if is_same else Node(node.op, inputs, node.types, node.regions, node.origin)
            found = known[key] = kept.outputs
        return found

    return rewritten(graph, rule)


def same_op(op: Op) -> Hashable:
    """A key that is equal for ops that give the same bits: == takes 0.0 for -0.0 and 1 for True, and NaN for no NaN."""
    numbers = _number_fields(type(op))
    return (op, *(repr(getattr(op, name)) for name in numbers)) if numbers else op


@lru_cache(maxsize=1024)
def _number_fields(cls: type[Op]) -> tuple[str, ...]:
    exact = {"int", "bool", "str", "DType", "Shape", "int | None", "tuple[int, ...]", "tuple[int, ...] | None"}
    return tuple(f.name for f in dataclasses.fields(cls) if str(f.type) not in exact)  # type: ignore[arg-type]
