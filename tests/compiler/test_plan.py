"""Plans: order, lifetimes, memory. Checked against what a plan must never do, and in text where it is small."""

from __future__ import annotations

import pytest
from telegrad import ops
from telegrad.errors import TooExpensive
from telegrad.ir import Function, Graph, Origin, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.value import origin
from telegrad.ops.control import Checkpoint, Gradient
from telegrad.ops.convolution import Convolution
from telegrad_server.compiler.arena import ALIGNMENT, Arena, aligned
from telegrad_server.compiler.limits import Limits
from telegrad_server.compiler.pipeline import compile_function, optimise
from telegrad_server.compiler.plan import Place, Plan, make_plan

from tests.compiler.graphs import WIDE, RandomGraph

VECTOR = Type((256,), t.float32)


def plan_of(inputs: list[Value], outputs: list[Value]) -> Plan:
    return compile_function(Function(Graph.of(inputs, outputs)))


def ones(x: Value) -> Value:
    return ops.broadcast_to(x.literal(1, x.dtype), x.shape)


def chain(length: int, x: Value) -> Value:
    for _ in range(length):
        x = ops.matmul(x, x)
    return x


def test_a_plan_in_text() -> None:
    x, w = new_input(Type((4, 8), t.float32)), new_input(Type((8, 8), t.float32))
    y = ops.relu(ops.matmul(x, w) + 1)
    plan = plan_of([x, w], [ops.sum(y, axis=0), ops.matrix_transpose(y)])

    assert plan.text() == "\n".join(
        [
            "arena 128 bytes, peak 292 bytes",
            "%0 input : float32[4,8]",
            "%1 input : float32[8,8]",
            "%2 @0 = matmul(%0, %1) : float32[4,8]",
            "%3 constant = constant[value=1.0, dtype=float32]() : float32[]",
            "%4 @0 over %2 = add(%2, %3) : float32[4,8]",
            "%5 @0 over %4 = relu(%4) : float32[4,8]",
            "%6 result = sum[axes=(0,)](%5) : float32[8]",
            "%7 view of %5 [1, 8] = permute[axes=(1, 0)](%5) : float32[8,4]",
            "%8 result = cast[dtype=float32](%7) : float32[8,4]; ends %5",
            "-> %6, %8",
        ]
    )


def test_contributions_to_a_gradient_add_up_in_place() -> None:
    x = new_input(VECTOR)
    y = ops.sin(x) + ops.cos(x) + ops.tanh(x) + ops.exp(x)
    plan = plan_of([x], list(Gradient(1).results(y, ones(y), x)))

    adds = [step for step in plan.steps if step.op.name == "add"]

    # all but the last, which writes the result
    assert [step.over >= 0 for step in adds] == [True] * (len(adds) - 1) + [False]


def test_values_that_live_at_once_do_not_overlap() -> None:
    for seed in range(60):
        plan = make_plan(Function(optimise(RandomGraph(seed, sizes=WIDE).build(60))))
        check_memory(plan)


def check_memory(plan: Plan) -> None:
    """Every arena slot is free when it is taken, whole when it is read, and freed once."""
    live: dict[int, tuple[int, int]] = {}
    written = {*plan.inputs}

    def base(i: int) -> int:
        return plan.slots[i].base if plan.slots[i].place is Place.VIEW else i

    for step in plan.steps:
        for i in step.inputs:
            assert base(i) in written, "read before it is written"
            assert plan.slots[base(i)].place is not Place.ARENA or base(i) in live, "read after it ended"
        if step.over >= 0:
            start, _ = live.pop(base(step.over))
            assert plan.slots[step.outputs[0]].offset == start
            assert plan.slots[step.outputs[0]].type == plan.slots[step.over].type
        for i in step.outputs:
            written.add(i)
            slot = plan.slots[i]
            if slot.place is Place.ARENA:
                start, end = slot.offset, slot.offset + aligned(slot.type.nbytes)
                assert start % ALIGNMENT == 0
                assert end <= plan.arena_bytes
                assert all(end <= a or b <= start for a, b in live.values()), "two live values overlap"
                live[i] = (start, end)
        for i in step.frees:
            del live[i]
    assert not live, "a value never ends"


def test_results_are_whole_and_outside_the_arena() -> None:
    for seed in range(60):
        plan = make_plan(Function(optimise(RandomGraph(seed).build(60))))
        for i in plan.outputs:
            slot = plan.slots[i]
            home = plan.slots[slot.base] if slot.place is Place.VIEW else slot
            assert home.place is not Place.ARENA
            assert home.type.nbytes == slot.type.nbytes


def test_the_memory_of_a_long_forward_chain_is_constant() -> None:
    x = new_input(Type((32, 32), t.float32))

    assert plan_of([x], [chain(10, x)]).arena_bytes == plan_of([x], [chain(1000, x)]).arena_bytes == 2 * 4096


def test_the_backward_of_a_chain_needs_the_kept_values_and_little_more() -> None:
    x = new_input(Type((32, 32), t.float32))
    w = [new_input(x.type) for _ in range(20)]
    y = x
    for v in w:
        y = ops.tanh(ops.matmul(y, v))
    plan = plan_of([x, *w], list(Gradient(1).results(y, ones(y), *w)))

    assert plan.arena_bytes <= (20 + 4) * 4096


