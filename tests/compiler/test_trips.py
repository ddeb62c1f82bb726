"""Which scans are cut by rows, and that what their threads write never meets in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from telegrad import ops
from telegrad.ir import Function, Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ops.control import Gradient
from telegrad.ops.loops import INDEX, Scan
from telegrad.ops.recurrent import affine, gru_step, lstm_step, rnn_step
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.compiler.plan import Place, Plan

ROWS, SIZE, TRIPS = 12, 20, 4000

Body = Callable[[Value, Value, Value, Value], Sequence[Value]]
"""The next state and what is stacked, from the trip's number, the state, the x and a constant."""


def plan_of(body: Body, *, size: int = SIZE) -> Plan:
    types = [Type((ROWS, size), t.float32), Type((TRIPS, ROWS, size), t.float32), Type((size, size), t.float32)]
    inputs = [new_input(type) for type in types]
    fresh = [
        new_input(INDEX),
        *[new_input(Type(shape, t.float32)) for shape in ((ROWS, size), (ROWS, size), (size, size))],
    ]
    region = Graph.of(fresh, list(body(*fresh)))
    graph = Graph.of(inputs, Scan(TRIPS, 1, 1).results(*inputs, regions=(region,)))
    (inner,) = [inner for step in compile_function(Function(graph), kernels="c").steps for inner in step.plans]
    return inner


def rows_of(plan: Plan) -> int:
    assert plan.trip is not None
    return plan.trip.rows


CUT: dict[str, Body] = {
    "a recurrent layer": lambda i, h, x, w: [ops.tanh(h @ w + x)],
    "the weight is transposed": lambda i, h, x, w: [ops.tanh(h @ ops.matrix_transpose(w) + x)],
    "parts of a row": lambda i, h, x, w: [ops.concat([h[:, 7:] * x[:, 7:], ops.exp(h[:, :7])], axis=1)],
    "a softmax of each row": lambda i, h, x, w: [ops.exp(h - ops.max(h, axis=1, keepdims=True)) * x],
    "narrower and narrower": lambda i, h, x, w: [
        ops.tanh(ops.exp(h @ w) @ w[:, :7] @ w[:7, :5] @ w[:5, :3] @ w[:3] + x)
    ],
    "a constant meets all rows": lambda i, h, x, w: [h * w[0] + x * w[1, 2]],
}  # fmt: skip
WHOLE: dict[str, Body] = {
    "rows are added up": lambda i, h, x, w: [h + x - ops.sum(h, axis=0)],
    "rows change places": lambda i, h, x, w: [ops.concat([h[1:] + 0, h[:1] + 0], axis=0) * x],
    "a state is the right operand": lambda i, h, x, w: [ops.exp(x @ ops.matrix_transpose(h)) @ h],
    "the number is used": lambda i, h, x, w: [h * ops.astype(i, t.float32) + x],
    "rows are columns": lambda i, h, x, w: [ops.reshape(ops.reshape(h, (SIZE, ROWS)) * 2, (ROWS, SIZE)) + x],
}


@pytest.mark.parametrize("name", CUT)
def test_trips_are_cut_where_each_row_goes_its_own_way(name: str) -> None:
    assert rows_of(plan_of(CUT[name])) == ROWS


@pytest.mark.parametrize("name", WHOLE)
def test_trips_are_whole_where_rows_meet(name: str) -> None:
    assert rows_of(plan_of(WHOLE[name])) == 0


def test_rows_that_are_as_many_as_columns_are_not_taken_for_them() -> None:
    assert rows_of(plan_of(lambda i, h, x, w: [ops.matrix_transpose(h) * x], size=ROWS)) == 0
    assert rows_of(plan_of(lambda i, h, x, w: [h * ops.matrix_transpose(x)], size=ROWS)) == ROWS
    assert rows_of(plan_of(lambda i, h, x, w: [ops.exp(x) @ h], size=ROWS)) == 0


def backward(carries: int, gates: int, step: Callable[..., Sequence[Value]]) -> list[Plan]:
    """The loops of a recurrent layer with a bias inside, and of its gradients."""
    state, wide = (ROWS, SIZE), gates * SIZE
    shapes = [*[state] * carries, (TRIPS, ROWS, wide), (wide, SIZE), (wide,)]
    inputs = [new_input(Type(shape, t.float32)) for shape in shapes]
    part = new_input(Type(shapes[carries][1:], t.float32))
    number, states = new_input(INDEX), [new_input(v.type) for v in inputs[:carries]]
    weights = [new_input(v.type) for v in inputs[carries + 1 :]]
    after = step(part, states, *weights)
    region = Graph.of([number, *states, part, *weights], [*after, after[0]])
    outs = Scan(TRIPS, carries, 1).results(*inputs, regions=(region,))
    loss = ops.sum(ops.square(outs[-1]))
    graph = Graph.of(inputs, Gradient(1).results(loss, loss.literal(1.0, t.float32), *inputs))
    return [inner for step in compile_function(Function(graph), kernels="c").steps for inner in step.plans]


def test_the_backward_of_recurrent_layers_is_cut_as_well() -> None:
    lstm = backward(2, 4, lambda x, now, w, b: lstm_step(x + affine(now[0], w, b), now[1]))
    gru = backward(1, 3, lambda x, now, w, b: [gru_step(x, affine(now[0], w, b), now[0])])
    rnn = backward(1, 1, lambda x, now, w, b: [rnn_step(x, affine(now[0], w, b), "tanh")])

    assert [rows_of(plan) for plan in (*lstm, *gru, *rnn)] == [ROWS] * 6


@pytest.mark.parametrize("name", CUT)
def test_memory_is_used_again_by_values_of_the_same_size_alone(name: str) -> None:
    plan = plan_of(CUT[name])
    places = {(slot.offset, slot.type.nbytes) for slot in plan.slots if slot.place is Place.ARENA}

    assert all(a + size <= b for (a, size), (b, _) in pairwise(sorted(places)))
