"""Each pass: what it does to a graph, in text, and that an exact one changes no bit of random graphs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from telegrad import ops
from telegrad.errors import GraphError
from telegrad.ir import Graph, Origin, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.text import from_text, to_text
from telegrad.ir.value import origin
from telegrad.ir.verify import verify
from telegrad.ops.control import Checkpoint, CustomVjp, Gradient
from telegrad.ops.norm import Standardize
from telegrad_server.compiler.cse import common_subexpressions
from telegrad_server.compiler.fold import fold
from telegrad_server.compiler.gradients import gradients
from telegrad_server.compiler.inline import inline, remove_barriers
from telegrad_server.compiler.pipeline import LOWERING, OPTIMISATIONS, PASSES, optimise
from telegrad_server.compiler.rebuild import without_dead_code

from tests.compiler.graphs import NARROW, WIDE, RandomGraph, arrays_for, interpret, same_bits

VECTOR = Type((3,), t.float32)
EXACT = [step for step in OPTIMISATIONS if step.kind == "exact"]
ROUNDING = [step for step in OPTIMISATIONS if step.kind == "rounding"]


def graph(text: str) -> Graph:
    return from_text(text.strip())


def check_text(after: Graph, expected: str) -> None:
    verify(after)
    assert to_text(after) == to_text(graph(expected))


def count(g: Graph) -> Counter[str]:
    return Counter(node.op.name for node in g.nodes)


def ones(x: Value) -> Value:
    return ops.broadcast_to(x.literal(1, x.dtype), x.shape)


def test_gradients_become_the_backward_graph() -> None:
    before = graph("""
%0 = input[shape=(3,), dtype=float32]() : float32[3]
%1 = exp(%0) : float32[3]
%2 = multiply(%1, %0) : float32[3]
%3 = gradient[outputs=1](%2, %0, %0) : float32[3]
-> %2, %3
""")

    check_text(
        gradients(before),
        """
%0 = input[shape=(3,), dtype=float32]() : float32[3]
%1 = exp(%0) : float32[3]
%2 = multiply(%1, %0) : float32[3]
%3 = multiply(%0, %0) : float32[3]
%4 = multiply(%0, %1) : float32[3]
%5 = multiply(%3, %1) : float32[3]
%6 = add(%4, %5) : float32[3]
-> %2, %6
""",
    )


def test_the_backward_runs_in_the_order_in_which_it_was_derived() -> None:
    x = new_input(VECTOR)
    weights = [new_input(VECTOR) for _ in range(3)]
    y = x
    for w in weights:
        y = ops.tanh(y * w)
    found = Graph.of([x, *weights], Gradient(1).results(y, y, *weights))

    after = gradients(found)

    # the last layer's weight first: its gradient is computed before that of the layer below is begun
    made = [after.nodes.index(v.node) for v in after.outputs]
    assert made == sorted(made, reverse=True)


def test_the_gradient_of_a_value_with_respect_to_itself_is_the_cotangent() -> None:
    x, g = new_input(VECTOR), new_input(VECTOR)

    assert gradients(Graph.of([x, g], Gradient(1).results(x, g, x))).outputs == (g,)


def test_inline_replaces_regions_by_their_nodes() -> None:
    before = graph("""
%0 = input[shape=(3,), dtype=float32]() : float32[3]
%1 = checkpoint(%0) : float32[3]
    %0 = input[shape=(3,), dtype=float32]() : float32[3]
    %1 = exp(%0) : float32[3]
    %2 = sin(%1) : float32[3]
    -> %2
%2 = stop_gradient(%1) : float32[3]
-> %2
""")

    check_text(
        inline(before),
        """
%0 = input[shape=(3,), dtype=float32]() : float32[3]
%1 = exp(%0) : float32[3]
%2 = sin(%1) : float32[3]
-> %2
""",
    )


def test_inline_opens_nested_regions() -> None:
    def wrapped(depth: int) -> Graph:
        x = new_input(VECTOR)
        inner = ops.sin(x) if depth == 0 else Checkpoint()(ops.exp(x), regions=(wrapped(depth - 1),))
        return Graph.of([x], [inner])

    after = inline(wrapped(20))

    assert count(after) == {"input": 1, "exp": 20, "sin": 1}


def test_fold_computes_what_is_known_and_keeps_signed_zeros() -> None:
    before = graph("""
