"""Gradients graph to graph: what is not about a single rule."""

from __future__ import annotations

import time

import numpy as np
import pytest
from telegrad import ops
from telegrad.autodiff import expand_gradients, gradient
from telegrad.errors import DTypeError, GraphError
from telegrad.ir import Input, Value, new_input, topological
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.ops.control import Gradient
from telegrad.ops.elementwise import Add, Constant

from tests.ops.checks import call, check_gradients, evaluate, inputs_for


def test_contributions_of_all_uses_add_up() -> None:
    check_gradients(lambda x: x * x + ops.sin(x) * x - x / (x + 3.0), [np.array([0.5, 1.5])], name="uses", order=3)


def test_broadcasting_is_undone_on_both_sides() -> None:
    shapes = [(3, 1), (1, 4), (4,), (), (1, 1, 1)]
    arrays = [np.random.default_rng(i).uniform(0.5, 1.5, s) for i, s in enumerate(shapes)]

    check_gradients(lambda a, b, c, d, e: (a * b + c) / d - e * b, arrays, name="broadcast")


def test_several_outputs_with_their_own_cotangents() -> None:
    check_gradients(lambda x, y: [x * y, ops.sum(x), y], [np.array([1.0, 2.0]), np.array([3.0, -1.0])], name="several")


def test_the_gradient_of_a_value_with_respect_to_itself_is_the_cotangent() -> None:
    x, g = inputs_for([np.ones(2), np.ones(2)])

    assert gradient([x], [g], [x]) == (g,)


def test_the_same_value_may_be_asked_for_twice_and_be_an_output_twice() -> None:
    x, g = inputs_for([np.array([2.0]), np.array([1.0])])
    y = x * x

    first, second = gradient([y, y], [g, g], [x, x])

    found = evaluate([first, second], {x: np.array([2.0]), g: np.array([1.0])})
    assert [a.tolist() for a in found] == [[8.0], [8.0]]


def test_values_between_get_their_gradients_too() -> None:
    x, g = inputs_for([np.array([2.0]), np.array([1.0])])
    y = ops.exp(x)
    z = y * y

    gy, gx = gradient([z], [g], [y, x])

    found = evaluate([gy, gx], {x: np.array([0.5]), g: np.array([1.0])})
    np.testing.assert_allclose([a.item() for a in found], [2 * np.exp(0.5), 2 * np.exp(1.0)])


def test_what_does_not_depend_on_x_has_gradient_zero() -> None:
    x, y, g = inputs_for([np.ones(2), np.ones(2), np.ones(2)])

    (found,) = gradient([y * 2.0], [g], [x])

    assert evaluate([found], {})[0].tolist() == [0.0, 0.0]


def test_nothing_is_built_for_what_no_x_depends_on() -> None:
    x, y, g = inputs_for([np.ones(2), np.ones(2), np.ones(2)])
    constant = ops.exp(ops.sin(y))

    (found,) = gradient([x * constant], [g], [x])

    names = [n.op.name for n in topological([found]) if not isinstance(n.op, Input)]
    assert names == ["sin", "exp", "multiply"]


def test_integers_and_booleans_on_the_way_pass_no_gradient() -> None:
    def f(x: Value) -> Value:
        return ops.where(x > 0, x, 0.0) * ops.astype(ops.astype(x, t.int64), t.float64)

    check_gradients(f, [np.array([1.3, -0.4, 2.7])], name="integers")


@pytest.mark.slow
def test_a_chain_of_100_000_ops_differentiates_and_runs_without_recursion() -> None:
    start = time.process_time()
    x, g = inputs_for([np.array(1.0), np.array(1.0)])
    y = x
    for i in range(50_000):
        y = Add()(ops.sin(y) if i % 2 else ops.cos(y), x)

    (found,) = gradient([y], [g], [x])
    order = topological([found])

    assert len(order) > 200_000
    (value,) = evaluate([found], {x: np.array(0.1), g: np.array(1.0)})
    assert np.isfinite(value)
    del y, found, order
    assert time.process_time() - start < 30  # generous: it takes about four seconds


def test_a_value_with_100_000_uses_is_summed_without_recursion() -> None:
    x, g = inputs_for([np.array(1.0), np.array(1.0)])
    y = x
    for _ in range(50_000):
        y = y + x

    (found,) = gradient([y], [g], [x])

    assert evaluate([found], {x: np.array(1.0), g: np.array(1.0)})[0] == 50_001


def test_a_diamond_is_walked_once() -> None:
    y = x = inputs_for([np.array(1.0)])[0]
    for _ in range(64):  # 2**64 paths
        y = y + y
    (found,) = gradient([y], [ops.ones_like(y)], [x])

    assert len(topological([found])) < 300
    assert evaluate([found], {x: np.array(1.0)})[0] == 2.0**64


def test_equal_programs_give_equal_gradients_in_the_same_order() -> None:
    def names() -> list[str]:
        x, g = inputs_for([np.ones(2), np.ones(2)])
        y = ops.sin(x) * x + ops.exp(x)
        return [n.op.name for n in topological(gradient([y], [g], [x]))]

    assert names() == names()


def test_gradient_nodes_expand_innermost_first() -> None:
    def third(x: Value) -> Value:
        y = x**4
        for _ in range(3):
            (y,) = Gradient(1).results(y, ops.ones_like(y), x)
        return y

    assert call(third, np.array([2.0])).tolist() == [48.0]


def test_expanding_a_graph_without_gradients_changes_nothing() -> None:
    x = new_input(Type((2,), t.float64))
    y = ops.exp(x)

    assert expand_gradients([y]) == (y,)


def test_an_op_without_a_rule_is_named() -> None:
    x = new_input(Type((4,), t.float64))
    y = Gradient(1).results(x, x, x)[0]

    with pytest.raises(GraphError, match="gradient has no gradient") as caught:
        gradient([y], [y], [x])
    assert caught.value.reason == "GRADIENT_MISSING"


def test_gradients_are_only_for_floating_point_values() -> None:
    i = new_input(Type((2,), t.int64))

    with pytest.raises(DTypeError, match="int64 has no gradient"):
        Gradient(1).results(i, i, i)


def test_a_cotangent_of_another_type_is_refused() -> None:
    x, g = new_input(Type((2,), t.float64)), new_input(Type((3,), t.float64))

    with pytest.raises(GraphError, match=r"cotangent of a float64\[2\] must be a float64\[2\], not a float64\[3\]"):
        Gradient(1).results(x, g, x)


def test_a_constant_needs_no_rule() -> None:
    x, g = inputs_for([np.ones(2), np.ones(2)])
    one = x.literal(1.0, t.float64)

    (found,) = gradient([x * one], [g], [x])

    assert isinstance(one.node.op, Constant) and found.type == x.type
