"""Attention forward and backward: memory that is linear in the number of queries."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from telegrad.autodiff import gradient
from telegrad.ir import Function, Graph, new_input
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.ops.attention import scaled_dot_product_attention
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.executors.array import numpy_executor


@pytest.mark.slow
def test_a_step_of_long_attention_has_no_matrix_of_all_weights() -> None:
    length = 4096
    shape = (1, 2, length, 16)
    q, k, v, g = inputs = [new_input(Type(shape, t.float32)) for _ in range(4)]
    out = scaled_dot_product_attention(q, k, v, is_causal=True)
    plan = compile_function(Function(Graph.of(inputs, gradient([out], [g], [q, k, v]))))
    arrays = [np.random.default_rng(0).normal(size=shape).astype(np.float32) for _ in range(4)]
    executor = numpy_executor()

    tracemalloc.start()
    executor.run(plan, arrays)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < length * length * 4 * 2 / 3  # of two heads
