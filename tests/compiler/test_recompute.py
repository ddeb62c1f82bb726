"""Recomputing: what a later kernel computes again is neither written nor read, and has the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ops.control import Gradient
from telegrad.ops.norm import Standardize
from telegrad_server.compiler.fuse import fuse
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.pipeline import optimise
from telegrad_server.executors.array import ArrayExecutor, numpy_executor
from telegrad_server.executors.compiling import found_compiler

from tests.compiler.graphs import interpret, same_bits
from tests.compiler.test_fuse import check, fused_ops, given, run

needs_compiler = pytest.mark.skipif(found_compiler() is None, reason="there is no C compiler")
SHAPE = (6, 5, 4, 9)


@pytest.fixture(scope="module")
def executor() -> ArrayExecutor:
    return numpy_executor(kernels="auto", is_poisoned=True)


def large_results(graph: Graph) -> list[Value]:
    """What kernels write of the whole index space."""
    return [
        v for node in graph.nodes if isinstance(node.op, Fused) for v in node.outputs if v.type.size == np.prod(SHAPE)
    ]


def batch_norm() -> Graph:
    """With its activation and its gradients, as on the output of a convolution."""
    x, weight, bias = (new_input(Type(shape, t.float32)) for shape in (SHAPE, (5, 1, 1), (5, 1, 1)))
    out = ops.relu(Standardize((0, 2, 3), 1e-5).results(x)[0] * weight + bias)
    g = new_input(out.type)
    return Graph.of([x, weight, bias, g], [out, *Gradient(1).results(out, g, x, weight, bias)])


def test_batch_norm_writes_its_result_and_its_gradient_alone() -> None:
    graph = fuse(optimise(batch_norm()))

    assert {id(v.node) for v in large_results(graph)} == {id(v.node) for v in graph.outputs[:2]}
    assert len(large_results(graph)) == 2


@needs_compiler
def test_batch_norm_agrees_with_numpy(executor: ArrayExecutor) -> None:
    graph = batch_norm()

    check(executor, graph, given(graph))


@needs_compiler
def test_what_is_computed_again_has_the_same_bits(executor: ArrayExecutor) -> None:
    x, m, s = (new_input(Type(shape, t.float32)) for shape in (SHAPE, (5, 1, 1), (5, 1, 1)))
    y = ops.where(x > m, x - m, (x - m) / s)
    total = ops.sum(y, axis=(0, 2, 3), keepdims=True)
    graph = Graph.of([x, m, s], [total, ops.square(y) + ops.where(total < 1e30, 0.0, 1.0)])
    after = fuse(graph)
    assert len(large_results(after)) == 1

    found, wanted = run(executor, after, given(graph)), interpret(graph, given(graph))

    assert same_bits(found[1], wanted[1])


def test_what_takes_long_is_computed_once() -> None:
    x = new_input(Type(SHAPE, t.float32))
    y = ops.exp(x)
    graph = fuse(Graph.of([x], [y / ops.sum(y, axis=(0, 2, 3), keepdims=True)]))

    assert " ".join(fused_ops(graph)).split().count("exp") == 1


def test_what_is_kept_for_another_op_is_read() -> None:
    x, weight = new_input(Type((32, 32), t.float32)), new_input(Type((32, 32), t.float32))
    y = ops.relu(x + 1)
    graph = fuse(Graph.of([x, weight], [ops.matmul(y, weight) * ops.square(y)]))

    assert fused_ops(graph) == ["constant add relu", "square multiply"]


@pytest.mark.parametrize(("axes", "keepdims"), [((0, 2, 3), True), ((0, 2, 3), False), ((0, 1, 3), False)])
@needs_compiler
def test_sums_for_each_channel_are_made_of_sums_of_rows(
    axes: tuple[int, ...], keepdims: bool, executor: ArrayExecutor
) -> None:
    x = new_input(Type((6, 5, 4, 20), t.float32))
    graph = Graph.of([x], [ops.sum(ops.square(x), axis=axes, keepdims=keepdims)])

    check(executor, graph, given(graph))
    assert fused_ops(fuse(graph)) == ["square sum", "sum"]


def test_sums_of_short_rows_are_left_as_they_are() -> None:
    x = new_input(Type((6, 5, 2, 4), t.float32))
    graph = Graph.of([x], [ops.sum(ops.square(x) + 1, axis=(0, 2, 3))])

    assert fused_ops(fuse(graph)) == ["square constant add"]
