"""Checkpoint, custom_vjp, barriers, aliases and constants in the graph: values and gradients, to second order."""

from __future__ import annotations

import numpy as np
import pytest
from telegrad import ops
from telegrad.autodiff import expand_gradients, gradient
from telegrad.errors import GraphError
from telegrad.ir import Graph, Value, new_input, topological
from telegrad.ir import types as t
from telegrad.ir.op import result_types
from telegrad.ir.types import Type
from telegrad.ops.control import Alias, Barrier, Checkpoint, CustomVjp, stop_gradient
from telegrad.ops.elementwise import Add, Exp

from tests.ops.checks import WrongGradient, call, check_gradients, evaluate, inputs_for

X = np.array([0.5, -1.0, 2.0])
Y = np.array([1.5, 0.3, -0.7])
VECTOR = Type((3,), t.float64)


def region(f: object, *types: Type) -> Graph:
    inputs = tuple(new_input(type) for type in types)
    outputs = f(*inputs)  # type: ignore[operator]
    return Graph.of(inputs, outputs if isinstance(outputs, tuple) else (outputs,))


# ---- checkpoint


def two_results(x: Value, y: Value) -> tuple[Value, Value]:
    inner = ops.sin(x) * y
    return ops.exp(inner), inner * x


def test_checkpoint_changes_no_value_and_no_gradient() -> None:
    graph = region(two_results, VECTOR, VECTOR)

    def wrapped(x: Value, y: Value) -> tuple[Value, ...]:
        return Checkpoint().results(x, y, regions=(graph,))

    for plain, again in zip(call(two_results, X, Y), call(wrapped, X, Y), strict=True):
        assert plain.tolist() == again.tolist()
    check_gradients(wrapped, [X, Y], name="checkpoint", order=2)


def test_checkpoint_computes_its_values_again_behind_a_fence() -> None:
    graph = region(lambda x: ops.exp(ops.sin(x)), VECTOR)
    x, g = inputs_for([X, X])
    (y,) = Checkpoint().results(x, regions=(graph,))

    nodes = [n.op.name for n in topological(gradient([y], [g], [x]))]

    assert nodes.count("sin") == 1 and nodes.count("barrier") == 1 and "checkpoint" not in nodes


def test_checkpoints_nest() -> None:
    inner = region(lambda x: ops.sin(x) * x, VECTOR)
    outer = region(lambda x: ops.exp(Checkpoint()(x, regions=(inner,))), VECTOR)

    check_gradients(lambda x: Checkpoint()(x, regions=(outer,)), [X], name="nested", order=3, tolerance=1e-5)


def test_a_checkpoint_whose_result_is_used_twice_or_not_at_all() -> None:
    graph = region(two_results, VECTOR, VECTOR)

    def first_only(x: Value, y: Value) -> Value:
        a, _ = Checkpoint().results(x, y, regions=(graph,))
        return a * a + a

    check_gradients(first_only, [X, Y], name="first only")


def test_a_checkpoint_passes_integers_without_gradients() -> None:
    graph = region(lambda x, i: ops.take(x, i), VECTOR, Type((2,), t.int64))

    check_gradients(lambda x, i: Checkpoint()(x, i, regions=(graph,)), [X, np.array([2, 0])], name="integers")


@pytest.mark.parametrize("regions", [(), (region(Exp(), VECTOR), region(Exp(), VECTOR))])
def test_a_checkpoint_owns_one_region(regions: tuple[Graph, ...]) -> None:
    with pytest.raises(GraphError, match="owns one region"):
        result_types(Checkpoint(), (VECTOR,), regions)


def test_operands_must_fit_the_region() -> None:
    with pytest.raises(GraphError, match=r"the region takes \(float64\[3\]\), got \(float64\[2\]\)"):
        result_types(Checkpoint(), (Type((2,), t.float64),), (region(Exp(), VECTOR),))


def test_an_op_without_regions_refuses_one() -> None:
    with pytest.raises(GraphError, match="region"):
        result_types(Add(), (VECTOR, VECTOR), (region(Exp(), VECTOR),))


# ---- custom_vjp


def squared(rule: object, residuals: int = 1) -> tuple[Graph, Graph]:
    """x**2 with a rule of one's own; the residual is x."""
    forward = region(lambda x: (x * x, x) if residuals else (x * x,), VECTOR)
    backward = region(rule, *([VECTOR] * residuals), VECTOR)
    return forward, backward