%0 = input[shape=(3,), dtype=float32]() : float32[3]
%1 = constant[value=0.0, dtype=float32]() : float32[]
%2 = negative(%1) : float32[]
%3 = constant[value=2.0, dtype=float32]() : float32[]
%4 = multiply(%3, %3) : float32[]
%5 = broadcast_to[shape=(3,)](%4) : float32[3]
%6 = add(%5, %5) : float32[3]
%7 = multiply(%0, %6) : float32[3]
%8 = add(%7, %2) : float32[3]
-> %8
""")

    check_text(
        fold(before),
        """
%0 = input[shape=(3,), dtype=float32]() : float32[3]
%1 = constant[value=-0.0, dtype=float32]() : float32[]
%2 = constant[value=8.0, dtype=float32]() : float32[]
%3 = broadcast_to[shape=(3,)](%2) : float32[3]
%4 = multiply(%0, %3) : float32[3]
%5 = add(%4, %1) : float32[3]
-> %5
""",
    )


def test_fold_joins_moves() -> None:
    before = graph("""
%0 = input[shape=(2, 3), dtype=float32]() : float32[2,3]
%1 = permute[axes=(1, 0)](%0) : float32[3,2]
%2 = permute[axes=(1, 0)](%1) : float32[2,3]
%3 = reshape[shape=(6,)](%2) : float32[6]
%4 = reshape[shape=(3, 2)](%3) : float32[3,2]
%5 = reshape[shape=(3, 2)](%4) : float32[3,2]
-> %5
""")

    check_text(
        fold(before),
        """
