"""Sums across workers as two ops: one that gives, one that takes. Only the compiler writes them, and no graph that
comes from the network can hold them: they are not registered.

What happens between them is the executor's affair (`executors.company`): they have no `eval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import ClassVar

from telegrad.errors import GraphError
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Shape, Type

from telegrad_server.tree import Node

BUCKET_BYTES = 4 << 20
"""So much goes out at once: enough that a message is worth its latency, little enough that the backward hides it."""

ALONE_BYTES = 256 << 10
"""A value of so many bytes has a bucket of its own, which is the memory that it is in: nothing is copied."""

ALIGNED_BYTES = 64
"""Where values begin in a bucket, as they do in an arena."""


@dataclass(frozen=True)
class StartAllReduce(Op, abstract=True):
    """Gives the sums of this worker's replicas of one bucket. The token holds them, [nodes, elements].

    Operands: for each node of the tree in ``nodes`` every value of the bucket, all of one dtype. Buckets are numbered
    from 0 in the order in which every worker starts them. With a ``span`` this worker gets only these elements of the
    sums.
    """

    name: ClassVar[str] = "start_all_reduce"

    bucket: int
    replicas: int
    nodes: tuple[Node, ...]
    span: tuple[int, int] | None = None

    def infer(self, *xs: Type) -> Type:
        if not xs or not self.nodes or len(xs) % len(self.nodes):
            raise GraphError(f"{self.name}: {len(xs)} operands for {len(self.nodes)} nodes")
        count = len(xs) // len(self.nodes)
        if any(x != xs[i % count] or x.dtype is not xs[0].dtype for i, x in enumerate(xs)):
            raise GraphError(f"{self.name}: the values of a bucket have one dtype, and each node brings the same ones")
        return Type((len(self.nodes), bounds([x.shape for x in xs[:count]], xs[0].dtype.itemsize)[-1]), xs[0].dtype)

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 2 * sum(x.nbytes for x in types))


@dataclass(frozen=True)
class FinishAllReduce(Op, abstract=True):
    """The token once the sums of a bucket over all replicas of all workers are in its first row: values of these
    ``shapes``, at `bounds`."""

    name: ClassVar[str] = "finish_all_reduce"
    is_view = True

    bucket: int
    replicas: int
    shapes: tuple[Shape, ...]

    def infer(self, token: Type) -> Type:
        return token

    def cost(self, *types: Type) -> Cost:
        (token,) = types
        return Cost(token.size, 2 * token.nbytes)


@dataclass(frozen=True)
class StartGather(Op, abstract=True):
    """Gives this worker's span of a value, [elements]; the token is the whole, flat. Numbered among the buckets."""

    name: ClassVar[str] = "start_gather"

    bucket: int
    span: tuple[int, int]
    count: int

    def infer(self, x: Type) -> Type:
        if x.shape != (self.span[1] - self.span[0],):
            raise GraphError(f"{self.name}: {x} is not the span {self.span}")
        return Type((self.count,), x.dtype)

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 2 * types[0].nbytes)


@dataclass(frozen=True)
class FinishGather(Op, abstract=True):
    """The token once all spans are in it."""

    name: ClassVar[str] = "finish_gather"
    is_view = True

    bucket: int

    def infer(self, token: Type) -> Type:
        return token

    def cost(self, *types: Type) -> Cost:
        return Cost(0, types[0].nbytes)


Start = StartAllReduce | StartGather
Finish = FinishAllReduce | FinishGather


def bounds(shapes: Sequence[Shape], itemsize: int) -> list[int]:
    """Where each value begins in a bucket, in elements, and how many there are."""
    if len(shapes) == 1:
        return [0, prod(shapes[0])]
    step = ALIGNED_BYTES // itemsize
    return list(accumulate([-(-prod(shape) // step) * step for shape in shapes], initial=0))
