"""Loops and branches as parts of the graph: `scan`, `cond`, `switch`, `while_loop`, `fori_loop`. Called as in JAX.

A Python loop in a traced function is unrolled; these are one node whatever the length. Bodies may use tensors and
modules from outside, which get their gradients, and may be nested in each other and in every transform. Random
numbers drawn in a body are other ones in every trip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from telegrad.errors import GraphError, ShapeError
from telegrad.ir.graph import Graph, new_input, rewrite
from telegrad.ir.types import Type, bool_, int64
from telegrad.ir.value import Value
from telegrad.nest import flatten, unflatten
from telegrad.ops.loops import INDEX, Scan, Switch, While
from telegrad.region import as_tensor, home_of, in_trip, trace_region
from telegrad.tensor import Tensor
from telegrad.variable import Variable

__all__ = ["cond", "fori_loop", "scan", "switch", "while_loop"]


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """(the last carry, the ys stacked): ``carry, y = f(carry, x)`` for each slice x of the xs along their first axis.

    init, xs, carry and y are nests of tensors; the carry keeps its nest, shapes and dtypes. Without xs, x is None and
    ``length`` says how often. ``reverse`` goes from the last slice to the first. Differentiable to any order: the
    backward keeps, for every trip, what it needs of the forward; with `checkpoint` around the body, the carry alone.
    Raises GraphError if the carry changes its type, ShapeError if the xs differ in length.

    ::

        total, partial = tg.scan(lambda c, x: (c + x, c + x), tg.asarray(0.0), tg.asarray([1.0, 2.0, 3.0]))
    """
    carried, nest = _leaves(init)
    slices, slice_nest = _leaves(xs)
    trips = _length(slices, length)
    tensors = [*carried, *slices]
    home = home_of(tensors)
    out: list[Any] = []
    assigned: dict[Variable, Value] = {}
    updated: list[Variable] = []

    def body(parameters: list[Tensor]) -> list[Tensor]:
        index, values = parameters[0], parameters[1:]
        first, last = len(carried), len(carried) + len(updated)
        assigned.update({v: home.value_of(x) for v, x in zip(updated, values[first:last], strict=True)})
        with in_trip(index):
            result = f(unflatten(nest, values[:first]), unflatten(slice_nest, values[last:]))
        if not isinstance(result, tuple) or len(result) != 2:  # pyright: ignore[reportUnknownArgumentType, reportUnnecessaryComparison, reportUnnecessaryIsInstance]
            raise GraphError("scan: the function must return a pair, (carry, y)")
        after, y = result
        ys, y_nest = _leaves(y)
        out.append(y_nest)
        return [*_same_carry("scan", after, carried, nest), *(home.tensor(assigned[v]) for v in updated), *ys]

    rows = [Type(x.shape[1:], x.dtype) for x in slices]
    graph, operands = _traced(body, home, [INDEX, *(x.type for x in carried), *rows], tensors, assigned)
    if assigned:  # what a trip assigns, the next one reads: it is carried
        updated += assigned
        tensors = [*carried, *(home.tensor(home.value_of(v)) for v in updated), *slices]
        types = [INDEX, *(x.type for x in carried), *(v.type for v in updated), *rows]
        graph, operands = _traced(body, home, types, tensors, assigned)
    if not operands:
        raise GraphError("scan takes at least one tensor, as carry, as xs, or used by the function")
    if not graph.outputs:
        raise GraphError("scan: the function returns no tensor")
    first, last = len(carried), len(carried) + len(updated)
    results = Scan(trips, last, len(slices), reverse).results(*operands, regions=(graph,))
    for variable, value in zip(updated, results[first:last], strict=True):
        variable.assign(value)
    return unflatten(nest, list(results[:first])), unflatten(out[-1], list(results[last:]))


def fori_loop(lower: int, upper: int, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """The value after ``value = body_fun(i, value)`` for i from lower up to and without upper, Python integers.

    i is an int64 scalar tensor. Differentiable, being a `scan`.
    """
    trips = max(0, upper - lower)
    leaves, _ = _leaves(init_val)
    home = home_of(leaves)
    start = home.number(lower, int64)
    (_, value), _ = scan(lambda c, _: ((c[0] + 1, body_fun(c[0], c[1])), None), (start, init_val), length=trips)
    return value


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """true_fun(*operands) if pred, a bool scalar tensor, is true, else false_fun(*operands); only one is run.

    Both return the same nest, shapes and dtypes; GraphError if not. Differentiable to any order.

    ::

        tg.cond(x.sum() > 0, lambda x: x * 2, lambda x: -x, x)
    """
    flag = as_tensor(pred)
    if flag.shape != () or flag.dtype is not bool_:
        raise GraphError(f"cond: the predicate must be a bool scalar, not {flag.type}")
    return _choose("cond", flag, (false_fun, true_fun), operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """branches[index](*operands); index, an integer scalar tensor, is clipped to the branches. Only one is run.

    All return the same nest, shapes and dtypes; GraphError if not. Differentiable to any order.
    """
    if not branches:
        raise GraphError("switch takes at least one branch")
    return _choose("switch", as_tensor(index), tuple(branches), operands)


def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any, *, max_trips: int) -> Any:
    """The value after ``value = body_fun(value)`` as long as ``cond_fun(value)``, a bool scalar, is true.

    ``max_trips`` is the most it may take; a server must know what a graph can cost. A loop that has not ended by then
    raises ExecutionError. The derivative keeps what ``max_trips`` trips need, so for gradients keep it small.
    """
    carried, nest = _leaves(init_val)
    if not carried:
        raise GraphError("while_loop: the value holds no tensor")
    home = home_of(carried)
    types = [INDEX, *(x.type for x in carried)]

    def test(parameters: list[Tensor]) -> list[Tensor]:
        with in_trip(parameters[0]):
            return [as_tensor(cond_fun(unflatten(nest, parameters[1:])))]

    def body(parameters: list[Tensor]) -> list[Tensor]:
        with in_trip(parameters[0]):
            after = body_fun(unflatten(nest, parameters[1:]))
        return _same_carry("while_loop", after, carried, nest)

    regions, operands = _together(home, [(test, types), (body, types)], carried)
    return unflatten(nest, list(While(max_trips, len(carried)).results(*operands, regions=regions)))


# ---- tracing bodies


def _leaves(nest: Any) -> tuple[list[Tensor], Any]:
    leaves, structure = flatten(nest)
    return [as_tensor(x) for x in leaves], structure


def _length(slices: Sequence[Tensor], length: int | None) -> int:
    for x in slices:
        if x.ndim == 0:
            raise ShapeError(f"scan: xs must have a first axis to go along, not {x.type}")
    lengths = {x.shape[0] for x in slices} | ({length} if length is not None else set())
    if len(lengths) > 1:
        raise ShapeError(f"scan: the xs, and length if it is given, must agree; they say {sorted(lengths)}")
    if not lengths:
        raise GraphError("scan takes xs, or a length")
    trips = lengths.pop()
    if trips < 0:
        raise GraphError(f"scan: length {trips} must not be negative")
    return trips


def _same_carry(op: str, after: Any, before: Sequence[Tensor], nest: Any) -> list[Tensor]:
    leaves, structure = _leaves(after)
    if structure != nest:
        raise GraphError(f"{op}: the carry must keep its nest; it goes in as {nest} and comes out as {structure}")
    for number, (x, y) in enumerate(zip(before, leaves, strict=True)):
        if x.type != y.type:
            raise GraphError(f"{op}: the carry must keep its type; leaf {number} is {x.type} and becomes {y.type}")
    return leaves


Body = Callable[[list[Tensor]], list[Tensor]]


def _traced(
    body: Body,
    home: Any,
    types: Sequence[Type],
    tensors: Sequence[Tensor],
    assigned: dict[Variable, Value],
) -> tuple[Graph, list[Tensor]]:
    """The region of a body whose first parameter is the trip, and all its operands: the tensors and what it uses."""
    (graph,), operands = _together(home, [(body, types)], tensors, assigned)
    return graph, operands


def _together(
    home: Any,
    bodies: Sequence[tuple[Body, Sequence[Type]]],
    tensors: Sequence[Tensor],
    assigned: dict[Variable, Value] | None = None,
) -> tuple[tuple[Graph, ...], list[Tensor]]:
    """The regions of several bodies on the same operands: the tensors, and what any of them uses from outside."""
    wanted = [x.requires_grad for x in tensors]
    traced: list[tuple[Graph, tuple[Value, ...]]] = []
    for body, types in bodies:
        flags = [False] * (len(types) - len(wanted)) + wanted
        traced.append(trace_region(body, home, types, flags, assigned=assigned))
    outer = list(dict.fromkeys(v for _, used in traced for v in used))
    graphs = tuple(_with_inputs(graph, used, outer) for graph, used in traced)
    return graphs, [*tensors, *(home.tensor(v, requires_grad=v.type.dtype.is_float) for v in outer)]


def _with_inputs(graph: Graph, used: Sequence[Value], outer: Sequence[Value]) -> Graph:
    """The graph, whose last inputs stand for ``used``, with inputs for all of ``outer`` instead."""
    if list(used) == list(outer):
        return graph
    kept = len(graph.inputs) - len(used)
    last = dict(zip(used, graph.inputs[kept:], strict=True))
    fresh = [last.get(v) or new_input(v.type) for v in outer]
    outputs = rewrite(graph, lambda node, inputs: None)
    return Graph.of([*graph.inputs[:kept], *fresh], outputs)


def _choose(op: str, index: Tensor, branches: Sequence[Callable[..., Any]], operands: tuple[Any, ...]) -> Any:
    tensors, nest = _leaves(operands)
    home = home_of([index, *tensors])
    nests: list[Any] = []
    types = [x.type for x in tensors]

    def body_of(branch: Callable[..., Any]) -> Body:
        def body(parameters: list[Tensor]) -> list[Tensor]:
            leaves, structure = _leaves(branch(*unflatten(nest, parameters)))
            nests.append((structure, [x.type for x in leaves]))
            return leaves

        return body

    regions, given = _together(home, [(body_of(branch), types) for branch in branches], tensors)
    for number, (structure, found) in enumerate(nests):
        if structure != nests[0][0]:
            raise GraphError(
                f"{op}: the branches must return the same nest; 0 returns {nests[0][0]}, {number} {structure}"
            )
        if found != nests[0][1]:
            raise GraphError(
                f"{op}: branch 0 returns ({', '.join(map(str, nests[0][1]))}) and branch {number} "
                f"({', '.join(map(str, found))}); all must return the same types"
            )
    if not nests[0][1]:
        raise GraphError(f"{op}: the branches return no tensor")
    return unflatten(nests[0][0], list(Switch().results(index, *given, regions=regions)))
