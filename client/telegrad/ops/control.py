"""Ops about the graph itself: gradients, recomputation, custom rules, and fences for the optimiser.

`Gradient` is a node like any other: the client writes down *what* to differentiate, and the server's first
pass replaces the node by the backward graph (`telegrad.autodiff`). `Checkpoint` and `CustomVjp` own
regions, sub-graphs that are inlined once gradients are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir.graph import Graph
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Type
from telegrad.ir.value import V, Value
from telegrad.ir.xp import Array, ArrayModule

__all__ = ["stop_gradient"]

PartialGradient = Callable[[Sequence[Value], Sequence[Value], Sequence[Value]], "tuple[Value | None, ...]"]
"""What a rule of an op with regions gets to differentiate them with: `telegrad.autodiff.partial_gradient`."""


@dataclass(frozen=True)
class Gradient(Op):
    """sum_i <g_i, dy_i/dx_j> for each x_j. Operands: y_1..y_n, g_1..g_n, x_1..x_k; results: k gradients.

    The y are differentiated through the graph that leads to them, so this op only has a meaning in it.
    """

    outputs: int

    def infer(self, *types: Type) -> tuple[Type, ...]:
        n = self.outputs
        if not 1 <= n <= len(types) // 2:
            raise GraphError(f"gradient: {len(types)} operands do not hold {n} outputs and their cotangents")
        for y, g in zip(types[:n], types[n : 2 * n], strict=True):
            if y != g:
                raise ShapeError(f"gradient: the cotangent of a {y} must be a {y}, not a {g}")
        for x in types[2 * n :]:
            if not x.dtype.is_float:
                raise DTypeError(f"gradient: an input of dtype {x.dtype} has no gradient; it must be floating-point")
        return types[2 * n :]

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 0)


@dataclass(frozen=True)
class StopGradient(Op):
    """x, and no gradient for it."""

    is_view = True

    def infer(self, x: Type) -> Type:
        return x

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[None]:
        return (None,)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return x

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 0)


@dataclass(frozen=True)
class Alias(Op):
    """x under a new identity: a gradient with respect to it counts only the uses of this alias."""

    is_view = True
    is_pure = False

    def infer(self, x: Type) -> Type:
        return x

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g,)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return x

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 0)


@dataclass(frozen=True)
class Barrier(Op):
    """The first ``count`` operands unchanged, but not before all operands are there.

    Keeps a recomputation from being merged with the computation that it repeats.
    """

    count: int

    is_view = True
    is_pure = False

    def infer(self, *types: Type) -> tuple[Type, ...]:
        if not 0 < self.count <= len(types):
            raise GraphError(f"barrier: count {self.count} does not fit {len(types)} operands")
        return types[: self.count]

    def vjp(self, g: Any, out: Any, *inputs: Value) -> tuple[Value | None, ...]:
        gs = g if isinstance(g, tuple) else (g,)
        return (*gs, *(None,) * (len(inputs) - self.count))

    def eval(self, xp: ArrayModule, *inputs: Array) -> Array:
        return inputs[: self.count] if self.count > 1 else inputs[0]

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 0)


def check_region(op: str, region: Graph, types: Sequence[Type], role: str) -> None:
    """Raise GraphError unless the region, which the op knows as ``role``, takes operands of these types."""
    if region.input_types != tuple(types):
        raise GraphError(
            f"{op}: {role} takes ({', '.join(map(str, region.input_types))}), got ({', '.join(map(str, types))})",
            reason="REGION_INVALID",
        )


@dataclass(frozen=True)
class Checkpoint(Op):
    """The region on the operands; its inner values are computed again for the backward instead of kept."""

    reference = "Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost, section 4"

    def infer(self, *types: Type, regions: tuple[Graph, ...] = ()) -> tuple[Type, ...]:
        if len(regions) != 1:
            raise GraphError("checkpoint owns one region", reason="REGION_INVALID")
        check_region("checkpoint", regions[0], types, "the region")
        return regions[0].output_types

    def vjp(
        self, g: Any, out: Any, *inputs: Value, regions: tuple[Graph, ...], gradient: PartialGradient
    ) -> tuple[Value | None, ...]:
        gs: tuple[Value | None, ...] = g if isinstance(g, tuple) else (g,)
        known = [x for x in gs if x is not None]
        fenced = Barrier(len(inputs)).results(*inputs, *known)
        again = regions[0].inline(fenced)
        wanted = [x for x in fenced if x.dtype.is_float]
        ys = [y for y, gy in zip(again, gs, strict=True) if gy is not None]
        found = iter(gradient(ys, known, wanted))
        return tuple(next(found) if x.dtype.is_float else None for x in fenced)

    def lower(self, inputs: Sequence[Value], regions: tuple[Graph, ...]) -> tuple[Value, ...]:
        """What runs once gradients are known: the region itself."""
        return regions[0].inline(inputs)

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 0)


@dataclass(frozen=True)
class CustomVjp(Op):
    """The forward region on the operands; the backward region, on residuals and cotangents, is its derivative.

    Forward: inputs -> ``outputs`` results, then residuals. Backward: residuals, then one cotangent for each
    result -> one gradient for each floating-point input.
    """

    outputs: int

    def infer(self, *types: Type, regions: tuple[Graph, ...] = ()) -> tuple[Type, ...]:
        if len(regions) != 2:
            raise GraphError("custom_vjp owns two regions, forward and backward", reason="REGION_INVALID")
        forward, backward = regions
        results = forward.output_types
        if not 0 < self.outputs <= len(results):
            raise GraphError(f"custom_vjp: {self.outputs} outputs of {len(results)} results", reason="REGION_INVALID")
        check_region("custom_vjp", forward, types, "the forward region")
        residuals, ys = results[self.outputs :], results[: self.outputs]
        check_region("custom_vjp", backward, (*residuals, *ys), "the backward region")
        wanted = tuple(x for x in types if x.dtype.is_float)
        if backward.output_types != wanted:
            raise GraphError(
                f"custom_vjp: the backward rule must return ({', '.join(map(str, wanted))}), "
                f"it returns ({', '.join(map(str, backward.output_types))})",
                reason="REGION_INVALID",
            )
        return results

    def vjp(
        self, g: Any, out: Any, *inputs: Value, regions: tuple[Graph, ...], gradient: PartialGradient
    ) -> tuple[Value | None, ...]:
        gs: tuple[Value | None, ...] = g if isinstance(g, tuple) else (g,)
        outs: tuple[Value, ...] = out if isinstance(out, tuple) else (out,)
        wanted = [x for x in inputs if x.dtype.is_float]
        found: list[Value | None] = [None] * len(wanted)
        if any(gy is not None for gy in gs[: self.outputs]):
            known = [zeros_like(y) if gy is None else gy for y, gy in zip(outs, gs[: self.outputs], strict=False)]
            found = list(regions[1].inline((*outs[self.outputs :], *known)))
        # residuals are differentiated as they were computed: they are in the way of second derivatives
        saved = [(i, gy) for i, gy in enumerate(gs) if i >= self.outputs and gy is not None]
        if saved and wanted:
            fresh = tuple(Alias()(x) for x in inputs)  # one value may be several operands
            again = regions[0].inline(fresh)
            starts = [x for x in fresh if x.dtype.is_float]
            through = gradient([again[i] for i, _ in saved], [gy for _, gy in saved], starts)
            found = [f if h is None else h if f is None else f + h for f, h in zip(found, through, strict=True)]
        gradients = iter(found)
        return tuple(next(gradients) if x.dtype.is_float else None for x in inputs)

    def lower(self, inputs: Sequence[Value], regions: tuple[Graph, ...]) -> tuple[Value, ...]:
        """What runs once gradients are known: the forward region."""
        return regions[0].inline(inputs)

    def cost(self, *types: Type) -> Cost:
        return Cost(0, 0)


def zeros_like(x: Value) -> Value:
    """Zeros of x's type."""
    from telegrad.ops.shape import BroadcastTo

    return BroadcastTo(x.shape)(x.literal(0, x.dtype))


def or_zeros(g: Value | None, x: Value) -> Value:
    """The gradient g, or zeros of x's type where there is none."""
    return zeros_like(x) if g is None else g


def stop_gradient(x: V, /) -> V:
    """x as a constant: no gradient flows through it."""
    return StopGradient()(x)
