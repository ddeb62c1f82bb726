"""Transforms: functions of functions. Named and called as in JAX; they work in a trace and outside.

Differentiation costs nothing here: a `Gradient` node says what is wanted, and the server writes the
backward graph.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

from telegrad import context, ops
from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir.graph import Graph, new_input
from telegrad.ir.value import Value
from telegrad.nest import flatten, unflatten
from telegrad.ops.control import Alias, Checkpoint, CustomVjp, Gradient, zeros_like
from telegrad.region import as_tensor, home_of, trace_region
from telegrad.tensor import Tensor
from telegrad.variable import Variable


def _fresh(leaves: Sequence[Any], *, where: str) -> list[Tensor]:
    """Tensors of a new identity, so that only uses through these arguments count."""
    fresh: list[Tensor] = []
    for x in leaves:
        tensor = as_tensor(x)
        if not tensor.dtype.is_float:
            raise DTypeError(f"{where} differentiates floating-point tensors, not {tensor.type}")
        alias = Alias()(tensor)
        fresh.append(alias)
    return fresh


def _numbers(argnums: int | Sequence[int], count: int) -> tuple[int, ...]:
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for n in numbers:
        if not -count <= n < count:
            raise GraphError(f"argnums {n} is out of range for {count} arguments")
    return tuple(n % count for n in numbers)


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns (f's value, its gradient with respect to the arguments in ``argnums``).

    f returns a scalar, or with ``has_aux`` a pair (scalar, anything). The gradient has the nest of the argument.
    Raises ShapeError if f's result is no scalar.
    """

    @wraps(f)
    def with_gradient(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        numbers = _numbers(argnums, len(args))
        replaced = list(args)
        nests = [flatten(args[n]) for n in numbers]
        fresh = [_fresh(leaves, where="grad") for leaves, _ in nests]
        for n, (_, structure), tensors in zip(numbers, nests, fresh, strict=True):
            replaced[n] = unflatten(structure, tensors)
        with _differentiating():
            result = f(*replaced, **kwargs)
        value, aux = result if has_aux else (result, None)
        value = as_tensor(value)
        if value.shape != ():
            raise ShapeError(f"grad takes a function with a scalar result, not {value.type}; use vjp, or .sum()")
        xs = [x for tensors in fresh for x in tensors]
        gradients = iter(_gradient([value], [ops.ones_like(value)], xs))
        found = [unflatten(s, [next(gradients) for _ in leaves]) for leaves, s in nests]
        grads = found[0] if isinstance(argnums, int) else tuple(found)
        return ((value, aux), grads) if has_aux else (value, grads)

    return with_gradient


def picked(
    f: Callable[..., Any], argnums: int | Sequence[int], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], Callable[..., Any]]:
    """The arguments in ``argnums``, and f as a function of these alone."""
    numbers = _numbers(argnums, len(args))

    def of_these(*chosen: Any) -> Any:
        replaced = list(args)
        for n, x in zip(numbers, chosen, strict=True):
            replaced[n] = x
        return f(*replaced, **kwargs)

    return [args[n] for n in numbers], of_these


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of the scalar function f. With ``has_aux``, (gradient, aux).

    ::

        tg.grad(lambda x: (x * x).sum())(tg.asarray([1.0, 2.0]))   # [2., 4.]
    """
    both = value_and_grad(f, argnums, has_aux)

    @wraps(f)
    def only_gradient(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return only_gradient


def vjp(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """(f(*primals), pullback), with ``has_aux`` and aux; ``pullback(cotangents)`` gives a tuple, one gradient a primal.

    Cotangents have the nest and types of f's result.
    """
    nests = [flatten(p) for p in primals]
    fresh = [_fresh(leaves, where="vjp") for leaves, _ in nests]
    with _differentiating():
        result = f(*[unflatten(s, xs) for (_, s), xs in zip(nests, fresh, strict=True)])
    result, aux = result if has_aux else (result, None)
    outs, structure = flatten(result)
    home = home_of(outs)
    # values, and not the handles: reading the result before the pullback is called must not cut the way back
    ends = [home.value_of(y) for y in outs]
    starts = [home.value_of(x) for tensors in fresh for x in tensors]

    def pullback(cotangents: Any) -> tuple[Any, ...]:
        gs, other = flatten(cotangents)
        if other != structure:
            raise GraphError("the cotangents of vjp must have the nest of the function's result")
        pairs = [(home.tensor(y), as_tensor(g)) for y, g in zip(ends, gs, strict=True) if y.dtype.is_float]
        xs = [home.tensor(x) for x in starts]
        found = iter(_gradient([y for y, _ in pairs], [g for _, g in pairs], xs))
        return tuple(unflatten(s, [next(found) for _ in leaves]) for leaves, s in nests)

    return (result, pullback, aux) if has_aux else (result, pullback)


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], *, has_aux: bool = False) -> Any:
    """(f(*primals), the derivative of f in the direction of the tangents), with ``has_aux`` and aux.

    Tangents have the nests and types of the primals; the derivative has that of f's result, zeros where it is not
    floating-point. It is the transpose of the pullback, which is linear: the graph that stays is a forward one.
    """
    if len(primals) != len(tangents):
        raise GraphError(f"jvp: {len(primals)} primals and {len(tangents)} tangents; give one for each")
    result, pullback, *aux = vjp(f, *primals, has_aux=has_aux)
    outs, structure = flatten(result)
    floats = [y for y in outs if y.dtype.is_float]

    def transposed(cotangents: list[Tensor]) -> tuple[Any, ...]:
        rest = iter(cotangents)
        return pullback(unflatten(structure, [next(rest) if y.dtype.is_float else ops.zeros_like(y) for y in outs]))

    _, push = vjp(transposed, [_own_zeros(y) for y in floats])
    pushed = iter(push(tuple(tangents))[0])
    derivative = unflatten(structure, [next(pushed) if y.dtype.is_float else ops.zeros_like(y) for y in outs])
    return (result, derivative, *aux)


def _own_zeros(y: Tensor) -> Tensor:
    """Zeros like y which each replica has for its own: what is derived by them is not reduced over the replicas."""
    from telegrad.replicas import replica_index

    trace, zeros = context.TRACE.get(), ops.zeros_like(y)
    if trace is None or trace.replication is None:
        return zeros
    return zeros * ops.astype(replica_index(), y.dtype)


def _gradient(ys: Sequence[Tensor], gs: Sequence[Tensor], xs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return Gradient(len(ys)).results(*ys, *gs, *xs) if xs and ys else ()


@contextmanager
def _differentiating() -> Generator[None, None, None]:
    """What is sent inside keeps its definition, so that a gradient still finds its way."""
    token = context.DEFINITIONS.set(True)
    try:
        yield
    finally:
        context.DEFINITIONS.reset(token)


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, with its inner values computed again in the backward instead of kept: less memory, one more forward.

    Random numbers repeat exactly. What f uses from outside gets its gradient too; running statistics are updated once.
    """

    @wraps(f)
    def recomputed(*args: Any) -> Any:
        leaves, structure = flatten(args)
        tensors = [as_tensor(x) for x in leaves]
        home = home_of(tensors)
        out: list[Any] = []
        assigned: dict[Variable, Value] = {}

        def body(xs: list[Tensor]) -> list[Tensor]:
            results, shape = flatten(f(*unflatten(structure, xs)))
            out.append(shape)
            return [*(as_tensor(x) for x in results), *(home.tensor(v) for v in assigned.values())]

        graph, outer = trace_region(
            body, home, [x.type for x in tensors], [x.requires_grad for x in tensors], assigned=assigned
        )
        operands = [*tensors, *(home.tensor(v, requires_grad=v.type.dtype.is_float) for v in outer)]
        if not operands:
            raise GraphError("checkpoint takes a function of at least one tensor")
        results = list(Checkpoint().results(*operands, regions=(graph,)))
        for variable, value in zip(assigned, results[len(results) - len(assigned) :], strict=True):
            variable.assign(value)
        return unflatten(out[0], results)

    return recomputed


