"""The CUDA of kernels, as text: how threads share shapes, and what is read at once."""

from __future__ import annotations

import pytest
from telegrad import ops
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad_server.compiler.cuda_source import CudaKernel, cuda_kernel
from telegrad_server.compiler.cuda_words import CUDA
from telegrad_server.compiler.fuse import fuse
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.layout import Strides


def fused(*results: Value, inputs: list[Value]) -> Fused:
    graph = fuse(Graph.of(inputs, results), CUDA)
    (op,) = [node.op for node in graph.nodes if isinstance(node.op, Fused)]
    return op


def doubled(
    shape: tuple[int, ...], strides: Strides, *, dtype: t.DType = t.float32, aligned: bool = True
) -> CudaKernel:
    x = new_input(Type(shape, dtype))
    return cuda_kernel(fused(ops.abs(x) * 2, inputs=[x]), [strides], [aligned])


def test_elements_that_lie_together_are_read_16_bytes_at_a_time() -> None:
    assert "load<float, 4>" in doubled((64, 32), (32, 1)).text
    assert "load<unsigned short, 8>" in doubled((64, 32), (32, 1), dtype=t.bfloat16).text
    assert "load_some<float, 4>" in doubled((63, 33), (33, 1)).text


@pytest.mark.parametrize("strides", [(33, 1), (1, 64), (32, -1), (64, 2)])
def test_elements_that_do_not_lie_so_are_read_one_by_one(strides: Strides) -> None:
    kernel = doubled((64, 32), strides)

    assert "load<" not in kernel.text and kernel.aligned == (False,)


def test_rows_apart_by_whole_vectors_are_read_at_once() -> None:
    assert "load<float, 4>" in doubled((64, 32), (36, 1)).text


def test_an_operand_that_may_begin_anywhere_is_read_one_by_one() -> None:
    assert "load<" not in doubled((64, 32), (32, 1), aligned=False).text


def test_indices_are_as_wide_as_the_array_asks_for() -> None:
    assert "long long c" not in doubled((1 << 15, 1 << 15), (1 << 15, 1)).text
    assert "const long long c" in doubled((1 << 16, 1 << 15), (1 << 15, 1)).text


@pytest.mark.parametrize(
    ("length", "threads", "block"), [(10, 32, 128), (512, 32, 128), (768, 128, 128), (16384, 1024, 1024)]
)
def test_a_row_has_as_many_threads_as_it_needs(length: int, threads: int, block: int) -> None:
    x = new_input(Type((100, length), t.float32))
    kernel = cuda_kernel(fused(ops.softmax(x), inputs=[x]), [(length, 1)], [True])

    assert f"of_row<Adds, {threads}>" in kernel.text
    assert kernel.launches[0].block == block
    assert kernel.launches[0].grid == (-(-100 // (block // threads)), 1)


def test_nothing_is_added_up_by_atomics_and_a_sum_over_columns_has_two_stages() -> None:
    x = new_input(Type((4096, 768), t.float32))
    kernel = cuda_kernel(fused(ops.sum(ops.tanh(x), axis=0), inputs=[x]), [(768, 1)], [True])

    assert [launch.suffix for launch in kernel.launches] == ["", "_end"]
    assert "atomic" not in kernel.text
    units = kernel.launches[0].grid[0]
    assert kernel.partials == (4 * 768 * units,)
