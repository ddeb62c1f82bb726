"""Every op of the table on the GPU, against NumPy: the test of CuPy's half of the array module."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from telegrad.ir import Function, Graph, new_input
from telegrad.ir.value import apply
from telegrad.ops.decompositions import Eigh, Qr, Svd
from telegrad.ops.systems import MatrixOp
from telegrad.wire.arrays import type_of
from telegrad_server.compiler.plan import make_plan
from telegrad_server.executors import pick_executor
from telegrad_server.executors.array import numpy_executor

from tests.ops.registry import FACTS, Sample

pytestmark = pytest.mark.gpu

ROWS = [
    pytest.param(sample, id=f"{name}-{i}") for name, facts in FACTS.items() for i, sample in enumerate(facts.samples)
]


@pytest.fixture(scope="module")
def gpu() -> Any:
    return pick_executor("cupy")


@pytest.mark.parametrize("row", ROWS)
def test_an_op_gives_what_it_gives_on_numpy(gpu: Any, row: Sample) -> None:
    arrays = row.arrays
    inputs = [new_input(type_of(a)) for a in arrays]
    g = Graph.of(inputs, apply(row.op, inputs))
    plan = make_plan(Function(g))
    cpu = numpy_executor()

    uploaded = [gpu.from_host(type_of(a), cpu.to_host(a)) for a in arrays]
    found = [
        cpu.from_host(type, gpu.to_host(y)) for type, y in zip(g.output_types, gpu.run(plan, uploaded), strict=True)
    ]

    for want, got, type in zip(cpu.run(plan, arrays), found, g.output_types, strict=True):
        assert type_of(got) == type
        if type.dtype.is_float:
            tolerance = {2: 2e-2, 4: 1e-5, 8: 1e-9 if isinstance(row.op, MatrixOp) else 1e-12}[type.dtype.itemsize]
            wide = got.astype(np.float64), want.astype(np.float64)
            if isinstance(row.op, Eigh | Svd | Qr):  # the signs of the vectors are the library's choice
                wide = np.abs(wide[0]), np.abs(wide[1])
            np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(got, want)
