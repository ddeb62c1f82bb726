"""Sums across workers as two ops: one that gives, one that takes. Only the compiler writes them, and no graph that
comes from the network can hold them: they are not registered.

What happens between them is the executor's affair (`executors.company`): they have no `eval`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telegrad.errors import GraphError
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Shape, Type

from telegrad_server.tree import Node

BUCKET_BYTES = 25 << 20
"""So much goes out at once: enough that a message is worth its latency, little enough that the backward hides it."""


@dataclass(frozen=True)
class StartAllReduce(Op, abstract=True):
    """Gives the sums of this worker's replicas of one bucket. The token holds them, [nodes, elements].

    Operands: for each node of the tree in ``nodes`` every value of the bucket, all of one dtype. Buckets are numbered
    from 0 in the order in which every worker starts them.
    """

    name: ClassVar[str] = "start_all_reduce"

    bucket: int
    replicas: int
    nodes: tuple[Node, ...]

    def infer(self, *xs: Type) -> Type:
        if not xs or not self.nodes or len(xs) % len(self.nodes):
            raise GraphError(f"{self.name}: {len(xs)} operands for {len(self.nodes)} nodes")
        count = len(xs) // len(self.nodes)
        if any(x != xs[i % count] or x.dtype is not xs[0].dtype for i, x in enumerate(xs)):
            raise GraphError(f"{self.name}: the values of a bucket have one dtype, and each node brings the same ones")
        return Type((len(self.nodes), sum(x.size for x in xs[:count])), xs[0].dtype)

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 2 * sum(x.nbytes for x in types))


@dataclass(frozen=True)
class FinishAllReduce(Op, abstract=True):
    """The sums of a bucket over all replicas of all workers, from its token: one result for each of the values."""

    name: ClassVar[str] = "finish_all_reduce"

    bucket: int
    replicas: int
    shapes: tuple[Shape, ...]

    def infer(self, token: Type) -> tuple[Type, ...]:
        return tuple([Type(shape, token.dtype) for shape in self.shapes])

    def cost(self, *types: Type) -> Cost:
        (token,) = types
        return Cost(token.size, 2 * token.nbytes)