%0 = input[shape=(2, 3), dtype=float32]() : float32[2,3]
%1 = reshape[shape=(3, 2)](%0) : float32[3,2]
-> %1
""",
    )


@pytest.mark.parametrize("op", [ops.exp, ops.tanh, ops.sin])
def test_fold_leaves_to_the_device_what_devices_round_differently(op: object) -> None:
    x = new_input(VECTOR)
    y = ops.add(x, op(x.literal(0.3, t.float32)))  # type: ignore[operator]

    assert len(fold(Graph.of([x], [y]))) == 4


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -0.0, 1e-45, 16777217.0])
def test_fold_changes_no_special_number(number: float) -> None:
    x = new_input(Type((), t.float32))
    c = x.literal(number, t.float32)
    g = Graph.of([x], [-c, c + c, c * 0, c / c, ops.sqrt(c), ops.astype(c, t.float16), ops.isnan(c), ops.abs(c)])

    for before, after in zip(interpret(g, [np.float32(1)]), interpret(fold(g), [np.float32(1)]), strict=True):
        assert same_bits(before, after)


def test_cse_keeps_the_first_of_equal_nodes_and_its_origin() -> None:
    x = new_input(VECTOR)
    with origin(Origin(7)):
        first = ops.exp(x)
    with origin(Origin(8)):
        again = ops.exp(x)

    after = common_subexpressions(Graph.of([x], [first + again]))

    assert count(after) == {"input": 1, "exp": 1, "add": 1}
    assert [node.origin for node in after.nodes if node.op.name == "exp"] == [Origin(7)]


def test_cse_tells_zero_from_minus_zero() -> None:
    x = new_input(VECTOR)
    g = Graph.of([x], [x * x.literal(0.0, t.float32), x * x.literal(-0.0, t.float32)])

    assert len(common_subexpressions(g)) == len(g)


def test_cse_does_not_merge_a_recomputation() -> None:
    g = optimise(_checkpointed(layers=1), without=["remove_barriers"])

    assert count(g)["exp"] == 2


def test_barriers_are_gone_before_planning() -> None:
    g = optimise(_checkpointed(layers=1))

    assert count(g)["barrier"] == 0
    assert count(g)["exp"] == 2


def test_remove_barriers_returns_a_graph_without_any_as_it_is() -> None:
    x = new_input(VECTOR)
    g = Graph.of([x], [ops.exp(x)])

    assert remove_barriers(g) is g


def _checkpointed(layers: int, *, is_checkpointed: bool = True) -> Graph:
    x = new_input(Type((64, 64), t.float32))
    y = x
    for _ in range(layers):
        inner = new_input(x.type)
        region = Graph.of([inner], [ops.sin(ops.exp(ops.sin(ops.exp(inner) * 0.01)) * 0.01)])
        y = Checkpoint()(y, regions=(region,)) if is_checkpointed else region.inline([y])[0]
    return Graph.of([x], Gradient(1).results(y, ones(y), x))


def test_custom_vjp_uses_its_own_rule() -> None:
    x, inner, saved, g = (new_input(VECTOR) for _ in range(4))
    regions = (Graph.of([inner], [ops.exp(inner), inner]), Graph.of([saved, g], [ops.cos(saved) * g]))
    y = CustomVjp(1).results(x, regions=regions)[0]

    after = optimise(Graph.of([x], Gradient(1).results(y, ones(y), x)))

    assert count(after)["cos"] == 1
    assert count(after)["exp"] == 0


def test_gradient_of_gradient() -> None:
    x = new_input(Type((), t.float64))
    y = x * x * x * x
    one = x.literal(1.0, t.float64)
    first = Gradient(1)(y, one, x)
    second = Gradient(1)(first, one, x)
    third = Gradient(1)(second, one, x)

    found = interpret(optimise(Graph.of([x], [first, second, third])), [np.array(1.5)])

    np.testing.assert_allclose(found, [4 * 1.5**3, 12 * 1.5**2, 24 * 1.5])


def test_dead_code_goes_and_inputs_stay() -> None:
    x, unused = new_input(VECTOR), new_input(VECTOR)
    ops.exp(unused)
    y = ops.exp(x)
    g = Graph((x, unused), (y,), (x.node, unused.node, ops.sin(x).node, y.node))

    after = without_dead_code(g)

    assert after.nodes == (x.node, unused.node, y.node)


@pytest.mark.parametrize("sizes", [NARROW, WIDE])
@pytest.mark.parametrize("step", EXACT, ids=lambda step: step.name)
def test_an_exact_pass_changes_no_bit(step: object, sizes: tuple[int, int]) -> None:
    for seed in range(40):
        low = RandomGraph(seed, sizes=sizes).build(50)
        for lowering in LOWERING:
            low = lowering.run(low)
        arrays = arrays_for(low, seed)
        after = step.run(low)  # type: ignore[attr-defined]

        verify(after)
        for before, found in zip(interpret(low, arrays), interpret(after, arrays), strict=True):
            assert same_bits(before, found), f"seed {seed}"


def test_all_exact_passes_together_change_no_bit_and_keep_the_signature() -> None:
    for seed in range(60):
        g = RandomGraph(seed).build(60)
        low = optimise(g, without=[step.name for step in OPTIMISATIONS])
        after = optimise(g, without=[step.name for step in ROUNDING])
        arrays = arrays_for(g, seed)

        assert (after.inputs, after.output_types) == (g.inputs, g.output_types)
        for before, found in zip(interpret(low, arrays), interpret(after, arrays), strict=True):
            assert same_bits(before, found), f"seed {seed}"


def test_every_pass_says_what_it_may_change() -> None:
    assert {step.kind for step in PASSES} <= {"exact", "rounding"}
    assert len({step.name for step in PASSES}) == len(PASSES)


def test_a_graph_that_misses_an_input_is_refused() -> None:
    x, y = new_input(VECTOR), new_input(VECTOR)

    with pytest.raises(GraphError, match="not an input"):
        Graph.of([x], [x + y])


def test_a_joint_rule_becomes_its_parts_once_gradients_are_known() -> None:
    x = new_input(Type((4, 3), t.float64))
    y, _, var = Standardize((1,), 1e-5).results(x)
    before = Graph.of([x], [y, *Gradient(2).results(y, var, y * y, var, x)])

    after = gradients(before)

    assert count(after)["standardize_gradient"] == 1
    assert not {"standardize", "standardize_gradient"} & set(count(inline(after)))
    arrays = arrays_for(before, 0)
    for joint, parts in zip(interpret(after, arrays), interpret(inline(after), arrays), strict=True):
        np.testing.assert_allclose(joint, parts, rtol=1e-13, atol=1e-14)
