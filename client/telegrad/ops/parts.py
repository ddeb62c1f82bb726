"""Where the parts of a graph run: ops that leave values as they are and say on which worker they are wanted.

A node runs where its operands are, so two marks suffice: `MoveTo`, which users write by `telegrad.on`, and
`MoveBeside`, which brings a gradient back to where the value is that it belongs to. `MicroBatch` marks what belongs to
one micro-batch of a pipeline, so that the parts of one can run while those of another wait. On one worker all three
are nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.errors import GraphError
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Type
from telegrad.ir.value import Value
from telegrad.ir.xp import Array, ArrayModule

MAX_WORKERS = 4096
MAX_MICRO_BATCHES = 65_536


@dataclass(frozen=True)
class MoveTo(Op):
    """x on a worker of the session's cluster, 0 being the home of the session. Its gradient goes back to where x is."""

    worker: int

    is_view = True

    def infer(self, x: Type) -> Type:
        if not 0 <= self.worker < MAX_WORKERS:
            raise GraphError(f"{self.name}: workers are numbered from 0, the session's home; {self.worker} is none")
        return x

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (MoveBeside()(g, x),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return x

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 0)


@dataclass(frozen=True)
class MoveBeside(Op):
    """x on the worker where the second operand is."""

    is_view = True

    def infer(self, x: Type, beside: Type) -> Type:
        return x

    def vjp(self, g: Value, out: Value, x: Value, beside: Value) -> tuple[Value, None]:
        return MoveBeside()(g, x), None

    def eval(self, xp: ArrayModule, x: Array, beside: Array) -> Array:
        return x

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 0)


@dataclass(frozen=True)
class MicroBatch(Op):
    """x as something of micro-batch ``number``; what is computed from several belongs to the last of them."""

    number: int

    is_view = True

    def infer(self, x: Type) -> Type:
        if not 0 <= self.number < MAX_MICRO_BATCHES:
            raise GraphError(f"{self.name}: micro-batches are numbered from 0 to {MAX_MICRO_BATCHES - 1}")
        return x

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g,)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return x

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 0)


MARKS = (MoveTo, MoveBeside, MicroBatch)
"""The ops of this module: the first operand is the result."""

__all__: list[str] = []
