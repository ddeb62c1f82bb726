"""vmap, and what it brings: jacobian and hessian. Called as in JAX, in a trace and outside, in any order.

A function of one example is traced once, as a region, and its graph becomes that of a batch (`telegrad.ops.batching`).
What it uses from outside is shared by all examples; random numbers are each example's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from telegrad import ops
from telegrad.autodiff import expand_gradients
from telegrad.creation import arange, eye
from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir.graph import Graph
from telegrad.ir.types import Type, normalize_axis
from telegrad.nest import flatten, unflatten
from telegrad.ops.loops import INDEX
from telegrad.region import as_tensor, home_of, in_trip, trace_region
from telegrad.tensor import Tensor
from telegrad.transforms import grad, picked, vjp

Axes = Any
"""An axis for all leaves of an argument, None for an argument that is not mapped, or a nest of these."""


def vmap(
    f: Callable[..., Any], in_axes: Axes = 0, out_axes: Axes = 0, axis_size: int | None = None
) -> Callable[..., Any]:
    """f, written for one example, on a batch: the arguments are mapped along ``in_axes``, results get ``out_axes``.

    An axis is an integer for every argument, or a tuple with one for each, which is an integer, None for an argument
    that all examples share, or a nest of these like the argument. Keyword arguments are mapped along axis 0.
    ``axis_size`` is needed where nothing is mapped. An op without a rule of its own is run example by example.

    Raises ShapeError if the mapped axes differ in size.

    ::

        per_example = tg.vmap(tg.grad(loss), in_axes=(None, 0, 0))(weights, x, y)     # one gradient for each example
    """

    @wraps(f)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        return _mapped(f, args, kwargs, in_axes, out_axes, axis_size, has_own_numbers=True)

    return mapped


def _mapped(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    in_axes: Axes,
    out_axes: Axes,
    axis_size: int | None,
    *,
    has_own_numbers: bool,
) -> Any:
    from telegrad.ops.batching import batched  # loads every family of ops: on first use

    if isinstance(in_axes, (list, tuple)) and len(in_axes) != len(args):  # pyright: ignore[reportUnknownArgumentType]
        raise GraphError(f"vmap: in_axes names {len(in_axes)} arguments of {len(args)}")  # pyright: ignore[reportUnknownArgumentType]
    axes = _spread(tuple(in_axes) if isinstance(in_axes, list) else in_axes, args, "in_axes")  # pyright: ignore[reportUnknownArgumentType]
    axes += [0] * len(flatten(kwargs)[0])
    leaves, structure = flatten((args, kwargs))
    tensors = [as_tensor(x) for x in leaves]
    places = [None if a is None else normalize_axis(a, x.ndim, op="vmap") for a, x in zip(axes, tensors, strict=True)]
    size = _size(tensors, places, axis_size)
    fronts = [x if not a else ops.moveaxis(x, a, 0) for x, a in zip(tensors, places, strict=True)]
    flags = [a is not None for a in places]
    types = [Type(x.shape[1:], x.dtype) if flag else x.type for x, flag in zip(fronts, flags, strict=True)]
    home = home_of(tensors)
    out: list[Any] = []

    def body(parameters: list[Tensor]) -> list[Tensor]:
        given, keywords = unflatten(structure, parameters[1:])
        if has_own_numbers:
            with in_trip(parameters[0]):
                result = f(*given, **keywords)
        else:
            result = f(*given, **keywords)
        found, nest = flatten(result)
        out.append(nest)
        return [as_tensor(x) for x in found]

    wanted = [False, *(x.requires_grad for x in tensors)]
    graph, outer = trace_region(body, home, [INDEX, *types], wanted)
    outputs = expand_gradients(graph.outputs, stop=[v.node for v in graph.inputs])
    graph = Graph.of(graph.inputs, outputs)
    shared = [home.tensor(v, requires_grad=v.type.dtype.is_float) for v in outer]
    numbers = arange(size, dtype=INDEX.dtype)
    results, marks = batched(
        graph, [numbers, *fronts, *shared], [True, *flags, *(False for _ in outer)], size, anchor=numbers
    )
    nest = unflatten(out[0], results)
    placed = [
        _placed(y, mark, axis, size)
        for y, mark, axis in zip(results, marks, _spread(out_axes, nest, "out_axes"), strict=True)
    ]
    return unflatten(out[0], placed)


def _placed(y: Tensor, is_batched: bool, axis: int | None, size: int) -> Tensor:
    if axis is None:
        if is_batched:
            raise GraphError("vmap: out_axes is None for a result that differs from example to example")
        return y
    if not is_batched:
        y = ops.broadcast_to(ops.expand_dims(y, axis=0), (size, *y.shape))
    return ops.moveaxis(y, 0, axis) if axis else y


def _spread(axes: Axes, nest: Any, what: str) -> list[int | None]:
    """The axis of each leaf of the nest; an integer or None stands for all leaves below it."""
    if axes is None or isinstance(axes, int):
        return [axes] * len(flatten(nest)[0])
    if isinstance(axes, dict) and isinstance(nest, dict) and set(axes) == set(nest):  # pyright: ignore[reportUnknownArgumentType]
        return [a for key in nest for a in _spread(axes[key], nest[key], what)]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(axes, (list, tuple)) and isinstance(nest, (list, tuple)) and len(axes) == len(nest):  # pyright: ignore[reportUnknownArgumentType]
        return [a for part, x in zip(axes, nest, strict=True) for a in _spread(part, x, what)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    raise GraphError(f"vmap: {what} {axes!r} does not have the nest of what it belongs to")


def _size(tensors: Sequence[Tensor], axes: Sequence[int | None], axis_size: int | None) -> int:
    sizes = {x.shape[a] for x, a in zip(tensors, axes, strict=True) if a is not None}
    if axis_size is not None:
        sizes.add(axis_size)
    if len(sizes) > 1:
        raise ShapeError(f"vmap: the mapped axes must have one size, not {sorted(sizes)}")
    if not sizes:
        raise GraphError("vmap maps at least one argument, or takes axis_size")
    return sizes.pop()


def jacobian(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the derivative of f by the arguments in ``argnums``.

    For a result y and an argument x it is a tensor of y.shape + x.shape; for nests, a nest of y's with a nest of x's in
    it (a tuple of these if ``argnums`` is one). It is computed row by row of y, all rows in one pass. With ``has_aux``
    f returns a pair, and (derivative, aux) comes back.

    ::

        tg.jacobian(lambda x: x * x)(tg.asarray([1.0, 2.0]))       # [[2., 0.], [0., 4.]]
    """

    @wraps(f)
    def derivative(*args: Any, **kwargs: Any) -> Any:
        chosen, call = picked(f, argnums, args, kwargs)
        result, _, *aux = vjp(call, *chosen, has_aux=has_aux)
        ys, structure = flatten(result)
        found = [_rows(call, chosen, ys, number, has_aux=has_aux) for number in range(len(ys))]
        nest = unflatten(structure, [rows[0] if isinstance(argnums, int) else rows for rows in found])
        return (nest, aux[0]) if has_aux else nest

    return derivative


