"""vmap's rules: for every sample of the registry and every choice of batched operands, a batch is its examples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from telegrad import ops
from telegrad.autodiff import gradient
from telegrad.ir import Graph, Op, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.value import apply
from telegrad.ir.verify import verify
from telegrad.ops.batching import RULES, batched
from telegrad.ops.control import Barrier, Checkpoint, CustomVjp
from telegrad.ops.loops import INDEX, Loop, Scan, Switch

from tests.ops.checks import Array, call, check_gradients, evaluate, generator, type_of
from tests.ops.registry import FACTS, Sample
from tests.ops.registry.tiers import sample_rows

SIZE = 3
SAMPLES = [sample for facts in FACTS.values() for sample in facts.samples]


def variant(array: Array, number: int) -> Array:
    """Another operand that the op takes as well: scaled keeps order, signs and definiteness, moved keeps the range."""
    if array.dtype.kind == "f":
        return array * (1 - 0.1 * number)
    return np.roll(array.reshape(-1), number).reshape(array.shape)


def examples(arrays: Sequence[Array], flags: Sequence[bool]) -> list[list[Array]]:
    return [[variant(a, k) if f else a for a, f in zip(arrays, flags, strict=True)] for k in range(SIZE)]


def check_batch(graph: Graph, arrays: Sequence[Array], flags: Sequence[bool]) -> Graph:
    """Compare the graph on a batch with the graph on each example; returns the batched graph."""
    each = examples(arrays, flags)
    stacked = [np.stack([e[i] for e in each]) if f else a for i, (a, f) in enumerate(zip(arrays, flags, strict=True))]
    inputs = [new_input(type_of(a)) for a in stacked]
    outs, marks = batched(graph, inputs, flags, SIZE, anchor=inputs[0])
    result = Graph.of(inputs, outs)
    verify(result)
    found = evaluate(outs, dict(zip(inputs, stacked, strict=True)))
    for k, operands in enumerate(each):
        wanted = evaluate(graph.outputs, dict(zip(graph.inputs, operands, strict=True)))
        for array, mark, reference in zip(found, marks, wanted, strict=True):
            mine = array[k] if mark else array
            assert mine.dtype == reference.dtype
            if reference.dtype.kind == "f":
                np.testing.assert_allclose(mine, reference, rtol=1e-9, atol=1e-12)
            else:
                np.testing.assert_array_equal(mine, reference)
    return result


def graph_of(op: Op, arrays: Sequence[Array], regions: Sequence[Graph] = ()) -> Graph:
    xs = [new_input(type_of(a)) for a in arrays]
    return Graph.of(xs, apply(op, xs, regions))


def choices(count: int) -> list[tuple[bool, ...]]:
    """Which operands may be batched: any set of up to three, and all of them."""
    if count > 3:
        return [(True,) * count, *(tuple(i == j for i in range(count)) for j in range(count))]
    return [flags for flags in product((False, True), repeat=count) if any(flags)]


@pytest.mark.parametrize("sample", sample_rows())
def test_a_batch_is_its_examples_one_by_one(sample: Sample) -> None:
    for flags in choices(len(sample.arrays)):
        check_batch(graph_of(sample.op, sample.arrays), sample.arrays, flags)


def test_common_ops_need_no_loop() -> None:
    slow = {
        sample.op.name
        for sample in SAMPLES
        for flags in choices(len(sample.arrays))
        for node in check_batch(graph_of(sample.op, sample.arrays), sample.arrays, flags).nodes
        if isinstance(node.op, Loop) and sample.operands
    }

    # of gather, scatter_add and convolutions only some choices are; random numbers follow their key
    assert slow == SLOW


SLOW = {
    "convolution", "convolution_input", "convolution_weight", "fold_in", "gather", "random_bits", "random_normal",
    "random_uniform", "sampled_matmul", "scatter_add", "scatter_set", "searchsorted", "sparse_matmul",
}  # fmt: skip


def test_every_rule_is_used_by_the_table_or_below() -> None:
    elsewhere = {Barrier, Checkpoint, CustomVjp, Scan, Switch}
    classes = {type(sample.op) for sample in SAMPLES}

    assert [cls for cls in RULES if cls not in elsewhere and not any(issubclass(c, cls) for c in classes)] == []


# ---- ops with regions

N, H = 4, 3
RANDOM = generator("batching")
W, B, X, START = RANDOM.normal(size=(H, H)), RANDOM.normal(size=H), RANDOM.normal(size=(N, H)), RANDOM.normal(size=H)


def region(f: object, *arrays: Array, first: Sequence[Type] = ()) -> Graph:
    xs = [new_input(type) for type in (*first, *(type_of(a) for a in arrays))]
    return Graph.of(xs, f(*xs))  # type: ignore[operator]


def test_scans_checkpoints_and_switches() -> None:
    def trip(i: Value, h: Value, x: Value, w: Value) -> list[Value]:
        return [ops.tanh(ops.matmul(h, w) + x), ops.sin(h) * ops.astype(i, t.float64)]

    body = region(trip, START, X[0], W, first=[INDEX])
    inner = region(lambda h, w: [ops.matmul(w, h) * 2, ops.sum(h)], START, W)
    branches = [region(lambda h, w: [ops.matmul(w, h)], START, W), region(lambda h, w: [h - 1.0], START, W)]

    for flags in choices(3):
        check_batch(graph_of(Scan(N, 1, 1), [START, X, W], [body]), [START, X, W], flags)
        check_batch(graph_of(Scan(N, 1, 1, True), [START, X, W], [body]), [START, X, W], flags)
        check_batch(
            graph_of(Switch(), [np.asarray(1), START, W], branches), [np.asarray(1), START, W], (False, *flags[1:])
        ) if any(flags[1:]) else None
    for flags in choices(2):
        check_batch(graph_of(Checkpoint(), [START, W], [inner]), [START, W], flags)
        check_batch(graph_of(Barrier(1), [START, W]), [START, W], flags)
    numbers = np.arange(2)
    switch = region(lambda i, h, w: Switch().results(i[1], h, w, regions=branches), numbers, START, W)
    check_batch(switch, [numbers, START, W], (True, True, False))


def test_a_custom_rule_on_a_batch_sums_the_gradient_of_what_is_shared() -> None:
    forward = region(lambda h, w: [ops.matmul(w, h), h, w], START, W)
    backward = region(
        lambda h, w, g: [ops.matmul(ops.matrix_transpose(w), g) * 3, h[None, :] * g[:, None]], START, W, START
    )

    def build(h: Value, w: Value) -> Value:
        graph = graph_of(CustomVjp(1), [START, W], [forward, backward])
        outs, _ = batched(graph, [h, w], [True, False], SIZE, anchor=h)
        return ops.sin(outs[0])

    hs = RANDOM.normal(size=(SIZE, H))

    def gradients(h: Value, w: Value) -> list[Value]:
        y = build(h, w)
        return list(gradient([y], [ops.ones_like(y)], [h, w]))

    gh, gw = call(gradients, hs, W)
    g = np.cos(hs @ W.T)

    np.testing.assert_allclose(gh, 3 * g @ W, rtol=1e-12)
    np.testing.assert_allclose(gw, g.T @ hs, rtol=1e-12)


def test_gradients_go_through_a_batch() -> None:
    graph = region(lambda h, w: [ops.tanh(ops.matmul(w, h)) * ops.sum(w)], START, W)

    def build(h: Value, w: Value) -> list[Value]:
        return batched(graph, [h, w], [True, False], SIZE, anchor=h)[0]

    check_gradients(build, [RANDOM.normal(size=(SIZE, H)), W], name="batch", order=2, tolerance=1e-5)
