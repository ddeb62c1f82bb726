"""Regions: the graph of a Python function on fresh inputs, for the ops that own one (a body, a branch, a rule)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from telegrad import context
from telegrad.ir.graph import Graph, new_input
from telegrad.ir.types import Type
from telegrad.ir.value import Node, Value
from telegrad.lazy import extract_region
from telegrad.tensor import Tensor
from telegrad.variable import Variable


def as_tensor(x: Any) -> Tensor:
    """x, or a tensor of the number or array that it is."""
    from telegrad.creation import asarray

    return x if isinstance(x, Tensor) else asarray(x)


def home_of(tensors: Sequence[Tensor]) -> Any:
    """Where new tensors go: the trace under way, else the session of the first of these, else the current one."""
    if not tensors:
        return context.TRACE.get() or context.current_session()
    return context.TRACE.get() or tensors[0].session


def trace_region(
    f: Callable[[list[Tensor]], list[Tensor]],
    home: Any,
    types: Sequence[Type],
    wanted: Sequence[bool],
    *,
    assigned: dict[Variable, Value] | None = None,
) -> tuple[Graph, tuple[Value, ...]]:
    """f on fresh inputs of these types as a closed graph, and the outer values that it uses as further inputs.

    ``wanted`` says which inputs require a gradient. ``assigned`` takes the values of variables that f assigns; without
    it that is refused.
    """
    parameters = [new_input(type) for type in types]
    inside: list[Node] = []
    token, other = context.REGION.set(inside), context.ASSIGNED.set((*context.ASSIGNED.get(), assigned))
    try:
        traced = [home.tensor(v, requires_grad=w) for v, w in zip(parameters, wanted, strict=True)]
        outs = [home.value_of(x) for x in f(traced)]
    finally:
        context.REGION.reset(token)
        context.ASSIGNED.reset(other)
    return extract_region(outs, parameters, inside)


@contextmanager
def in_trip(index: Tensor) -> Generator[None, None, None]:
    """Random numbers drawn inside depend on the number of the trip."""
    token = context.TRIPS.set((*context.TRIPS.get(), index))
    try:
        yield
    finally:
        context.TRIPS.reset(token)