def _rows(f: Callable[..., Any], args: Sequence[Any], ys: Sequence[Tensor], number: int, *, has_aux: bool) -> Any:
    """The derivative of one leaf of f's result by each of the arguments."""
    y = ys[number]
    if not y.dtype.is_float:
        raise DTypeError(f"jacobian: a result of dtype {y.dtype} has no derivative")

    def pulled_back(row: Tensor) -> tuple[Any, ...]:
        result, pullback, *_ = vjp(f, *args, has_aux=has_aux)
        leaves, structure = flatten(result)
        gs = [row if i == number else ops.zeros_like(leaf) for i, leaf in enumerate(leaves)]
        return pullback(unflatten(structure, gs))

    basis = ops.reshape(eye(y.size, dtype=y.dtype), (y.size, *y.shape))
    rows = _mapped(pulled_back, (basis,), {}, 0, 0, None, has_own_numbers=False)
    leaves, structure = flatten(rows)
    return unflatten(structure, [ops.reshape(x, (*y.shape, *x.shape[1:])) for x in leaves])


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the second derivative of the scalar function f: of shape x.shape + x.shape.

    ::

        tg.hessian(lambda x: (x ** 3).sum())(tg.asarray([1.0, 2.0]))     # [[6., 0.], [0., 12.]]
    """
    return jacobian(grad(f, argnums, has_aux), argnums, has_aux)