class custom_vjp:
    """f with a derivative rule of its own, set by ``defvjp(forward, backward)``.

    ``forward(*args)`` returns (result, residuals); ``backward(residuals, cotangents)`` returns a tuple with one
    gradient for each argument (None for one that has none). Nothing from outside gets a gradient.

    ::

        @tg.custom_vjp
        def clipped(x):
            return x
        clipped.defvjp(lambda x: (x, None), lambda _, g: (tg.clip(g, -1.0, 1.0),))
    """

    def __init__(self, f: Callable[..., Any]) -> None:
        self._f = f
        self._forward: Callable[..., Any] | None = None
        self._backward: Callable[..., Any] | None = None

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        """Set the rule."""
        self._forward, self._backward = forward, backward

    def __call__(self, *args: Any) -> Any:
        if self._forward is None or self._backward is None:
            raise GraphError("custom_vjp has no rule yet; call defvjp(forward, backward)")
        leaves, structure = flatten(args)
        tensors = [as_tensor(x) for x in leaves]
        home = home_of(tensors)
        nests: list[Any] = []
        first, outer = trace_region(
            lambda xs: self._trace_forward(unflatten(structure, xs), nests),
            home,
            [x.type for x in tensors],
            [False] * len(leaves),
        )
        count, out, residuals = nests
        operands = [*tensors, *(home.tensor(v).detach() for v in outer)]
        types = first.output_types

        def backward(xs: list[Tensor]) -> list[Tensor]:
            assert self._backward is not None
            saved, gs = xs[: len(types) - count], xs[len(types) - count :]
            grads = self._backward(unflatten(residuals, saved), unflatten(out, gs))
            found = _checked(grads, tensors, args)
            return found + [ops.zeros_like(x) for x in operands[len(tensors) :] if x.dtype.is_float]

        second, strangers = trace_region(backward, home, [*types[count:], *types[:count]], [False] * len(types))
        if strangers:
            operands += [home.tensor(v).detach() for v in strangers]
            first, second = _with_more_residuals(first, second, count, len(strangers))
        results = CustomVjp(count).results(*operands, regions=(first, second))
        return unflatten(out, list(results[:count]))

    def _trace_forward(self, args: Any, nests: list[Any]) -> list[Tensor]:
        assert self._forward is not None
        result, residuals = self._forward(*args)
        outs, out = flatten(result)
        saved, rest = flatten(residuals)
        nests[:] = [len(outs), out, rest]
        return [as_tensor(x) for x in [*outs, *saved]]


