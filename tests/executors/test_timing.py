"""Spans of a plan's steps: every op that takes time is in one of them, with kernels and without."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Function, Graph, Origin, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.value import origin
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.executors.array import numpy_executor
from telegrad_server.executors.stopping import WORKING
from telegrad_server.executors.timing import Span, Spans


@pytest.fixture
def spans() -> Iterator[Spans]:
    WORKING.spans = Spans(100)
    yield WORKING.spans
    WORKING.spans = None


def chain() -> tuple[list[Value], Value]:
    x, w = new_input(Type((256, 512), t.float32)), new_input(Type((512, 256), t.float32))
    with origin(Origin(5)):
        y = ops.matmul(x, w)
    with origin(Origin(6)):
        y = ops.exp(ops.matrix_transpose(y) * 0.001) + 1
    return [x, w], ops.cumulative_sum(ops.matmul(y, y), axis=0)


@pytest.mark.parametrize("kernels", ["off", "auto"])
def test_each_op_is_in_one_span(kernels: str, spans: Spans) -> None:
    executor = numpy_executor(kernels=kernels)
    inputs, y = chain()
    plan = compile_function(Function(Graph.of(inputs, [y])), kernels=executor.kernels)

    executor.run(plan, [np.ones(v.shape, np.float32) for v in inputs])

    found = " ".join([span.name for span in spans.found]).split()
    assert sorted(op for op in found if op not in ("constant", "permute")) == sorted(
        ["matmul", "multiply", "exp", "add", "matmul", "cumulative_sum"]
    )
    assert 5 in {span.node for span in spans.found}
    begins = [span.begin_ns for span in spans.found]
    assert begins == sorted(begins)


def test_a_record_that_is_full_counts_the_rest() -> None:
    spans = Spans(2)
    for k in range(5):
        spans.add(Span("step", "add", 1, k, 1))

    assert (len(spans.found), spans.dropped) == (2, 3)


def test_a_record_that_is_over_takes_nothing() -> None:
    spans = Spans(2)
    spans.arrive(1, 10)
    spans.begin(1, 15)

    assert [span.nanoseconds for span in spans.end()] == [5]
    spans.add(Span("step", "add", 1, 0, 1))
    assert spans.found == []
