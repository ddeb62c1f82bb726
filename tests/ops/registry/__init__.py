"""The numeric registry: what is known of every op beside its rules, in one place.

A module here for each module of `telegrad.ops` that has ops; each lists its `Facts` in ``ROWS``, one for each op. What
is generated from them is in `tests.ops.test_registry`; an op without facts, or with a part missing, fails there.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.ops.registry import (
    attention,
    control,
    convolution,
    cross_entropy,
    decompositions,
    determinants,
    elementwise,
    index,
    linalg,
    norm,
    pooling,
    probability,
    random,
    reduce,
    replicas,
    searching,
    shape,
    slices,
    sparse,
    special,
    systems,
)
from tests.ops.registry.control import ELSEWHERE
from tests.ops.registry.facts import Facts, Sample

__all__ = ["ELSEWHERE", "FACTS", "Facts", "Sample"]

FAMILIES = (
    attention, control, convolution, cross_entropy, decompositions, determinants, elementwise, index, linalg, norm,
    pooling, probability, random, reduce, replicas, searching, shape, slices, sparse, special, systems,
)  # fmt: skip

FACTS: Mapping[str, Facts] = {facts.name: facts for family in FAMILIES for facts in family.ROWS}
"""The facts of each op, by its name."""
