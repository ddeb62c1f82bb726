"""Generated kernels on a GPU: every op of the numeric registry and training steps of models, against NumPy.

Written on machines without a GPU, and not run yet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from telegrad.ir import types as t
from telegrad.wire.arrays import numpy_dtype
from telegrad_server.compiler.plan import Plan
from telegrad_server.executors import pick_executor
from telegrad_server.executors.array import numpy_executor

from tests.executors.cuda_corpus import registry_plans, step_plans

pytestmark = pytest.mark.gpu

REPEATS = 20


@pytest.fixture(scope="module")
def gpu() -> Any:
    pick_executor("cupy")
    from telegrad_server.executors.cupy_module import cupy_executor

    executor = cupy_executor(kernels="auto")
    assert executor.kernels == "cuda"
    return executor


def arrays_for(plan: Plan, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    types = [plan.slots[i].type for i in plan.inputs]
    return [
        np.abs(rng.normal(0, 0.05, x.shape)).astype(numpy_dtype(x.dtype)) if x.dtype.is_float
        else np.full(x.shape, 5 if x.dtype is t.uint32 else 0, numpy_dtype(x.dtype))
        for x in types
    ]  # fmt: skip


def check(gpu: Any, plan: Plan, plain: Plan, *, tolerance: float) -> None:
    """The GPU gives what NumPy gives, and the same bits each time."""
    cpu, arrays = numpy_executor(), arrays_for(plan, 1)
    types = [plan.slots[i].type for i in plan.inputs]
    uploaded = [gpu.from_host(type, cpu.to_host(a)) for type, a in zip(types, arrays, strict=True)]

    runs = [[bytes(gpu.to_host(y)) for y in gpu.run(plan, uploaded)] for _ in range(REPEATS)]

    assert all(run == runs[0] for run in runs)
    for want, got in zip(cpu.run(plain, arrays), runs[0], strict=True):
        found = np.frombuffer(got, want.dtype).reshape(want.shape)
        if want.dtype.kind in "fV":
            np.testing.assert_allclose(found.astype(float), want.astype(float), rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(found, want)


def test_training_steps_of_models(gpu: Any) -> None:
    for _, plan, plain in step_plans():
        check(gpu, plan, plain, tolerance=2e-3)


def test_every_op_of_the_registry(gpu: Any) -> None:
    for plan in registry_plans():  # NumPy runs a group by its ops
        narrow = any(plan.slots[i].type.dtype.itemsize == 2 for i in plan.inputs)
        check(gpu, plan, plan, tolerance=3e-2 if narrow else 1e-4)
