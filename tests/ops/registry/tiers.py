"""The samples as rows for ``parametrize``: the first of each op is in the quick tier, all others are marked slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.ops.registry import FACTS
from tests.ops.registry.facts import Facts, Sample

Keep = Callable[[Facts, Sample], bool]


def rows(keep: Keep = lambda facts, sample: True) -> list[Any]:
    """Facts and sample, of every sample that is kept."""
    return [pytest.param(facts, sample, id=name, marks=marks) for name, facts, sample, marks in _kept(keep)]


def sample_rows(keep: Keep = lambda facts, sample: True) -> list[Any]:
    """The same without the facts."""
    return [pytest.param(sample, id=name, marks=marks) for name, _, sample, marks in _kept(keep)]


def _kept(keep: Keep) -> list[tuple[str, Facts, Sample, tuple[pytest.MarkDecorator, ...]]]:
    found: list[tuple[str, Facts, Sample, tuple[pytest.MarkDecorator, ...]]] = []
    for name, facts in FACTS.items():
        marks: tuple[pytest.MarkDecorator, ...] = ()
        for i, sample in enumerate(facts.samples):
            if keep(facts, sample):
                found.append((f"{name}-{i}", facts, sample, marks))
                marks = (pytest.mark.slow,)
    return found
