"""Loops and branches: ops that own the graphs they repeat or choose from.

`Scan` repeats a body a known number of times, `While` until a condition fails, `Switch` runs one of several. A
recurrent network of any length is one node, so the graph, the wire and the plan do not grow with it.

Every body takes the number of the trip first (an int64 scalar): with it random ops fold the trip into their key.
The derivative of a scan is a scan the other way round. What its body needs from the forward is stacked by the
forward scan itself (`scan_gradient`): the rule makes the forward again with more results, over the same body, and the
compiler joins the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.graph import Graph, new_input
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Type
from telegrad.ir.value import Value
from telegrad.ops.control import Alias, PartialGradient, check_region, or_zeros
from telegrad.ops.scan_gradient import scan_gradient

INDEX = Type((), t.int64)
"""The number of the trip, from 0 in the order of the axis."""

MAX_TRIPS = 2**40


class Loop(Op, abstract=True):
    """The family: ops whose regions run as often as the data or an attribute say. Their cost is the compiler's sum."""

    def cost(self, *types: Type) -> Cost:
        return Cost(0, sum(x.nbytes for x in types))


def _one_region(op: str, regions: tuple[Graph, ...], count: int) -> None:
    if len(regions) != count:
        raise GraphError(f"{op} owns {count} regions, not {len(regions)}", reason="REGION_INVALID")


def _keeps(op: str, before: Sequence[Type], after: Sequence[Type]) -> None:
    for number, (x, y) in enumerate(zip(before, after, strict=True)):
        if x != y:
            raise GraphError(f"{op}: carry {number} goes in as {x} and comes out as {y}; it must keep its type")


@dataclass(frozen=True)
class Scan(Loop):
    """The body, ``length`` times: (trip, carries, slices of the xs, constants) -> (carries, ys).

    Operands: ``carries`` carries, ``xs`` arrays with a first axis of ``length``, constants. Results: the last carries,
    and the ys of all trips stacked along a new first axis. ``reverse`` goes from the last slice to the first.
    """

    length: int
    carries: int
    xs: int
    reverse: bool = False

    def infer(self, *types: Type, regions: tuple[Graph, ...] = ()) -> tuple[Type, ...]:
        _one_region("scan", regions, 1)
        c, n = self.carries, self.carries + self.xs
        if not (0 <= self.length <= MAX_TRIPS and c >= 0 and self.xs >= 0 and n <= len(types)):
            raise GraphError(
                f"scan: {self.length} trips, {c} carries and {self.xs} xs do not fit {len(types)} operands"
            )
        slices: list[Type] = []
        for number, x in enumerate(types[c:n]):
            if not x.shape or x.shape[0] != self.length:
                raise ShapeError(f"scan: xs {number} is {x}; its first axis must have the length {self.length}")
            slices.append(Type(x.shape[1:], x.dtype))
        check_region("scan", regions[0], (INDEX, *types[:c], *slices, *types[n:]), "the body")
        results = regions[0].output_types
        if len(results) < c or not results:
            raise GraphError(f"scan: the body has {len(results)} results for {c} carries", reason="REGION_INVALID")
        _keeps("scan", types[:c], results[:c])
        return (*types[:c], *(Type((self.length, *y.shape), y.dtype) for y in results[c:]))

    def vjp(
        self, g: Any, out: Any, *inputs: Value, regions: tuple[Graph, ...], gradient: PartialGradient
    ) -> tuple[Value | None, ...]:
        gs: tuple[Value | None, ...] = g if isinstance(g, tuple) else (g,)
        outs: tuple[Value, ...] = out if isinstance(out, tuple) else (out,)

        def repeat(carries: int, xs: int, reversed: bool, body: Graph, operands: Sequence[Value]) -> tuple[Value, ...]:
            scan = Scan(self.length, carries, xs, self.reverse is not reversed)
            return scan.results(*operands, regions=(body,))

        return scan_gradient(
            gs, outs, inputs, regions[0], carries=self.carries, xs=self.xs, gradient=gradient, repeat=repeat
        )


