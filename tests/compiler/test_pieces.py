"""Gradients of what was taken apart: pieces are joined, not added up among zeros."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.verify import verify
from telegrad.ops.control import Gradient
from telegrad.ops.slices import Unslice
from telegrad_server.compiler.pieces import joined_pieces
from telegrad_server.compiler.pipeline import optimise

from tests.compiler.graphs import interpret, same_bits


def names(graph: Graph) -> Counter[str]:
    return Counter(node.op.name for node in graph.nodes)


def gradient_of_parts(bounds: list[tuple[int, int]], *, axis: int, is_inner: bool) -> Graph:
    """The gradient of x, of which parts go through a function or a transpose each."""
    x = new_input(Type((7, 12), t.float32))
    y: Value = new_input(Type((), t.float32))
    total = y
    for start, stop in bounds:
        part = x[:, start:stop] if axis else x[start:stop]
        part = ops.tanh(part) if is_inner else ops.matrix_transpose(part)
        total = total + ops.sum(ops.square(part) * float(stop))
    return Graph.of([x, y], Gradient(1).results(total, y, x))


@pytest.mark.parametrize("is_inner", [True, False])
@pytest.mark.parametrize(
    ("axis", "bounds"), [(1, [(3, 12), (0, 3)]), (1, [(0, 4), (4, 5), (5, 12)]), (0, [(0, 2), (2, 7)])]
)
def test_pieces_without_a_gap_are_joined_to_the_bit(axis: int, bounds: list[tuple[int, int]], is_inner: bool) -> None:
    graph = gradient_of_parts(bounds, axis=axis, is_inner=is_inner)
    x = np.random.default_rng(0).standard_normal((7, 12)).astype(np.float32)
    x[2], x[:, 1], x[3, 3] = -0.0, np.inf, np.nan

    before, after = optimise(graph, without=["joined_pieces"]), optimise(graph)

    verify(after)
    assert names(before)["unslice"] == len(bounds)
    assert names(after)["unslice"] == 0 and names(after)["concat"] == 1
    arrays = [x, np.array(-1.0, np.float32)]
    assert all(map(same_bits, interpret(before, arrays), interpret(after, arrays)))


@pytest.mark.parametrize("bounds", [[(0, 3), (4, 12)], [(0, 5), (4, 12)], [(0, 12), (0, 12)], [(0, 3), (3, 11)]])
def test_pieces_that_leave_gaps_or_overlap_are_added_up(bounds: list[tuple[int, int]]) -> None:
    assert names(optimise(gradient_of_parts(bounds, axis=1, is_inner=True)))["concat"] == 0


def test_a_piece_that_is_needed_by_itself_stays() -> None:
    x, y = new_input(Type((3,), t.float32)), new_input(Type((2,), t.float32))
    one, other = Unslice((0,), (3,), (1,), (5,))(x), Unslice((3,), (5,), (1,), (5,))(y)

    assert names(joined_pieces(Graph.of([x, y], [one + other])))["concat"] == 1
    assert names(joined_pieces(Graph.of([x, y], [one + other, one])))["concat"] == 0
