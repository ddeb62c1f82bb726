"""Generated CUDA becomes machine code for an H100 by NVIDIA's own compiler, which needs no GPU (`scripts/nvrtc`
installs it): no kernel spills, and what lies together is read 16 bytes at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from telegrad import ops
from telegrad.ir import Graph, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.graph import Function
from telegrad.ir.types import Type
from telegrad_server.compiler.cuda_source import CudaKernel
from telegrad_server.compiler.cuda_words import CUDA, DEVICE
from telegrad_server.compiler.fuse import fuse
from telegrad_server.compiler.pipeline import optimise
from telegrad_server.compiler.plan import make_plan
from telegrad_server.executors.cuda_kernels import joined
from telegrad_server.executors.nvrtc import Nvrtc, NvrtcError, found_nvrtc

from tests.executors.cuda_corpus import kernels_of, model_plans, registry_plans

ARCH = "sm_90"
FOLDER = Path(__file__).resolve().parents[2] / ".venv-nvrtc"
WIDE_LOAD = r"ld\.global(?:\.nc)?(?:\.L\S+)?\.(?:v4\.\w32|v2\.\w64)"
WIDE_STORE = r"st\.global\.(?:v4\.\w32|v2\.\w64)"


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    found = found_nvrtc(FOLDER) or found_nvrtc()
    if found is None:
        pytest.skip("NVRTC is not installed: scripts/nvrtc does it")
    return found


def compiled(nvrtc: Nvrtc, kernels: Sequence[CudaKernel]) -> dict[str, int]:
    """Compile; the bytes that each kernel spills, by name."""
    source, names = joined(kernels)
    code, log = nvrtc.compiled(DEVICE + source, ARCH, ["--ptxas-options=-v"])
    spills = spilled(log)
    assert code.startswith(b"\x7fELF")
    assert set(spills) == {name + launch.suffix for k, name in names.items() for launch in k.launches}
    return spills


CALL_BYTES = 16
"""What the calls of the slow ways of a division or a root may put aside."""


def spilled(log: str) -> dict[str, int]:
    """The bytes that the compiler says each kernel keeps in memory for want of registers, or as an indexed array."""
    found: dict[str, int] = {}
    for name, stack, stores, loads in re.findall(
        r"Function properties for (\w+)\n.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        log,
    ):
        found[name] = max(int(stack) + int(stores) + int(loads) - CALL_BYTES, 0)
    return found


def entries(nvrtc: Nvrtc, kernels: Sequence[CudaKernel]) -> dict[CudaKernel, str]:
    """The PTX of each kernel."""
    source, names = joined(kernels)
    parts = re.split(r"\.visible \.entry (\w+)", nvrtc.ptx(DEVICE + source, ARCH))
    by_name = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {k: by_name[name] for k, name in names.items()}


def kernel_of(*results: Value, inputs: Sequence[Value]) -> CudaKernel:
    graph = Graph.of(inputs, results)
    (kernel,) = kernels_of(iter([make_plan(Function(fuse(optimise(graph), CUDA)))]))
    return kernel


@pytest.mark.parametrize("dtype", [t.float32, t.bfloat16, t.float16])
def test_all_that_an_elementwise_kernel_reads_and_writes_is_16_bytes_wide(nvrtc: Nvrtc, dtype: t.DType) -> None:
    x, y, b = (new_input(Type(shape, dtype)) for shape in ((4096, 768), (4096, 768), (768,)))
    h = ops.tanh(x + b)
    kernel = kernel_of(h * y, h, inputs=[x, y, b])

    (text,) = entries(nvrtc, [kernel]).values()

    assert len(re.findall(r"ld\.global", text)) == len(re.findall(WIDE_LOAD, text)) == 3
    assert len(re.findall(r"st\.global", text)) == len(re.findall(WIDE_STORE, text)) == 2


def test_a_long_row_is_read_16_bytes_at_a_time(nvrtc: Nvrtc) -> None:
    x = new_input(Type((64, 4096), t.bfloat16))
    kernel = kernel_of(ops.softmax(x), inputs=[x])

    (text,) = entries(nvrtc, [kernel]).values()

    assert len(re.findall(r"ld\.global", text)) == len(re.findall(WIDE_LOAD, text))
    assert len(re.findall(r"st\.global", text)) == len(re.findall(WIDE_STORE, text))


@pytest.mark.slow
def test_the_kernels_of_models_spill_nothing_and_load_16_bytes_where_they_say_so(nvrtc: Nvrtc) -> None:
    for name, plan in model_plans():
        kernels = kernels_of(iter([plan]))
        assert len(kernels) >= 5, name

        assert not any(compiled(nvrtc, kernels).values()), name
        for kernel, text in entries(nvrtc, kernels).items():
            if "load<float, 4>" in kernel.text or "load_some<float, 4>" in kernel.text:
                assert re.search(WIDE_LOAD, text), kernel.text


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_kernels_of_every_op_compile_and_spill_nothing(nvrtc: Nvrtc) -> None:
    kernels = kernels_of(registry_plans())
    assert len(kernels) > 500

    for first in range(0, len(kernels), 150):
        spills = compiled(nvrtc, kernels[first : first + 150])
        assert not any(spills.values()), {name: n for name, n in spills.items() if n}


def test_a_long_row_with_much_to_keep_is_seen_to_spill(nvrtc: Nvrtc) -> None:
    """The check itself: it finds a spill where there must be one."""
    x = new_input(Type((8, 16384), t.float32))
    kept = [x * k + ops.tanh(x + k) for k in range(12)]
    total = ops.sum(sum(kept[1:], kept[0]), axis=1, keepdims=True)
    kernel = kernel_of(sum([y * total for y in kept[1:]], kept[0]), inputs=[x])

    assert any(compiled(nvrtc, [kernel]).values())


def test_a_source_that_is_none_is_refused_with_the_compilers_words(nvrtc: Nvrtc) -> None:
    with pytest.raises(NvrtcError, match="expected"):
        nvrtc.compiled("void f(", ARCH)


def test_machine_code_is_kept_by_source_arch_and_version(nvrtc: Nvrtc, tmp_path: Path) -> None:
    source = DEVICE + joined([])[0]

    first, other = nvrtc.cubin(source, ARCH, tmp_path), nvrtc.cubin(source, "sm_80", tmp_path)
    before = first.stat().st_mtime_ns
    again = nvrtc.cubin(source, ARCH, tmp_path)

    assert first != other and again == first
    assert first.stat().st_mtime_ns == before
    assert first.read_bytes().startswith(b"\x7fELF")
