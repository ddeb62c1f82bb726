"""Sums across workers as two ops: one that gives, one that takes. Only the compiler writes them, and no graph that
comes from the network can hold them: they are not registered.

What happens between them is the executor's affair; its array module has the two methods of `Collective`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Protocol

from telegrad.errors import GraphError
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Shape, Type
from telegrad.ir.xp import Array, ArrayModule

from telegrad_server.tree import Node

BUCKET_BYTES = 25 << 20
"""So much goes out at once: enough that a message is worth its latency, little enough that the backward hides it."""


class Collective(ArrayModule, Protocol):
    """The array module of an executor that is one of several workers. Both are called in the order of the plan."""

    def start_all_reduce(self, op: StartAllReduce, token: Array, /) -> Array:
        """Begin to sum a bucket; returns what the token becomes. Must not wait for other workers."""
        ...

    def finish_all_reduce(self, op: FinishAllReduce, token: Array, /) -> Array:
        """The sums of a bucket, [elements], once they are there."""
        ...


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

    def eval(self, xp: Collective, *xs: Array) -> Array:
        flat = [xp.reshape(x, (prod(x.shape),)) for x in xs]
        count = len(xs) // len(self.nodes)
        rows = [xp.concatenate(flat[i : i + count], axis=0) for i in range(0, len(xs), count)]
        token = xp.concatenate([xp.reshape(row, (1, row.shape[0])) for row in rows], axis=0)
        return xp.start_all_reduce(self, token)

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

    def eval(self, xp: Collective, token: Array) -> Any:
        return self.parted(xp, xp.finish_all_reduce(self, token))

    def parted(self, xp: ArrayModule, sums: Array) -> Array | Sequence[Array]:
        """The values whose elements ``sums`` holds, one after the other."""
        found: list[Array] = []
        at = 0
        for shape in self.shapes:
            found.append(xp.reshape(sums[at : at + prod(shape)], shape))
            at += prod(shape)
        return found if len(found) > 1 else found[0]

    def cost(self, *types: Type) -> Cost:
        (token,) = types
        return Cost(token.size, 2 * token.nbytes)
