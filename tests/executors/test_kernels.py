"""Every op of the table, planned: a body that writes into given memory has the bits of the op's own ``eval``."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import pytest
from telegrad.ir import Function, Graph, Value, new_input
from telegrad.ir.value import apply
from telegrad.ops.elementwise import Cast
from telegrad.wire.arrays import type_of
from telegrad_server.compiler.plan import make_plan
from telegrad_server.executors.array import numpy_executor

from tests.compiler.graphs import interpret, same_bits
from tests.ops.registry import Sample
from tests.ops.registry.tiers import sample_rows

Array = npt.NDArray[Any]


def copied(x: Value) -> Value:
    """x in the arena, where it may be written over."""
    return Cast(x.dtype)(x)


@pytest.mark.parametrize("row", sample_rows())
def test_a_body_has_the_bits_of_eval(row: Sample) -> None:
    arrays = row.arrays
    inputs = [new_input(type_of(a)) for a in arrays]
    outputs = [*apply(row.op, inputs), *apply(row.op, [copied(x) for x in inputs])]
    scratch = [copied(y) for y in apply(row.op, [copied(x) for x in inputs])]
    g = Graph.of(inputs, [*outputs, *scratch])
    executor = numpy_executor(is_poisoned=True)

    found = executor.run(make_plan(Function(g)), arrays)

    for want, got, type in zip(interpret(g, arrays), found, g.output_types, strict=True):
        assert type_of(got) == type
        assert same_bits(want, got)
