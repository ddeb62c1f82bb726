"""Graphs as text: readable, and the same graph again when read."""

from __future__ import annotations

import pytest
from telegrad import ops
from telegrad.errors import GraphError
from telegrad.ir import Graph, Type, new_input
from telegrad.ir import types as t
from telegrad.ir.text import from_text, to_text
from telegrad.ir.verify import verify
from telegrad.ops.control import Barrier

from tests.compiler.graphs import RandomGraph


def test_text_shows_ops_attributes_types_and_outputs() -> None:
    x = new_input(Type((2, 3), t.float32))
    g = Graph.of([x], [ops.sum(ops.astype(x * -0.0, t.float64), axis=0), *Barrier(2).results(x, x)])

    assert to_text(g).splitlines() == [
        "%0 = input[shape=(2, 3), dtype=float32]() : float32[2,3]",
        "%1 = constant[value=-0.0, dtype=float32]() : float32[]",
        "%2 = multiply(%0, %1) : float32[2,3]",
        "%3 = cast[dtype=float64](%2) : float64[2,3]",
        "%4 = sum[axes=(0,)](%3) : float64[3]",
        "%5 = barrier[count=2](%0, %0) : float32[2,3], float32[2,3]",
        "-> %4, %5.0, %5.1",
    ]


def test_random_graphs_survive_text() -> None:
    for seed in range(100):
        text = to_text(RandomGraph(seed).build(40))
        again = from_text(text)

        verify(again)
        assert to_text(again) == text


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), -0.0, 1e-320, 5, True])
def test_every_number_survives_text(number: float) -> None:
    dtype = t.bool_ if number is True else t.int8 if number == 5 else t.float64
    x = new_input(Type((), dtype))
    text = to_text(Graph.of([x], [x.literal(number, dtype)]))

    assert to_text(from_text(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "%0 = input[shape=(), dtype=float32]() : float32[]",
        "%1 = input[shape=(), dtype=float32]() : float32[]\n-> %1",
        "%0 = exp(%0) : float32[]\n-> %0",
        "-> %0",
        "%0 = no_such_op() : float32[]\n-> %0",
        "%0 = input[shape=(), dtype=float32]() : float32[]\n-> %0.1",
        "hello\n->",
    ],
)
def test_what_is_no_graph_is_refused(text: str) -> None:
    with pytest.raises(GraphError):
        from_text(text)