@dataclass(frozen=True)
class Switch(Loop):
    """One of several regions of equal types: that of the number in the first operand, the nearest if out of range."""

    def infer(self, index: Type, *types: Type, regions: tuple[Graph, ...] = ()) -> tuple[Type, ...]:
        if not regions:
            raise GraphError("switch owns at least one region", reason="REGION_INVALID")
        if index.shape or index.dtype.is_float:
            raise DTypeError(f"switch: the number of the branch must be an integer or bool scalar, not {index}")
        results = regions[0].output_types
        for number, region in enumerate(regions):
            check_region("switch", region, types, f"branch {number}")
            if region.output_types != results:
                raise GraphError(
                    f"switch: branch 0 returns ({', '.join(map(str, results))}) and branch {number} "
                    f"({', '.join(map(str, region.output_types))}); all must return the same types"
                )
        if not results:
            raise GraphError("switch: the branches return nothing", reason="REGION_INVALID")
        return results

    def vjp(
        self, g: Any, out: Any, index: Value, *inputs: Value, regions: tuple[Graph, ...], gradient: PartialGradient
    ) -> tuple[Value | None, ...]:
        gs: tuple[Value | None, ...] = g if isinstance(g, tuple) else (g,)
        known = [j for j, gy in enumerate(gs) if gy is not None]
        wanted = [j for j, x in enumerate(inputs) if x.dtype.is_float]
        branches: list[tuple[list[Value], dict[int, Value | None]]] = []
        for region in regions:
            xs = [new_input(x.type) for x in inputs]
            cotangents = [new_input(region.outputs[j].type) for j in known]
            ys = region.inline(xs)
            found = gradient([ys[j] for j in known], cotangents, [xs[j] for j in wanted])
            branches.append(([*xs, *cotangents], dict(zip(wanted, found, strict=True))))
        flows = [j for j in wanted if any(found[j] is not None for _, found in branches)]
        if not flows:
            return (None,) * (1 + len(inputs))
        back = tuple(Graph.of(fresh, [or_zeros(found[j], fresh[j]) for j in flows]) for fresh, found in branches)
        flowed = self.results(index, *inputs, *[gs[j] for j in known], regions=back)  # type: ignore[arg-type]
        by_operand = dict(zip(flows, flowed, strict=True))
        return (None, *(by_operand.get(j) for j in range(len(inputs))))


@dataclass(frozen=True)
class While(Loop):
    """The body, (trip, carries, constants) -> carries, as long as the condition on the same operands is true.

    ``max_trips`` bounds what it may cost; a loop that would go on is an error. The derivative runs it as a scan of
    ``max_trips`` trips, those behind the end being idle.
    """

    max_trips: int
    carries: int

    def infer(self, *types: Type, regions: tuple[Graph, ...] = ()) -> tuple[Type, ...]:
        _one_region("while", regions, 2)
        if not (0 <= self.max_trips <= MAX_TRIPS and 0 < self.carries <= len(types)):
            raise GraphError(f"while: {self.max_trips} trips, {self.carries} carries do not fit {len(types)} operands")
        test, body = regions
        check_region("while", test, (INDEX, *types), "the condition")
        check_region("while", body, (INDEX, *types), "the body")
        if test.output_types != (Type((), t.bool_),):
            raise GraphError(
                f"while: the condition must return a bool scalar, not ({', '.join(map(str, test.output_types))})"
            )
        if len(body.outputs) != self.carries:
            raise GraphError(f"while: the body returns {len(body.outputs)} values for {self.carries} carries")
        _keeps("while", types[: self.carries], body.output_types)
        return types[: self.carries]

    def vjp(
        self, g: Any, out: Any, *inputs: Value, regions: tuple[Graph, ...], gradient: PartialGradient
    ) -> tuple[Value | None, ...]:
        gs: tuple[Value | None, ...] = g if isinstance(g, tuple) else (g,)
        known = [j for j, gy in enumerate(gs) if gy is not None]
        wanted = [j for j, x in enumerate(inputs) if x.dtype.is_float]
        fresh = [Alias()(x) for x in inputs]  # one operand may depend on another
        ends = self.as_scan(fresh, regions)
        found = gradient([ends[j] for j in known], [gs[j] for j in known], [fresh[j] for j in wanted])  # type: ignore[misc]
        by_operand = dict(zip(wanted, found, strict=True))
        return tuple(by_operand.get(j) for j in range(len(inputs)))

    def as_scan(self, inputs: Sequence[Value], regions: tuple[Graph, ...]) -> tuple[Value, ...]:
        """The carries at the end, by a scan whose trips do nothing once the condition has failed."""
        test, body = regions
        fresh = [new_input(v.type) for v in body.inputs]
        idle_in = [new_input(v.type) for v in body.inputs]
        idle = Graph.of(idle_in, idle_in[1 : 1 + self.carries])
        (goes_on,) = test.inline(fresh)
        after = Switch().results(goes_on, *fresh, regions=(idle, body))
        trip = Graph.of(fresh, after)
        return Scan(self.max_trips, self.carries, 0).results(*inputs, regions=(trip,))


__all__: list[str] = []