def test_custom_vjp_uses_the_given_rule() -> None:
    regions = squared(lambda x, g: g * x * 3.0)

    x, g = inputs_for([X, Y])
    y = CustomVjp(1).results(x, regions=regions)[0]
    (found,) = gradient([y], [g], [x])

    assert evaluate([y], {x: X})[0].tolist() == (X * X).tolist()
    assert evaluate([found], {x: X, g: Y})[0].tolist() == (Y * X * 3.0).tolist()
    with pytest.raises(WrongGradient):
        check_gradients(lambda x: CustomVjp(1).results(x, regions=regions)[0], [X], name="wrong on purpose", order=1)


def test_custom_vjp_differentiates_its_rule_for_second_order() -> None:
    regions = squared(lambda x, g: g * x * 2.0)

    check_gradients(lambda x: CustomVjp(1).results(x, regions=regions)[0], [X], name="custom", order=3, tolerance=1e-5)


def test_custom_vjp_of_several_operands_and_results() -> None:
    forward = region(lambda x, i, y: (x * y, ops.sin(x), x, y), VECTOR, Type((3,), t.int64), VECTOR)
    backward = region(lambda x, y, g, h: (g * y + h * ops.cos(x), g * x), VECTOR, VECTOR, VECTOR, VECTOR)

    def f(x: Value, i: Value, y: Value) -> tuple[Value, ...]:
        return CustomVjp(2).results(x, i, y, regions=(forward, backward))[:2]

    check_gradients(f, [X, np.array([1, 2, 3]), Y], name="several")
    check_gradients(lambda x, i, y: f(x, i, y)[1], [X, np.array([1, 2, 3]), Y], name="one of several")


def test_one_value_may_be_several_operands_of_custom_vjp() -> None:
    forward = region(lambda x, y: (x * y, x, y), VECTOR, VECTOR)
    backward = region(lambda x, y, g: (g * y, g * x), VECTOR, VECTOR, VECTOR)

    check_gradients(
        lambda x: CustomVjp(1).results(x, x, regions=(forward, backward))[0],
        [X],
        name="shared",
        order=3,
        tolerance=1e-5,
    )


@pytest.mark.parametrize(
    ("outputs", "regions", "message"),
    [
        (1, (region(Exp(), VECTOR),), "owns two regions"),
        (2, squared(lambda g: g, residuals=0), "2 outputs of 1 results"),
        (1, (region(lambda x: (x * x, x), VECTOR), region(Exp(), VECTOR)), "backward region"),
        (3, squared(lambda x, g: g * x), "3 outputs of 2 results"),
        (0, squared(lambda x, g: g * x), "0 outputs of 2 results"),
        (1, squared(lambda x, g: (g, x)), "must return"),
        (1, squared(lambda x, g: ops.sum(g)), "must return"),
    ],
)
def test_regions_that_do_not_fit_are_refused(outputs: int, regions: tuple[Graph, ...], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        result_types(CustomVjp(outputs), (VECTOR,), regions)


# ---- the small ones


def test_stop_gradient_is_a_constant() -> None:
    check_gradients(lambda x: stop_gradient(x), [np.array([1])], name="integers")
    x, g = inputs_for([X, Y])

    (found,) = gradient([x * stop_gradient(x)], [g], [x])

    assert evaluate([found], {x: X, g: Y})[0].tolist() == (X * Y).tolist()


def test_an_alias_counts_only_its_own_uses() -> None:
    x, g = inputs_for([X, Y])
    y = Alias()(x)

    (found,) = gradient([y * x], [g], [y])

    assert evaluate([found], {x: X, g: Y})[0].tolist() == (X * Y).tolist()


def test_gradients_pass_a_barrier() -> None:
    check_gradients(lambda x, y: Barrier(2).results(x, y), [X, Y], name="barrier")
    check_gradients(lambda x, y: ops.exp(Barrier(1)(x, y)), [X, Y], name="barrier of one")


@pytest.mark.parametrize("count", [0, 3, -1])
def test_a_barrier_counts_its_operands(count: int) -> None:
    with pytest.raises(GraphError, match=f"count {count} does not fit"):
        result_types(Barrier(count), (VECTOR, VECTOR), ())


def test_gradients_inside_a_region_are_expanded() -> None:
    def slope(x: Value) -> Value:
        from telegrad.ops.control import Gradient

        y = ops.exp(x * x)
        return Gradient(1).results(y, ops.ones_like(y), x)[0]

    graph = region(slope, VECTOR)
    check_gradients(
        lambda x: expand_gradients([Checkpoint()(x, regions=(graph,))]), [X / 3], name="gradient in a region", order=2
    )
    x = inputs_for([X])[0]
    (expanded,) = expand_gradients([Checkpoint()(x, regions=(graph,))])
    assert "gradient" not in {n.op.name for n in expanded.node.regions[0].nodes}