def _with_more_residuals(forward: Graph, backward: Graph, outputs: int, count: int) -> tuple[Graph, Graph]:
    """The regions of a custom rule whose backward uses ``count`` values from outside, its last inputs: the forward
    takes them, too, and hands them on as residuals. They have no gradient."""
    given = list(backward.inputs[len(backward.inputs) - count :])
    own = backward.inputs[: len(backward.inputs) - count]
    residuals, cotangents = own[: len(own) - outputs], own[len(own) - outputs :]
    more = [new_input(v.type) for v in given]
    zeros = [zeros_like(v) for v in given if v.dtype.is_float]
    return (
        Graph.of([*forward.inputs, *more], [*forward.outputs, *more]),
        Graph.of([*residuals, *given, *cotangents], [*backward.outputs, *zeros]),
    )


def _checked(grads: Any, tensors: Sequence[Tensor], args: tuple[Any, ...]) -> list[Tensor]:
    """The gradients for the floating-point tensors, zeros where the rule gave None."""
    if not isinstance(grads, tuple) or len(grads) != len(args):  # pyright: ignore[reportUnknownArgumentType]
        raise GraphError(f"the backward rule of custom_vjp must return a tuple of {len(args)} gradients")
    flat: list[Any] = []
    for g, a in zip(grads, args, strict=True):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        flat += [None] * len(flatten(a)[0]) if g is None else flatten(g)[0]
    found: list[Tensor] = []
    for g, x in zip(flat, tensors, strict=True):
        if not x.dtype.is_float:
            continue
        gradient = ops.zeros_like(x) if g is None else as_tensor(g)
        if gradient.type != x.type:
            raise ShapeError(f"the backward rule of custom_vjp gives {gradient.type} as the gradient of {x.type}")
        found.append(gradient)
    return found
