"""Nothing is recursive: graphs a hundred thousand nodes deep compile and run."""

from __future__ import annotations

import time

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Function, Graph, Type, new_input
from telegrad.ir import types as t
from telegrad.ops.control import Gradient
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.executors.array import numpy_executor

LENGTH = 100_000


@pytest.mark.slow
def test_a_chain_of_100_000_ops_differentiates_and_runs() -> None:
    x = new_input(Type((2,), t.float64))
    y = x
    for _ in range(LENGTH):
        y = ops.sin(y)
    one = ops.broadcast_to(x.literal(1, x.dtype), x.shape)
    function = Function(Graph.of([x], [y, *Gradient(1).results(y, one, x)]))
    start = time.process_time()

    plan = compile_function(function)
    seconds = time.process_time() - start
    value, slope = numpy_executor().run(plan, [np.array([0.3, -0.3])])

    want, want_slope = 0.3, 1.0
    for _ in range(LENGTH):
        want, want_slope = np.sin(want), want_slope * np.cos(want)
    np.testing.assert_allclose(value, [want, -want], rtol=1e-12)
    np.testing.assert_allclose(slope, [want_slope, want_slope], rtol=1e-9)
    assert seconds < 20  # 6 where it was written; the rest is for slower machines
