"""A group of ops that one kernel computes. Only the compiler makes it, and no graph that comes from the network can
hold it: it is not registered.

Its body is a graph of ops that have a C form; run on an array module it is also what the kernel is tested against, and
what runs where a compiler fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from telegrad.ir.graph import Graph
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Type
from telegrad.ir.value import Value
from telegrad.ir.xp import ArrayModule


@dataclass(frozen=True)
class Fused(Op, abstract=True):
    """The results of ``body``. Full values have ``size`` elements; a row, which sums and maxima run over, ``length``
    of them, 0 where there are none.

    ``over`` are the operands that the first result may overwrite: each of their elements is read before the element of
    the result in its place is written.
    """

    name: ClassVar[str] = "fused"

    body: Graph
    size: int
    length: int
    over: tuple[int, ...] = ()

    def infer(self, *types: Type) -> tuple[Type, ...]:
        return self.body.output_types

    def eval(self, xp: ArrayModule, *arrays: Any) -> Any:
        values: dict[Value, Any] = dict(zip(self.body.inputs, arrays, strict=True))
        for node in self.body.body:
            found = node.op.eval(xp, *[values[v] for v in node.inputs])
            values[Value(node)] = found
        results = [values[v] for v in self.body.outputs]
        return tuple(results) if len(results) > 1 else results[0]

    def cost(self, *types: Type) -> Cost:
        moved = sum(t.nbytes for t in types) + sum(t.nbytes for t in self.body.output_types)
        return Cost(sum(node.op.cost(*[v.type for v in node.inputs]).flops for node in self.body.body), moved)

    def attributes(self) -> dict[str, Any]:
        """The names of its ops, for the text of plans."""
        return {"ops": " ".join(node.op.name for node in self.body.body)}
