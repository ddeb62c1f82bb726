"""How generated kernels reach a GPU: what is compiled, kept, loaded and started, with a stand-in for CuPy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Graph, Type, new_input
from telegrad.ir import types as t
from telegrad.ir.graph import Function
from telegrad_server.compiler.cuda_words import CUDA, DEVICE
from telegrad_server.compiler.fuse import fuse
from telegrad_server.compiler.pipeline import optimise
from telegrad_server.compiler.plan import Plan, make_plan
from telegrad_server.executors.array import ArrayExecutor
from telegrad_server.executors.array_module import NumpyModule
from telegrad_server.executors.cuda_device import CupyDevice
from telegrad_server.executors.cuda_kernels import CudaKernels
from telegrad_server.executors.nvrtc import NvrtcError

ROWS = Type((64, 32), t.float32)


class Compiler:
    """NVRTC's stand-in: it writes down what it was given."""

    version = "0.0"

    def __init__(self, *, fails: bool = False) -> None:
        self.sources: list[str] = []
        self._fails = fails

    def cubin(self, source: str, arch: str, folder: Path) -> Path:
        if self._fails:
            raise NvrtcError("no such architecture")
        self.sources.append(source)
        path = folder / f"{arch}-{len(self.sources)}.cubin"
        path.write_text(source)
        return path


class Module:
    """`cupy.RawModule`: its kernels write down how they were started."""

    def __init__(self, log: list[Any], path: str) -> None:
        self._log = log
        self._source = Path(path).read_text()

    def get_function(self, name: str) -> Any:
        assert f" {name}(" in self._source
        return lambda grid, block, arrays: self._log.append((name, grid, block, [x.shape for x in arrays]))


class HostAddresses(CupyDevice):
    """The device for NumPy's arrays, which say elsewhere where they are."""

    def address(self, array: Any) -> int:
        return array.ctypes.data


def plan_of_column_sums() -> Plan:
    x, b = new_input(ROWS), new_input(Type((32,), t.float32))
    return make_plan(Function(fuse(optimise(Graph.of([x, b], [ops.sum(ops.tanh(x + b), axis=0)])), CUDA)))


def kernels_on(compiler: Any, log: list[Any], folder: Path) -> CudaKernels:
    cp: Any = SimpleNamespace(
        RawModule=lambda *, path: Module(log, path),
        empty=np.empty,
        array=np.array,
    )
    return CudaKernels(HostAddresses(cp, compiler, "sm_90", folder))


def test_a_sum_over_columns_is_started_twice_with_room_for_its_partial_sums(tmp_path: Path) -> None:
    log: list[Any] = []
    compiler = Compiler()
    kernels = kernels_on(compiler, log, tmp_path)
    plan = plan_of_column_sums()

    kernels.prepare(plan)
    body = kernels.body(plan.slots, plan.steps[0])
    assert body is not None
    body(np.zeros((64, 32), np.float32), np.zeros(32, np.float32), np.zeros(32, np.float32))

    (source,) = compiler.sources
    assert source.startswith(DEVICE)
    (first, grid, block, shapes), (second, end_grid, end_block, end_shapes) = log
    assert second == f"{first}_end"
    assert (grid, block) == ((1, 1), (128,)) and (end_grid, end_block) == ((1, 1), (128,))
    assert shapes == end_shapes == [(64, 32), (32,), (32,), (4 * 4 * 32,)]


def test_what_is_loaded_is_not_compiled_again(tmp_path: Path) -> None:
    compiler = Compiler()
    kernels = kernels_on(compiler, [], tmp_path)

    for _ in range(3):
        kernels.prepare(plan_of_column_sums())

    assert len(compiler.sources) == 1


def test_where_the_compiler_fails_the_array_library_runs_the_ops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kernels = kernels_on(Compiler(fails=True), [], tmp_path)
    executor = ArrayExecutor(NumpyModule(), name="numpy", reason="", fingerprint="", cuda=kernels)
    x = np.ones((64, 32), np.float32)

    (found,) = executor.run(plan_of_column_sums(), [x, x[0]])

    np.testing.assert_allclose(found, np.tanh(x + x[0]).sum(axis=0), rtol=1e-6)
    assert "no such architecture" in caplog.text