def test_a_parameter_is_updated_as_soon_as_its_gradient_is_there() -> None:
    x = new_input(Type((8, 64), t.float32))
    w = [new_input(Type((64, 64), t.float32)) for _ in range(30)]
    y = x
    for v in w:
        y = ops.tanh(ops.matmul(y, v))
    new = [v - g * 0.1 for v, g in zip(w, Gradient(1).results(y, ones(y), *w), strict=True)]
    plan = plan_of([x, *w], new)

    # one gradient of a weight at a time, not thirty
    assert plan.arena_bytes <= 2 * w[0].type.nbytes + 40 * x.type.nbytes


def test_a_checkpoint_trades_memory_for_work() -> None:
    def trained(*, is_checkpointed: bool) -> Plan:
        x = new_input(Type((64, 64), t.float32))
        y = x
        for _ in range(10):
            inner = new_input(x.type)
            z = inner
            for _ in range(6):
                z = ops.matmul(ops.tanh(z), ops.sin(z))
            region = Graph.of([inner], [z])
            y = Checkpoint()(y, regions=(region,)) if is_checkpointed else region.inline([y])[0]
        return plan_of([x], list(Gradient(1).results(y, ones(y), x)))

    plain, checkpointed = trained(is_checkpointed=False), trained(is_checkpointed=True)

    assert checkpointed.peak_bytes < plain.peak_bytes / 3
    assert plain.flops < checkpointed.flops < 1.5 * plain.flops


def test_peak_bytes_are_arena_results_and_constants() -> None:
    for seed in range(30):
        plan = make_plan(Function(optimise(RandomGraph(seed).build(40))))
        kept = [s.type.nbytes for s in plan.slots if s.place in (Place.RESULT, Place.CONSTANT)]
        assert plan.peak_bytes == plan.arena_bytes + sum(kept)


def test_updates_and_signature_survive() -> None:
    w, x = new_input(VECTOR), new_input(VECTOR)
    loss = ops.sum(w * x)
    function = Function(Graph.of([w, x], [loss, w - x, loss]), ((0, 1),))

    plan = compile_function(function)

    assert plan.updates == ((0, 1),)
    assert plan.input_types == (VECTOR, VECTOR)
    assert plan.output_types == (loss.type, VECTOR, loss.type)
    assert plan.outputs[0] == plan.outputs[2]


def test_a_value_beyond_the_limit_is_refused_with_op_bytes_and_node() -> None:
    x = new_input(VECTOR)
    with origin(Origin(3)):
        y = ops.broadcast_to(x, (1000, 256)) * 2.0

    with pytest.raises(TooExpensive) as caught:
        compile_function(Function(Graph.of([x], [ops.sum(y)])), limits=Limits(tensor_bytes=10**6))

    assert caught.value.reason == "OP_OUTPUT_LIMIT"
    assert caught.value.details == {
        "op": "multiply",
        "node": 3,
        "is_backward": False,
        "bytes": 1_024_000,
        "limit": 10**6,
    }


def test_a_view_beyond_the_limit_takes_no_memory_but_may_not_leave() -> None:
    x = new_input(Type((), t.float32))
    wide = ops.broadcast_to(x, (1000, 1000))
    limits = Limits(tensor_bytes=10**6)

    compile_function(Function(Graph.of([x], [ops.sum(wide)])), limits=limits)
    with pytest.raises(TooExpensive):
        compile_function(Function(Graph.of([x], [wide])), limits=limits)


def test_work_beyond_the_limit_is_refused() -> None:
    x = new_input(Type((1000, 1000), t.float32))

    with pytest.raises(TooExpensive) as caught:
        compile_function(Function(Graph.of([x], [chain(10, x)])), limits=Limits(flops=10**10))

    assert (caught.value.reason, caught.value.details["op"]) == ("OP_COST_LIMIT", "matmul")


def test_the_arena_merges_what_is_freed_and_grows_at_its_end() -> None:
    arena = Arena()
    a, b, c = arena.take(64), arena.take(64), arena.take(64)

    arena.give(a, 64)
    arena.give(c, 64)
    arena.give(b, 64)

    assert (a, b, c) == (0, 64, 128)
    assert arena.take(100) == 0
    assert arena.take(64) == 128
    assert arena.top == 192
    arena.give(128, 64)
    assert arena.take(1000) == 128  # the free block at the end grew


def test_the_arena_takes_the_smallest_block_that_fits() -> None:
    arena = Arena()
    offsets = [arena.take(size) for size in (256, 64, 128, 64)]
    arena.give(offsets[0], 256)
    arena.give(offsets[2], 128)

    assert arena.take(128) == offsets[2]
    assert arena.take(192) == offsets[0]


def test_an_op_that_would_work_in_too_many_bytes_is_refused_though_its_result_is_small() -> None:
    x, w = new_input(Type((1, 1, 4), t.float32)), new_input(Type((1, 1, 2), t.float32))
    far = 1 << 30
    y = Convolution((far,), (far,), (far,), (1,))(x, w)
    assert y.size == 3

    with pytest.raises(TooExpensive, match="to work in"):
        compile_function(Function(Graph.of([x, w], [y])), limits=Limits(tensor_bytes=10**6))
    plan = compile_function(Function(Graph.of([x, w], [Convolution((1,), (8,), (8,), (1,))(x, w)])))
    assert plan.peak_bytes >= 20 * 4
