"""Slices before ops: the same bits, and no whole where parts are all that is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from telegrad import ops
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.verify import verify
from telegrad_server.compiler.pipeline import optimise
from telegrad_server.compiler.sliced import slices_first

from tests.compiler.graphs import NARROW, WIDE, RandomGraph, arrays_for, interpret, same_bits

Make = Callable[[Value, Value, Value], Sequence[Value]]
SHAPES = [(4, 12), (4, 12), (12,)]


def graph_of(make: Make, shapes: Sequence[tuple[int, ...]] = SHAPES) -> Graph:
    inputs = [new_input(Type(shape, t.float32)) for shape in shapes]
    return Graph.of(inputs, make(*inputs))


def largest(graph: Graph, name: str) -> int:
    return max(node.types[0].size for node in graph.nodes if node.op.name == name)


def gates(whole: Value) -> list[Value]:
    return [ops.tanh(whole[:, :6]), ops.exp(whole[:, 6:])]


APART: dict[str, Make] = {
    "two matrices": lambda x, y, b: gates(x + y),
    "a row for all": lambda x, y, b: gates(x + b),
    "a column for all": lambda x, y, b: gates(x + y[:, :1]),
    "a number for all": lambda x, y, b: gates(x + b[3]),
    "every other row": lambda x, y, b: [ops.exp((x + y)[::2]), ops.tanh((x + y)[::-2, 3:])],
}
WHOLE: dict[str, Make] = {
    "it leaves": lambda x, y, b: (lambda whole: [whole, *gates(whole)])(x + y),
    "it is read whole as well": lambda x, y, b: (lambda whole: [ops.exp(whole), *gates(whole)])(x + y),
    "a part is no elementwise op's": lambda x, y, b: (lambda w: [ops.exp(w[:, :6]), ops.sum(w[:, 6:], axis=0)])(x + y),
    "it is behind another op": lambda x, y, b: gates(ops.sin(x) + y),
    "parts overlap": lambda x, y, b: (lambda whole: [ops.exp(whole[:, :9]), ops.tanh(whole[:, 3:])])(x + y),
    "a part is empty": lambda x, y, b: (lambda whole: [ops.exp(whole[:, :9]), ops.tanh(whole[:, 3:3])])(x + y),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_an_op_that_is_needed_in_parts_is_done_in_parts(name: str) -> None:
    graph = graph_of(APART[name])
    after = slices_first(graph)
    verify(after)

    assert largest(after, "add") < 48
    arrays = arrays_for(graph, 1)
    assert all(map(same_bits, interpret(after, arrays), interpret(graph, arrays)))


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_needed_as_a_whole_stays_whole(name: str) -> None:
    after = slices_first(graph_of(WHOLE[name]))

    assert largest(after, "add") == 48


def with_halves(graph: Graph, *, axis: int) -> Graph:
    """The graph, and what its matrices are, times one of their rows or columns, in halves."""
    more: list[Value] = []
    for v in graph.outputs:
        if v.ndim == 2 and v.dtype.is_float and min(v.shape) > 1:
            still = ops.reshape(v, v.shape[::-1])
            whole = still * (still[:1] if len(more) % 4 else still[:, 1:2])
            cut = whole.shape[axis] // 2
            first, second = (whole[:cut], whole[cut:]) if axis == 0 else (whole[:, :cut], whole[:, cut:])
            more += [ops.negative(first), second * 0.5]
    return Graph.of(graph.inputs, [*graph.outputs, *more])


@pytest.mark.parametrize("sizes", [NARROW, WIDE])
def test_random_graphs_keep_their_bits(sizes: tuple[int, int]) -> None:
    changed = 0
    for seed in range(150):
        graph = with_halves(optimise(RandomGraph(seed, sizes=sizes).build(50)), axis=seed % 2)
        after = slices_first(graph)
        changed += after is not graph

        verify(after)
        arrays = arrays_for(graph, seed)
        assert all(map(same_bits, interpret(after, arrays), interpret(graph, arrays))), seed
    assert changed > 100
