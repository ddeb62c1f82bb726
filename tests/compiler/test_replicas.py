"""Plans of workers that carry some of the replicas: the tree, what travels when, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from telegrad import ops
from telegrad.errors import GraphError, TooExpensive
from telegrad.ir import Function, Graph, Replication, Type, new_input
from telegrad.ir import types as t
from telegrad.ops.control import Gradient
from telegrad.ops.elementwise import tanh
from telegrad.ops.loops import Scan
from telegrad.ops.replicas import AllReduce, ReplicaIndex, ReplicaWeight
from telegrad_server.compiler import replicas as under_test
from telegrad_server.compiler.collective import FinishAllReduce, StartAllReduce
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.compiler.plan import Plan
from telegrad_server.compiler.replicas import Share
from telegrad_server.executors.array import numpy_executor
from telegrad_server.tree import children, nodes_within, total

from tests.compiler.graphs import same_bits
from tests.replicas.divisions import run_divided

MEAN, SUM = AllReduce("mean"), AllReduce("sum")


# ---- the tree


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 12, 13])
def test_any_block_is_made_of_nodes_of_one_tree(count: int) -> None:
    def text(lo: int, hi: int) -> str:
        if hi - lo > 1:
            left, right = children((lo, hi))
            return f"({text(*left)}{text(*right)})"
        return str(lo)

    def join(x: str, y: str) -> str:
        return f"({x}{y})"

    for first in range(count):
        for last in range(first + 1, count + 1):
            nodes = nodes_within(first, last, replicas=count)
            assert [r for lo, hi in nodes for r in range(lo, hi)] == list(range(first, last))
            rest = [*nodes_within(0, first, replicas=count), *nodes, *nodes_within(last, count, replicas=count)]
            assert total((0, count), {node: text(*node) for node in rest}, join) == text(0, count)


def test_the_tree_is_split_at_powers_of_two() -> None:
    assert nodes_within(0, 4, replicas=7) == ((0, 4),)
    assert nodes_within(1, 4, replicas=4) == ((1, 2), (2, 4))
    assert nodes_within(3, 6, replicas=7) == ((3, 4), (4, 6))


# ---- a worker's plan


def training(rows: int, replicas: int, *, layers: int = 3, width: int = 4, dtype: t.DType = t.float32) -> Function:
    """A step of gradient descent through some layers of tanh."""

    def graph(own: int) -> Graph:
        x = new_input(Type((own, width), dtype))
        weights = [new_input(Type((width, width), dtype)) for _ in range(layers)]
        y = x
        for w in weights:
            y = tanh(y @ w)
        loss = ops.mean(y * y)
        slopes = Gradient(1).results(loss, ops.ones_like(loss), *weights)
        new = [w - MEAN(g) * 0.1 for w, g in zip(weights, slopes, strict=True)]
        return Graph.of([x, *weights], [MEAN(loss), y, *new])

    taking = min(rows, replicas)
    most = -(-rows // taking)
    rest = graph(most - 1) if rows % taking else None
    updates = tuple([(1 + i, 2 + i) for i in range(layers)])
    return Function(graph(most), updates, Replication(replicas, rows, (0,), (1,), rest))


def names(plan: Plan) -> list[str]:
    return [step.op.name for step in plan.steps]


def test_one_replica_is_inline_and_several_are_a_scan() -> None:
    function = training(8, 4)

    assert "scan" not in names(compile_function(function, share=Share(0, 1)))
    assert names(compile_function(function, share=Share(0, 3))).count("scan") == 1
    assert names(compile_function(function)).count("scan") == 1


def test_uneven_rows_are_two_scans() -> None:
    assert names(compile_function(training(10, 4))).count("scan") == 2


def test_operands_and_results_have_the_rows_of_the_share() -> None:
    plan = compile_function(training(10, 4), share=Share(1, 3))

    assert plan.input_types[0].shape == (5, 4)
    assert plan.output_types[1].shape == (5, 4)
    assert compile_function(training(10, 4)).input_types[0].shape == (10, 4)


def test_the_whole_needs_nobody() -> None:
    for share in (None, Share(0, 4)):
        assert not {"start_all_reduce", "finish_all_reduce"} & set(names(compile_function(training(8, 4), share=share)))


def test_a_bucket_leaves_as_soon_as_it_is_full_and_is_taken_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "BUCKET_BYTES", 64)  # one matrix

    plan = compile_function(training(8, 4), share=Share(0, 1))

    found = names(plan)
    starts = [i for i, name in enumerate(found) if name == "start_all_reduce"]
    finishes = [i for i, name in enumerate(found) if name == "finish_all_reduce"]
    products = [i for i, name in enumerate(found) if name == "matmul"]
    assert len(starts) == len(finishes) == 4
    assert starts[0] < starts[1] < products[-1], "the last layer's is on its way while the first is differentiated"
    assert min(finishes) > max(starts + products)
    assert [step.op.bucket for step in plan.steps if isinstance(step.op, StartAllReduce)] == [0, 1, 2, 3]
    first = finishes[1]
    assert any(name == "subtract" for name in found[first:]), "a weight is updated while the others travel"
    assert "start_all_reduce[bucket=0, replicas=4, nodes=((0, 1),)]" in plan.text()


def test_a_bucket_holds_one_dtype_and_about_so_many_bytes() -> None:
    x = new_input(Type((2, 3), t.float32))
    narrow, wide = ops.sum(x, axis=0), ops.astype(ops.sum(x, axis=0), t.float64)
    graph = Graph.of([x], [SUM(narrow), SUM(wide), SUM(narrow * 2), SUM(ops.astype(narrow, t.float16))])
    plan = compile_function(Function(graph, (), Replication(2, 4, (0,))), share=Share(1, 2))

    tokens = [plan.slots[step.outputs[0]].type for step in plan.steps if isinstance(step.op, StartAllReduce)]
    assert tokens == [Type((1, 9), t.float32), Type((1, 3), t.float64)], "16-bit floats travel as 32-bit ones"


def test_a_worker_brings_the_fewest_nodes_that_make_up_its_block() -> None:
    plan = compile_function(training(8, 4), share=Share(1, 4))
    (op,) = [step.op for step in plan.steps if isinstance(step.op, StartAllReduce)]
    (taken,) = [step.op for step in plan.steps if isinstance(step.op, FinishAllReduce)]

    assert (op.replicas, op.nodes) == (4, ((1, 2), (2, 4)))
    assert sorted(taken.shapes) == [(), (4, 4), (4, 4), (4, 4)]


@pytest.mark.parametrize("rows", [8, 10, 3])
def test_small_buckets_change_no_bit(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    function = training(rows, 4)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=x.shape).astype(np.float32) for x in function.input_types]
    whole = numpy_executor().run(compile_function(function), inputs)
    monkeypatch.setattr(under_test, "BUCKET_BYTES", 64)

    for blocks in [[1] * min(rows, 4), [1, min(rows, 4) - 1], [2, min(rows, 4) - 2]]:
        for x, y in zip(whole, run_divided(function, inputs, blocks), strict=True):
            assert same_bits(x, y)


def test_large_gradients_are_summed_as_they_come_and_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    function = training(18, 8, width=64)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=x.shape).astype(np.float32) / 8 for x in function.input_types]
    stacked = compile_function(function)
    whole = numpy_executor().run(stacked, inputs)
    monkeypatch.setattr(under_test, "STACKED_BYTES", 0)

    unrolled = compile_function(function)

    weights = 3 * 64 * 64 * 4
    assert "scan" in names(stacked) and "scan" not in names(unrolled)
    assert unrolled.peak_bytes < stacked.peak_bytes - 3 * weights
    again = [numpy_executor().run(unrolled, inputs), run_divided(function, inputs, [3, 5])]
    for results in again:
        for x, y in zip(whole, results, strict=True):
            assert same_bits(x, y)


def test_what_is_the_same_on_all_is_computed_once() -> None:
    x, w = new_input(Type((2, 3), t.float32)), new_input(Type((3, 3), t.float32))
    graph = Graph.of([x, w], [x @ ops.exp(w @ w)])

    plan = compile_function(Function(graph, (), Replication(4, 8, (0,), (0,))))

    (scan,) = [step for step in plan.steps if step.op.name == "scan"]
    assert "exp" in names(plan) and "exp" not in names(scan.plans[0])


def test_a_mean_of_what_is_the_same_is_no_reduction() -> None:
    x, w = new_input(Type((2,), t.float64)), new_input(Type((), t.float64))
    graph = Graph.of([x, w], [MEAN(ops.exp(w)), SUM(w), MEAN(ops.mean(x))])
    plan = compile_function(Function(graph, (), Replication(3, 6, (0,))), share=Share(0, 1))

    (op,) = [step.op for step in plan.steps if isinstance(step.op, FinishAllReduce)]
    assert op.shapes == ((),)
    whole = compile_function(Function(graph, (), Replication(3, 6, (0,))))
    e, total, mean = numpy_executor().run(whole, [np.arange(6.0), np.array(2.0)])
    assert (float(e), float(total), float(mean)) == (float(np.exp(2.0)), 6.0, 2.5)


def test_indices_and_weights_are_those_of_the_logical_replica() -> None:
    def graph(rows: int) -> Graph:
        x = new_input(Type((rows,), t.float64))
        index, weight = (x.bind(op, ())[0] for op in (ReplicaIndex(), ReplicaWeight(t.float64)))
        return Graph.of([x], [x * 0.0 + ops.astype(index, t.float64), x * 0.0 + weight])

    function = Function(graph(3), (), Replication(4, 10, (0,), (0, 1), graph(2)))
    x = [np.zeros(10)]
    index, weight = numpy_executor().run(compile_function(function), x)

    assert index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert weight.tolist() == [0.3] * 6 + [0.2] * 4
    for blocks in ([1, 3], [1, 1, 1, 1], [3, 1]):
        again = run_divided(function, x, blocks)
        assert again[0].tolist() == index.tolist() and again[1].tolist() == weight.tolist()


# ---- what nobody may send


def split_sum(*outputs: Any) -> Graph:
    x = new_input(Type((2, 3), t.float32))
    return Graph.of([x], [f(x) for f in outputs])


def refused(graph: Graph, words: str, *, rest: Graph | None = None, rows: int = 8, share: Share | None = None) -> None:
    with pytest.raises(GraphError, match=words) as caught:
        compile_function(Function(graph, (), Replication(4, rows, (0,), (), rest)), share=share)
    assert caught.value.reason == "REPLICATION_INVALID"


def test_a_result_that_varies_and_is_not_said_to_have_rows_is_refused() -> None:
    refused(split_sum(ops.sum), "result 0, a float32.* differs from replica to replica")


def test_a_share_that_is_not_there_is_refused() -> None:
    for share in (Share(0, 5), Share(2, 2), Share(-1, 2)):
        refused(split_sum(lambda x: SUM(ops.sum(x))), "are no share", share=share)


def test_two_graphs_that_disagree_are_refused() -> None:
    x = new_input(Type((1, 3), t.float32))
    main = split_sum(lambda x: SUM(ops.sum(x)))

    refused(main, "do not reduce the same", rest=Graph.of([x], [MEAN(ops.sum(x))]), rows=7)
    refused(main, "do not reduce the same", rest=Graph.of([x], [SUM(SUM(ops.sum(x)))]), rows=7)
    refused(main, "is made of the number of", rest=Graph.of([x], [SUM(ops.sum(x)) * 2.0]), rows=7)


def test_more_replicas_than_rows_leave_the_last_ones_out() -> None:
    plan = compile_function(training(2, 4), share=Share(1, 2))

    assert {step.op.replicas for step in plan.steps if isinstance(step.op, StartAllReduce)} == {2}
    refused(split_sum(lambda x: SUM(ops.sum(x))), "needs? 1 graphs|are no share|must have", rows=2, share=Share(2, 4))


@pytest.mark.parametrize("depth", [1, 2, 28])
def test_nested_loops_are_looked_through_in_time(depth: int) -> None:
    def nested(depth: int) -> Graph:
        trip, c, d = new_input(Type((), t.int64)), new_input(Type((), t.float64)), new_input(Type((), t.float64))
        if depth == 0:
            return Graph.of([trip, c, d], [c + d, d])
        return Graph.of([trip, c, d], Scan(1, 2, 0).results(c, d, regions=(nested(depth - 1),)))

    x = new_input(Type((2,), t.float64))
    ends = Scan(1, 2, 0).results(ops.sum(x), ops.zeros_like(ops.sum(x)), regions=(nested(depth),))
    graph = Graph.of([x], [SUM(ends[0])] + ([ends[1]] if depth < 3 else []))

    start = time.perf_counter()
    plan = compile_function(Function(graph, (), Replication(2, 4, (0,))))

    assert time.perf_counter() - start < 10
    assert [float(y) for y in numpy_executor().run(plan, [np.arange(4.0)])] == [6.0, 0.0][: len(graph.outputs)]


def test_a_long_chain_of_views_is_no_trouble() -> None:
    x, w = new_input(Type((2, 3), t.float64)), new_input(Type((3, 4), t.float64))
    view = w
    for _ in range(3000):
        view = ops.reshape(ops.matrix_transpose(view), (3, 4))
    graph = Graph.of([x, w], [x @ view])

    plan = compile_function(Function(graph, (), Replication(2, 4, (0,), (0,))))

    assert len(numpy_executor().run(plan, [np.ones((4, 3)), np.ones((3, 4))])) == 1


def test_too_many_summands_are_refused() -> None:
    x = new_input(Type((1,), t.float32))
    graph = Graph.of([x], [SUM(ops.sum(x) * float(i)) for i in range(1, 1001)])

    with pytest.raises(TooExpensive, match="summands"):
        compile_function(Function(graph, (), Replication(1024, 1024, (0,))))
