"""The derivative of a scan: a scan the other way round, over what the forward stacks for it.

One trip is differentiated; the result is cut where what depends on the cotangents meets what the forward knows. What
is known is stacked by the forward, except that views, constants and what the rules themselves made elementwise are
made again in the backward, and what no trip changes is computed once.

The gradient of a constant is a sum over the trips. Where each trip contributes a product of matrices, the factors are
stacked and multiplied at the end, all trips in one product: that of a recurrent network's weight. Where it contributes
a sum of such a factor, as for the bias behind the product, that is taken at the end as well: so no row of a batch
meets another one in a trip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from telegrad.ir.graph import Graph, new_input, rewrite, topological
from telegrad.ir.types import Shape
from telegrad.ir.value import Value
from telegrad.ops import elementwise as e
from telegrad.ops.control import PartialGradient, or_zeros, zeros_like
from telegrad.ops.linalg import Matmul
from telegrad.ops.reduce import Sum
from telegrad.ops.shape import Permute, Reshape

Repeat = Callable[[int, int, bool, Graph, Sequence[Value]], "tuple[Value, ...]"]
"""A scan by its number of carries and xs, whether it goes the other way, its body, and its operands."""


@dataclass
class _Needs:
    """What a backward trip takes from the forward: values to be stacked, slices of the xs, and what no trip changes."""

    saved: list[Value] = field(default_factory=list[Value])
    slices: list[Value] = field(default_factory=list[Value])
    invariant: list[Value] = field(default_factory=list[Value])


@dataclass(frozen=True)
class _Product:
    """The contribution left @ right of a trip to the gradient of a constant, with its axes then permuted."""

    left: Value
    right: Value
    permutations: tuple[Permute, ...]

    def over_trips(self, stacks: Mapping[Value, Value]) -> Value:
        """The sum over all trips, given the factors of all trips stacked along a first axis."""
        rows, inner = self.left.shape
        columns = self.right.shape[1]
        base, is_transposed = _untransposed(self.left)
        if is_transposed:
            left = Permute((1, 0))(Reshape((stacks[base].shape[0] * inner, rows))(stacks[base]))
        else:
            left = Reshape((rows, stacks[base].shape[0] * inner))(Permute((1, 0, 2))(stacks[base]))
        base, is_transposed = _untransposed(self.right)
        stack = Permute((0, 2, 1))(stacks[base]) if is_transposed else stacks[base]
        total = Matmul()(left, Reshape((stack.shape[0] * inner, columns))(stack))
        for permutation in self.permutations:
            total = permutation(total)
        return total

    @property
    def factors(self) -> tuple[Value, Value]:
        """What is stacked: the factors, before they were transposed."""
        return _untransposed(self.left)[0], _untransposed(self.right)[0]


@dataclass(frozen=True)
class _Total:
    """The contribution of a trip that is the sum of a value over axes, in some shape."""

    value: Value
    axes: tuple[int, ...]
    shape: Shape

    def over_trips(self, stacks: Mapping[Value, Value]) -> Value:
        """The sum over all trips, given the values of all trips stacked along a first axis."""
        return Reshape(self.shape)(Sum((0, *[axis + 1 for axis in self.axes]))(stacks[self.value]))


def scan_gradient(
    gs: Sequence[Value | None],
    outs: Sequence[Value],
    inputs: Sequence[Value],
    body: Graph,
    *,
    carries: int,
    xs: int,
    gradient: PartialGradient,
    repeat: Repeat,
) -> tuple[Value | None, ...]:
    """The gradients of the operands of a scan; ``gs`` belong to its results ``outs``, ``body`` is its region."""
    parameters, n = body.inputs[1:], carries + xs
    carried = [j for j in range(carries) if inputs[j].dtype.is_float]
    wanted = [j for j, x in enumerate(inputs) if x.dtype.is_float]
    known = [j for j in range(carries, len(outs)) if gs[j] is not None]
    # one trip, backwards
    starts = [new_input(parameters[j].type) for j in carried]
    seeds = [new_input(body.outputs[j].type) for j in known]
    ends = [body.outputs[j] for j in (*carried, *known)]
    slopes = dict(zip(wanted, gradient(ends, [*starts, *seeds], [parameters[j] for j in wanted]), strict=True))
    contributions = {j: g for j, g in slopes.items() if g is not None and j >= n}
    sliced = {j: g for j, g in slopes.items() if g is not None and carries <= j < n}
    if not (carried or contributions or sliced):
        return (None,) * len(inputs)
    products = {j: p for j, g in contributions.items() if (p := _product(g)) is not None}
    factors = list(dict.fromkeys(f for p in products.values() for f in p.factors))
    totals = {j: s for j, g in contributions.items() if (s := _total(g)) is not None and s.value in factors}
    summed = {j: g for j, g in contributions.items() if j not in products and j not in totals}
    sums = [new_input(parameters[j].type) for j in summed]
    ends = [or_zeros(slopes[j], parameters[j]) for j in carried]
    ends += [e.Add()(total, g) for total, g in zip(sums, summed.values(), strict=True)]
    linear = _linear([*ends, *sliced.values(), *contributions.values()], body, [*starts, *seeds])
    stacked = list(dict.fromkeys([*sliced.values(), *(f for f in factors if id(f.node) in linear)]))
    # what it needs of the forward
    need = _needs([*ends, *stacked], body, [*starts, *seeds, *sums], linear, carries=carries, xs=xs)
    operands = dict(zip(parameters, inputs, strict=True))
    stacks = {v: outs[j] for j, v in enumerate(body.outputs) if j >= carries}
    stacks |= {v: operands[v] for v in parameters[carries:n]}
    more = list(dict.fromkeys(v for v in (*need.saved, *factors) if v not in stacks and id(v.node) not in linear))
    if more:
        forward = Graph.of(body.inputs, (*body.outputs, *more))
        again = repeat(carries, xs, False, forward, inputs)
        stacks |= dict(zip(more, again[len(outs) :], strict=True))
    # all trips, the other way round
    index = new_input(body.inputs[0].type)
    arrays = [*need.saved, *need.slices]
    mapping = {v: new_input(v.type) for v in (*arrays, *need.invariant)}
    region = _region(
        [*ends, *stacked], [index, *starts, *sums, *seeds, *mapping.values()], {body.inputs[0]: index, **mapping}
    )
    begin = [or_zeros(gs[j], inputs[j]) for j in carried] + [zeros_like(inputs[j]) for j in summed]
    slices = [g for g in gs[carries:] if g is not None] + [stacks[v] for v in arrays]
    outer = _substituted(need.invariant, operands)
    flowed: Sequence[Value] = ()
    if region.outputs:
        flowed = repeat(len(begin), len(slices), True, region, [*begin, *slices, *outer])
    stacks |= dict(zip(stacked, flowed[len(begin) :], strict=True))
    found = dict(zip((*carried, *summed), flowed, strict=False))
    found |= {j: stacks[g] for j, g in sliced.items()}
    found |= {j: p.over_trips(stacks) for j, p in (*products.items(), *totals.items())}
    return tuple(found.get(j) for j in range(len(inputs)))


def _untransposed(value: Value) -> tuple[Value, bool]:
    op = value.node.op
    return (value.node.inputs[0], True) if isinstance(op, Permute) and op.axes == (1, 0) else (value, False)


def _product(value: Value) -> _Product | None:
    """The value as a product of two matrices, if it is one."""
    permutations: list[Permute] = []
    while isinstance(value.node.op, Permute):
        permutations.insert(0, value.node.op)
        value = value.node.inputs[0]
    if not isinstance(value.node.op, Matmul) or value.ndim != 2:
        return None
    left, right = value.node.inputs
    return _Product(left, right, tuple(permutations))


def _total(value: Value) -> _Total | None:
    """The value as the sum of another one, if it is one."""
    shape = value.shape
    if isinstance(value.node.op, Reshape):
        value = value.node.inputs[0]
    op = value.node.op
    return _Total(value.node.inputs[0], op.axes, shape) if isinstance(op, Sum) else None


def _linear(results: Sequence[Value], body: Graph, cotangents: Sequence[Value]) -> set[int]:
    """The nodes that depend on the cotangents."""
    linear = {id(v.node) for v in cotangents}
    for node in topological(results, stop=[v.node for v in (*body.inputs, *cotangents)]):
        if any(id(v.node) in linear for v in node.inputs):
            linear.add(id(node))
    return linear


def _needs(
    results: Sequence[Value], body: Graph, cotangents: Sequence[Value], linear: set[int], *, carries: int, xs: int
) -> _Needs:
    """Where the part of ``results`` that depends on the cotangents meets the part that the forward knows."""
    order = topological(results, stop=[v.node for v in (*body.inputs, *cotangents)])
    linear = linear | {id(v.node) for v in cotangents}
    varying = {id(v.node) for v in body.inputs[: 1 + carries + xs]}
    for node in order:
        if any(id(v.node) in varying for v in node.inputs):
            varying.add(id(node))
    place = {v: number for number, v in enumerate(body.inputs)}
    inside = {id(node) for node in body.nodes}
    needs = _Needs()
    pending = [v for node in order if id(node) in linear for v in node.inputs] + list(results)
    seen: set[Value] = set()
    pending.reverse()
    while pending:
        value = pending.pop()
        node, number = value.node, place.get(value)
        if id(node) in linear or value in seen:
            continue
        seen.add(value)
        is_cheap = node.op.is_view or (isinstance(node.op, e.Elementwise | e.Cast) and id(node) not in inside)
        if number is not None:
            if number > carries:
                (needs.slices if number <= carries + xs else needs.invariant).append(value)
            elif number > 0:
                needs.saved.append(value)
        elif is_cheap or not node.inputs:
            pending += reversed(node.inputs)
        elif id(node) not in varying:
            needs.invariant.append(value)
        else:
            needs.saved.append(value)
    return needs


def _region(results: Sequence[Value], inputs: Sequence[Value], mapping: Mapping[Value, Value]) -> Graph:
    order = topological(results, stop=[v.node for v in (*inputs, *mapping)])
    outputs = rewrite(Graph((), tuple(results), tuple(order)), lambda node, inputs: None, mapping=mapping)
    return Graph.of(inputs, outputs)


def _substituted(values: Sequence[Value], mapping: Mapping[Value, Value]) -> tuple[Value, ...]:
    order = topological(values, stop=[v.node for v in mapping])
    return rewrite(Graph((), tuple(values), tuple(order)), lambda node, inputs: None, mapping=mapping)
