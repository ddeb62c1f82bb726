"""The list of passes, in order. Each says what it may change: "exact" passes no bit, "rounding" passes last ones."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

from telegrad.autodiff import at_most
from telegrad.ir.graph import Function, Graph
from telegrad.ir.verify import verify_function

from telegrad_server.compiler.cse import common_subexpressions
from telegrad_server.compiler.cuda_words import CUDA
from telegrad_server.compiler.expressions import C
from telegrad_server.compiler.fold import fold
from telegrad_server.compiler.fuse import fuse, fuse_region, is_worth_fusing
from telegrad_server.compiler.gradients import gradients
from telegrad_server.compiler.inline import inline, remove_barriers, unmark
from telegrad_server.compiler.limits import Limits, check_cost
from telegrad_server.compiler.loops import in_regions, join_loops, prune_loops
from telegrad_server.compiler.parts import Cut, cut
from telegrad_server.compiler.pieces import joined_pieces
from telegrad_server.compiler.places import place_of_input, with_moves
from telegrad_server.compiler.plan import Plan, make_plan
from telegrad_server.compiler.replicas import Share, divided
from telegrad_server.compiler.shards import sharded
from telegrad_server.compiler.transposed import transposed_products


class Place(NamedTuple):
    """A worker among those that run a function together."""

    rank: int
    size: int


class Pass(NamedTuple):
    """A pass: its name, what it may change, and the function. Dead code goes with every one of them."""

    name: str
    kind: Literal["exact", "rounding"]
    run: Callable[[Graph], Graph]


LOWERING: tuple[Pass, ...] = (
    Pass("gradients", "exact", gradients),
    Pass("join_loops", "exact", join_loops),
    Pass("inline", "exact", inline),
    Pass("unmark", "exact", unmark),
)
"""What turns a graph as the client writes it into one that can run."""

OPTIMISATIONS: tuple[Pass, ...] = (
    Pass("transposed_products", "rounding", transposed_products),
    Pass("joined_pieces", "exact", joined_pieces),
    Pass("fold", "exact", fold),
    Pass("common_subexpressions", "exact", common_subexpressions),
    Pass("remove_barriers", "exact", remove_barriers),
    Pass("prune_loops", "exact", prune_loops),
)
"""What makes it cheaper; a graph runs without any of them."""

PASSES = LOWERING + OPTIMISATIONS


def lowered(graph: Graph) -> Graph:
    """The graph as it can run: gradients are ops like others, and keep the origins of what they are of."""
    for step in LOWERING:
        graph = in_regions(step.run(graph), step.run)
    return graph


def optimise(graph: Graph, *, without: Collection[str] = ()) -> Graph:
    """The graph after all passes, except those named in ``without``; the regions of loops go through them as well."""
    for step in PASSES:
        if step.name not in without:
            graph = in_regions(step.run(graph), step.run)
    return graph


def compile_function(
    function: Function,
    *,
    limits: Limits | None = None,
    share: Share | None = None,
    place: Place | None = None,
    kernels: Literal["c", "cuda", "none"] = "none",
) -> Plan:
    """The plan for a function. That of a data-parallel one is for a worker that carries the replicas of ``share``, or
    all of them: its operands and results with rows have those of the share. With a ``place`` the variables that can be
    divided over the group are the worker's spans, [elements]. With ``kernels`` ops are put together for those of the
    executor in C or CUDA; which are is the same for every share.

    Raises GraphError for a graph that is not legal or has no gradient, TooExpensive for one beyond the limits;
    nothing has been allocated then.
    """
    verify_function(function)
    limits = limits or Limits()
    with _collections_paused(), at_most(limits.rules):
        ready = Function(optimise(function.graph), function.updates)
        if function.replication is not None:
            rest = function.replication.rest
            graphs = [ready.graph] if rest is None else [ready.graph, optimise(rest)]
            ready = divided(function, graphs, share)
            if place is not None:
                ready = Function(sharded(ready.graph, ready.updates, rank=place.rank, size=place.size), ready.updates)
        flops = check_cost(ready.graph, limits)
        uses_kernels = kernels != "none" and is_worth_fusing(function.graph)
        if uses_kernels:
            dialect = CUDA if kernels == "cuda" else C
            regions = partial(fuse_region, dialect=dialect)
            ready = Function(in_regions(fuse(ready.graph, dialect), regions), ready.updates)
        return make_plan(ready, flops=flops, uses_library=uses_kernels and kernels == "c")


def compile_parts(function: Function, places: Sequence[int | None], *, limits: Limits | None = None) -> Cut:
    """The parts of a function whose inputs live on the workers in ``places``, None for those that a call brings along.

    Raises what `compile_function` raises.
    """
    verify_function(function)
    limits = limits or Limits()
    with _collections_paused(), at_most(limits.rules):
        graph = with_moves(function.graph, [place_of_input(worker) for worker in places])
        graph = optimise(graph, without=("unmark",))
        check_cost(graph, limits)
        return cut(Function(graph, function.updates), places)


@contextmanager
def _collections_paused() -> Generator[None, None, None]:
    """No garbage collection: a pass makes objects by the million and drops none, so each would walk them in vain."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
