"""A function written out gives what it gives otherwise, and has no replicas and no loops of few trips left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Function, Graph, Replication, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ops.control import Gradient
from telegrad.ops.loops import INDEX, Loop, Scan
from telegrad.ops.replicas import AllReduce
from telegrad_server.compiler import unrolled as under_test
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.compiler.unrolled import unrolled
from telegrad_server.executors.array import numpy_executor

from tests.compiler.graphs import interpret

WIDTH = 3
NUMBER = Type((), t.float64)


def loop_of(length: int, *, reverse: bool) -> Function:
    """The gradients of a loop within a loop, by both of what they go over."""
    trip, carry, row = new_input(INDEX), new_input(NUMBER), new_input(Type((WIDTH,), t.float64))
    inner_trip, inner, one, most = new_input(INDEX), new_input(NUMBER), new_input(NUMBER), new_input(NUMBER)
    after = ops.sin(inner + one * ops.astype(inner_trip, t.float64)) * most
    inside = Graph.of([inner_trip, inner, one, most], [after, after * 2.0])
    end, ys = Scan(WIDTH, 1, 1, not reverse).results(carry, row, carry, regions=(inside,))
    body = Graph.of([trip, carry, row], [end * ops.astype(trip, t.float64), ops.sum(ys)])
    start, x = new_input(NUMBER), new_input(Type((length, WIDTH), t.float64))
    last, sums = Scan(length, 1, 1, reverse).results(start, x, regions=(body,))
    total = last + ops.sum(sums)
    return Function(Graph.of([start, x], [total, sums, *Gradient(1).results(total, ops.ones_like(total), start, x)]))


def replicated(rows: int, replicas: int) -> Function:
    """A weight's step against its mean gradient over the replicas."""

    def graph(own: int) -> Graph:
        x, w = new_input(Type((own, WIDTH), t.float64)), new_input(Type((WIDTH, WIDTH), t.float64))
        loss = ops.mean(ops.tanh(x @ w) ** 2)
        (slope,) = Gradient(1).results(loss, ops.ones_like(loss), w)
        return Graph.of([x, w], [mean(loss), w - mean(slope) * 0.1])

    most = -(-rows // replicas)
    rest = graph(most - 1) if rows % replicas else None
    return Function(graph(most), ((1, 1),), Replication(replicas, rows, (0,), (), rest))


def mean(x: Value) -> Value:
    return AllReduce("mean")(x)


@pytest.mark.parametrize(
    "function", [loop_of(4, reverse=False), loop_of(4, reverse=True), replicated(8, 4), replicated(7, 3)]
)
def test_it_gives_what_the_function_gives(function: Function) -> None:
    plan = compile_function(function)
    rng = np.random.default_rng(0)
    arrays: list[Any] = [rng.normal(size=type.shape) for type in plan.input_types]

    graph = unrolled(function)

    assert not any(isinstance(node.op, Loop | AllReduce) for node in graph.nodes)
    for x, y in zip(interpret(graph, arrays), numpy_executor().run(plan, arrays), strict=True):
        assert np.allclose(x, y, rtol=1e-12, atol=1e-12)


def test_what_would_be_too_large_stays_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    function = loop_of(100, reverse=False)
    monkeypatch.setattr(under_test, "MOST_NODES", 10_000)

    kinds = {type(node.op) for node in unrolled(function).nodes}

    assert Scan in kinds


def test_a_loop_without_a_trip_is_left_alone() -> None:
    function = loop_of(0, reverse=False)

    assert any(isinstance(node.op, Scan) for node in unrolled(function).nodes)
