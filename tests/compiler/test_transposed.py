"""Products whose transpose alone is used: they come out transposed, the same but for rounding."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.text import from_text, to_text
from telegrad.ir.types import DType
from telegrad.ir.verify import verify
from telegrad.ops.control import Gradient
from telegrad.ops.parts import MoveBeside, MoveTo
from telegrad_server.compiler.inline import unmark
from telegrad_server.compiler.pipeline import OPTIMISATIONS, optimise
from telegrad_server.compiler.transposed import transposed_products

from tests.compiler.graphs import interpret

NAME = "transposed_products"


def layers(seed: int, dtype: DType, *, marks: float = 0.0) -> Graph:
    """A few layers whose weights are stored as [out, in], [in, out] or used twice, and the weights' gradients."""
    choose = random.Random(seed)
    lead, *sizes = ([choose.randint(2, 40)] if choose.random() < 0.5 else [3, 7]), *choose.sample(range(5, 60), 4)
    x = new_input(Type((*lead, sizes[0]), dtype))
    inputs, weights, y = [x], list[Value](), x

    def placed(v: Value) -> Value:
        return MoveTo(choose.randrange(3))(v) if choose.random() < marks else v

    for i, o in pairwise(sizes):
        is_stored_transposed = choose.random() < 0.7
        w = new_input(Type((o, i) if is_stored_transposed else (i, o), dtype))
        used = placed(ops.matrix_transpose(placed(w)) if is_stored_transposed else w)
        y = ops.tanh(placed(ops.matmul(placed(y), used)))
        if choose.random() < 0.3:
            y = y + ops.matmul(ops.matmul(y, ops.matrix_transpose(used)), used) * 0.01
        weights.append(w)
    inputs += weights
    return Graph.of(inputs, [y, *Gradient(1).results(y, y, *weights)])


def test_a_weights_gradient_comes_out_as_the_weight_lies() -> None:
    x, w = new_input(Type((5, 3), t.float32)), new_input(Type((4, 3), t.float32))
    y = ops.matmul(x, ops.matrix_transpose(w))

    after = optimise(Graph.of([x, w], [y, *Gradient(1).results(y, y, w)]))

    verify(after)
    assert to_text(after) == to_text(
        from_text(
            """
%0 = input[shape=(5, 3), dtype=float32]() : float32[5,3]
%1 = input[shape=(4, 3), dtype=float32]() : float32[4,3]
%2 = permute[axes=(1, 0)](%1) : float32[3,4]
%3 = matmul(%0, %2) : float32[5,4]
%4 = permute[axes=(1, 0)](%3) : float32[4,5]
%5 = matmul(%4, %0) : float32[4,3]
-> %3, %5
""".strip()
        )
    )


def test_a_product_that_is_used_as_it_is_too_is_made_once() -> None:
    x, y = new_input(Type((5, 3), t.float32)), new_input(Type((3, 4), t.float32))
    product = ops.matmul(x, y)
    for other in (product, ops.exp(product), ops.matrix_transpose(product) + 1):
        g = Graph.of([x, y], [ops.matrix_transpose(product), other])

        assert Counter(n.op.name for n in transposed_products(g).nodes)["matmul"] == 1


def test_only_the_last_two_axes_make_a_transpose() -> None:
    x, y = new_input(Type((2, 3, 5, 4), t.float32)), new_input(Type((3, 4, 6), t.float32))
    product = ops.matmul(x, y)
    moved = Graph.of([x, y], [ops.permute_dims(product, (0, 2, 1, 3))])
    swapped = Graph.of([x, y], [ops.matrix_transpose(product)])

    assert transposed_products(moved).nodes == moved.nodes
    after = transposed_products(swapped)
    verify(after)
    assert after.outputs[0].node.op.name == "matmul"
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-9, 9, v.shape).astype(np.float32) for v in (x, y)]  # sums of these are exact
    np.testing.assert_array_equal(interpret(after, arrays)[0], interpret(swapped, arrays)[0])


def test_it_is_as_near_to_the_truth_as_without_it() -> None:
    """Error against float64, relative to the norm, over many graphs: no worse."""
    changed, errors = 0, {"without": 0.0, "with": 0.0}
    for seed in range(30):
        exact = optimise(layers(seed, t.float64), without=[NAME])
        rng = np.random.default_rng(seed)
        arrays = [rng.normal(size=type.shape).astype(np.float32) for type in exact.input_types]
        true = interpret(exact, [a.astype(np.float64) for a in arrays])
        single = layers(seed, t.float32)
        graphs = {"without": optimise(single, without=[NAME]), "with": optimise(single)}
        changed += to_text(graphs["without"]) != to_text(graphs["with"])
        for which, found in graphs.items():
            verify(found)
            for a, b in zip(interpret(found, arrays), true, strict=True):
                errors[which] += float(np.linalg.norm(a - b) / np.linalg.norm(b))

    assert changed > 15
    assert errors["with"] <= 1.05 * errors["without"]


def test_parts_have_the_same_products_as_one_worker() -> None:
    changed = 0
    for seed in range(30):
        marked = optimise(
            layers(seed, t.float32, marks=0.6), without=["unmark", *[step.name for step in OPTIMISATIONS]]
        )

        in_parts = transposed_products(marked)

        verify(in_parts)
        assert to_text(unmark(in_parts)) == to_text(transposed_products(unmark(marked))), f"seed {seed}"
        changed += to_text(in_parts) != to_text(marked)
    assert changed > 15


def test_what_only_says_where_to_be_is_no_use() -> None:
    x, y, other = (new_input(Type((4, 4), t.float32)) for _ in range(3))
    product = ops.matmul(x, y)
    found = Graph.of([x, y, other], [ops.matrix_transpose(product), MoveBeside()(other, ops.matrix_transpose(product))])

    assert transposed_products(found).outputs[0].node.op.name == "matmul"


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_where_it_is(special: float) -> None:
    x, y = new_input(Type((5, 3), t.float32)), new_input(Type((3, 4), t.float32))
    g = Graph.of([x, y], [ops.matrix_transpose(ops.matmul(x, y))])
    arrays = [np.ones((5, 3), np.float32), -np.ones((3, 4), np.float32)]
    arrays[0][1, 2] = special

    before, after = interpret(g, arrays)[0], interpret(transposed_products(g), arrays)[0]

    np.testing.assert_array_equal(before, after)
