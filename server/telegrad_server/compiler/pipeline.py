"""The list of passes, in order. Each says what it may change: "exact" passes no bit, "rounding" passes the last ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from telegrad.ir.graph import Function, Graph
from telegrad_server.compiler.cse import common_subexpressions
from telegrad_server.compiler.fold import fold
from telegrad_server.compiler.gradients import gradients, inline
from telegrad_server.compiler.limits import Limits, check_cost
from telegrad_server.compiler.plan import Plan, make_plan


class Pass(NamedTuple):
    """A pass: its name, what it may change, and the function. Dead code goes with every one of them."""

    name: str
    kind: str
    run: Callable[[Graph], Graph]


PASSES: tuple[Pass, ...] = (
    Pass("gradients", "exact", gradients),
    Pass("inline", "exact", inline),
    Pass("fold", "exact", fold),
    Pass("common_subexpressions", "exact", common_subexpressions),
)


def optimise(graph: Graph, *, without: tuple[str, ...] = ()) -> Graph:
    """The graph after all passes, except those named in ``without``."""
    for step in PASSES:
        if step.name not in without:
            graph = step.run(graph)
    return graph


def compile_function(function: Function, *, limits: Limits | None = None) -> Plan:
    """The plan for a function. Raises GraphError for what has no gradient, TooExpensive beyond the limits."""
    limits = limits or Limits()
    check_cost(function.graph, limits)
    graph = optimise(function.graph)
    check_cost(graph, limits)
    return make_plan(Function(graph, function.updates))
