"""Graphs cut into parts: every part finds what it needs, the bits are those of one plan, and 1F1B holds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.ir.graph import Function, Graph, new_input
from telegrad.ir.types import Type, float32, int64
from telegrad.ir.value import Value
from telegrad.lazy import Argument, Version
from telegrad.ops import elementwise as e
from telegrad.ops import exp, matmul, tanh
from telegrad.ops.control import Gradient
from telegrad.ops.linalg import matrix_transpose
from telegrad.ops.parts import MicroBatch, MoveTo
from telegrad.ops.reduce import Sum
from telegrad.ops.shape import BroadcastTo
from telegrad.wire.codec import decode_function, encode_function
from telegrad_server.compiler.parts import Cut, Key, one_forward_one_backward
from telegrad_server.compiler.pipeline import compile_function, compile_parts
from telegrad_server.executors.array import numpy_executor

Places = Sequence[int | None]


def square(n: int = 4) -> Value:
    return new_input(Type((n, n), float32))


def cut_of(inputs: Sequence[Value], outputs: Sequence[Value], places: Places, *, updates: Any = ()) -> Cut:
    return compile_parts(Function(Graph.of(inputs, outputs), updates), tuple(places))


def keys(cut: Cut) -> list[tuple[int, int, int]]:
    return [tuple(part.key) for part in cut.parts]


def ops_of(cut: Cut, worker: int) -> list[str]:
    return [n.op.name for part in cut.parts if part.key.worker == worker for n in part.function.graph.body]


def run_in_parts(cut: Cut, operands: Sequence[Any]) -> list[Any]:
    """The results, each worker having nothing but what it made and what it was brought."""
    executor = numpy_executor()
    there: dict[tuple[int, int], Any] = {}
    for i, x in enumerate(operands):
        maker = cut.makers[i]
        for worker in cut.workers | {0} if maker is None else {maker}:
            there[i, worker] = x

    def bring(i: int, worker: int) -> Any:
        if (i, worker) not in there:
            maker = cut.makers[i]
            assert maker is not None
            assert maker != worker, "a part runs before what it needs"
            there[i, worker] = there[i, maker]
        return there[i, worker]

    for part in cut.parts:
        again = decode_function(encode_function(part.function))  # as another worker gets it
        given = [bring(i, part.key.worker) for i in part.inputs]
        for i, x in zip(part.outputs, executor.run(compile_function(again), given), strict=True):
            there[i, part.key.worker] = x
    return [bring(i, worker) for i, worker in cut.outputs]


# ---- where


def test_a_node_runs_where_its_operands_are() -> None:
    x, w, v = square(), square(), square()
    h = matmul(x, w)

    cut = cut_of([x, w, v], [matmul(h, v)], (0, 1, 2))

    assert keys(cut) == [(1, -1, 0), (2, -1, 1)]
    assert cut.outputs == ((4, 2),)


def test_what_is_marked_runs_there_and_the_mark_is_gone() -> None:
    x = square()

    cut = cut_of([x], [exp(MoveTo(2)(tanh(x)))], (0,))

    assert (ops_of(cut, 0), ops_of(cut, 2)) == (["tanh"], ["exp"])


def test_a_number_does_not_decide_where_a_tensor_is_used() -> None:
    x, w = square(), square()
    norm = Sum((0, 1))(MoveTo(2)(w))

    cut = cut_of([x, w], [x * norm], (1, 1))

    assert ops_of(cut, 1) == ["multiply"]
    assert ops_of(cut, 2) == ["sum"]


def test_what_lives_on_a_worker_draws_the_ops_on_it_even_from_a_higher_one() -> None:
    x, w = square(), square()

    cut = cut_of([x, w], [matmul(exp(MoveTo(2)(x)), matrix_transpose(w))], (0, 1))

    assert ops_of(cut, 1) == ["permute", "matmul"]


def test_constants_are_made_where_they_are_used() -> None:
    x, w = square(), square()
    one = BroadcastTo((4, 4))(x.literal(1, float32))

    cut = cut_of([x, w], [x + one, w + one], (0, 1))

    assert keys(cut) == [(0, -1, 0), (1, -1, 0)]
    assert all(cut.makers[i] == part.key.worker for part in cut.parts for i in part.inputs)


def test_what_a_call_brings_along_is_no_reason_to_move() -> None:
    rate, w = new_input(Type((), float32)), square()

    cut = cut_of([rate, w], [w * rate], (None, 1))

    assert keys(cut) == [(1, -1, 0)]
    assert cut.makers[0] is None


def test_an_update_ends_where_the_variable_lives() -> None:
    v, x = square(), square()

    cut = cut_of([v, x], [exp(MoveTo(2)(x))], (1, 0), updates=((0, 0),))

    assert cut.outputs == ((2, 1),)
    assert cut.makers[2] == 2
    assert cut.workers == {0, 1, 2}


def test_a_gradient_goes_back_to_where_the_value_is() -> None:
    x, w = square(), square()
    y = matmul(tanh(x), w)  # an implicit move of tanh(x)
    seed = BroadcastTo((4, 4))(y.literal(1, float32))
    gx, gw = Gradient(1).results(y, seed, x, w)

    cut = cut_of([x, w], [gx, gw], (0, 1))

    assert [(cut.makers[i], worker) for i, worker in cut.outputs] == [(0, 0), (1, 1)]
    assert [name for name in ops_of(cut, 1) if name == "matmul"] == ["matmul", "matmul"]


def test_an_input_that_is_a_result_needs_no_part() -> None:
    x = square()

    cut = cut_of([x], [MoveTo(1)(x), x], (0,))

    assert cut.parts == ()
    assert cut.outputs == ((0, 1), (0, 0))


def test_a_view_is_made_again_and_does_not_travel() -> None:
    x = new_input(Type((2, 3), float32))
    wide = BroadcastTo((100, 2, 3))(tanh(x))

    cut = cut_of([x], [exp(MoveTo(1)(wide))], (0,))

    (moved,) = [i for part in cut.parts for i in part.inputs if cut.makers[i] != part.key.worker]
    assert cut.types[moved] == Type((2, 3), float32)


def test_a_chain_of_views_of_any_length_is_no_recursion() -> None:
    x = square()
    y = tanh(x)
    for i in range(5000):
        y = matrix_transpose(y) if i % 2 else BroadcastTo((4, 4))(y)

    cut = cut_of([x], [exp(MoveTo(1)(y))], (0,))

    assert [part.key.worker for part in cut.parts] == [0, 1]


# ---- the bits


def graph_at_random(rng: random.Random) -> tuple[list[Value], list[Value], list[int | None]]:
    inputs = [square() for _ in range(4)] + [new_input(Type((), float32))]
    places: list[int | None] = [rng.choice([0, 1, 2]) for _ in range(4)] + [None]
    values = list(inputs[:4])
    for _ in range(rng.randint(3, 25)):
        x, y = rng.choice(values), rng.choice(values)
        values.append(
            rng.choice(
                [
                    lambda x=x, y=y: matmul(x, y),
                    lambda x=x, y=y: x + y,
                    lambda x=x: tanh(x),
                    lambda x=x: matrix_transpose(x),
                    lambda x=x: x * inputs[4],
                    lambda x=x: MoveTo(rng.randint(0, 2))(x),
                    lambda x=x: MicroBatch(rng.randint(0, 2))(x),
                    lambda x=x: BroadcastTo((4, 4))(Sum((0,))(x)) * 0.1,
                    lambda x=x: x - BroadcastTo((4, 4))(x.literal(2, float32)),
                ]
            )()
        )
    outputs = [tanh(v) for v in values[-3:]]
    loss = Sum((0, 1))(outputs[0] + outputs[1])
    outputs += list(Gradient(1).results(loss, loss.literal(1, float32), *inputs[:4]))
    return inputs, outputs, places


@pytest.mark.parametrize("seed", range(40))
def test_parts_have_the_bits_of_the_whole(seed: int) -> None:
    inputs, outputs, places = graph_at_random(random.Random(seed))
    function = Function(Graph.of(inputs, outputs))
    operands = [np.random.default_rng(seed + i).normal(size=v.shape).astype(np.float32) for i, v in enumerate(inputs)]

    whole = numpy_executor().run(compile_function(function), operands)
    parts = run_in_parts(compile_parts(function, tuple(places)), operands)

    for j, (a, b) in enumerate(zip(parts, whole, strict=True)):
        assert np.array_equal(a, b, equal_nan=True), (seed, j)


# ---- one forward, one backward


def pipeline(stages: int, batches: int) -> dict[Key, set[Key]]:
    """The parts of a pipeline: the last stage does both at once, gradients add up from the first micro-batch on."""
    found: dict[Key, set[Key]] = {}
    last = stages - 1
    for b in range(batches):
        for s in range(stages):
            found[Key(s, b, s)] = {Key(s - 1, b, s - 1)} if s else set()
        for s in range(last):
            back = Key(s, b, 2 * last - s)
            found[back] = {Key(s + 1, b, 2 * last - s - 1), Key(s, b, s)}
            if b:
                found[back].add(Key(s, b - 1, back.level))
    return found


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
@pytest.mark.parametrize("batches", [1, 2, 4, 16])
def test_forward_and_backward_take_turns(stages: int, batches: int) -> None:
    parts = pipeline(stages, batches)

    order = one_forward_one_backward(parts)

    assert sorted(order) == sorted(parts)
    at = {key: i for i, key in enumerate(order)}
    assert all(at[before] < at[key] for key, after in parts.items() for before in after)
    for stage in range(stages):
        alive, most = 0, 0
        for key in [key for key in order if key.worker == stage]:
            is_whole = stage == stages - 1
            alive += key.level == stage
            most = max(most, alive)
            alive -= is_whole or key.level > stage
        assert most == min(stages - stage, batches)


def test_the_order_of_three_stages_is_that_of_the_paper() -> None:
    order = one_forward_one_backward(pipeline(3, 5))

    def of(stage: int) -> str:
        return " ".join(f"{'F' if k.level == stage else 'B'}{k.batch}" for k in order if k.worker == stage)

    assert of(0) == "F0 F1 F2 B0 F3 B1 F4 B2 B3 B4"
    assert of(2) == "F0 F1 F2 F3 F4"  # forward and backward at once


def test_parts_that_no_order_by_turns_fits_are_run_all_the_same() -> None:
    # two workers that each begin with the other's second micro-batch
    parts = {Key(0, 0, 1): {Key(1, 1, 0)}, Key(1, 1, 0): set(), Key(1, 0, 1): {Key(0, 1, 0)}, Key(0, 1, 0): set()}

    order = one_forward_one_backward(parts)

    assert sorted(order) == sorted(parts)
    assert order.index(Key(1, 1, 0)) < order.index(Key(0, 0, 1))


def traced(step: Callable[..., Any], *args: Any) -> tuple[Function, list[int | None]]:
    """The function of a traced step, and where its inputs live."""
    step(*args)
    ((compiled,),) = step._compiled[tg.asarray(0).session].values()  # type: ignore[attr-defined]
    places: list[int | None] = []
    for source in compiled.prepared.sources:
        if isinstance(source, Version):
            places.append(source.variable.worker or 0)
        else:
            places.append(0 if isinstance(source, Argument) else None)
    return decode_function(compiled.prepared.data), places


@pytest.mark.parametrize("micro_batches", [2, 8])
def test_a_stage_keeps_the_activations_of_as_many_micro_batches_as_there_are_stages_behind_it(
    micro_batches: int,
) -> None:
    with tg.connect(backend="numpy", new=True):
        stages: list[nn.Module] = []
        for k in range(3):
            with tg.on(k):
                stages.append(nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 16)))
        model = nn.Sequential(*stages)
        optimizer = optim.Adam(model.parameters(), lr=0.1)

        @tg.function
        def step(x: tg.Tensor) -> tg.Tensor:
            loss = tg.pipeline(lambda x: (model(x) ** 2).mean(), micro_batches=micro_batches)(x)
            optimizer.minimize(loss)
            return loss

        function, places = traced(step, np.ones((64, 16), np.float32))
    cut = compile_parts(function, tuple(places))

    rows = 64 // micro_batches
    for stage in range(3):
        most = most_held(cut, stage, lambda type: type.shape == (rows, 64))
        assert most == (min(2 - stage + 1, micro_batches) if stage < 2 else 0)


def most_held(cut: Cut, worker: int, counts: Callable[[Type], bool]) -> int:
    """How many values that count one worker holds between its parts, if each is freed after its last use."""
    parts = [part for part in cut.parts if part.key.worker == worker]
    held: set[int] = set()
    most = 0
    for number, part in enumerate(parts):
        held |= {i for i in part.outputs if counts(cut.types[i])}
        most = max(most, len(held))
        later = {i for other in parts[number + 1 :] for i in other.inputs}
        held &= later
    return most


def test_gradients_add_up_from_the_first_micro_batch_on() -> None:
    with tg.connect(backend="numpy", new=True):
        with tg.on(1):
            w = tg.Parameter(np.ones((16, 16), np.float32))

        @tg.function
        def step(x: tg.Tensor) -> tg.Tensor:
            loss = tg.pipeline(lambda x: ((x @ w) ** 2).mean(), micro_batches=4)(x)
            loss.backward()
            return loss

        function, places = traced(step, np.ones((32, 16), np.float32))
    cut = compile_parts(function, tuple(places))

    def gradients(part: Any) -> int:
        return sum(type == Type((16, 16), float32) for type in part.function.graph.output_types)

    assert [part.key.batch for part in cut.parts if part.key.worker == 1] == [0, 1, 2, 3]
    assert all(gradients(part) == 1 for part in cut.parts if part.key.worker == 1)


def test_integers_have_a_place_too() -> None:
    i = new_input(Type((3,), int64))

    cut = cut_of([i], [e.Cast(float32)(MoveTo(1)(i))], (0,))

    assert ops_of(cut, 1) == ["cast"]
