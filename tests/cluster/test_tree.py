"""The tree of summation: complete nodes, the order of additions, divisions."""

from __future__ import annotations

import itertools
import random

import pytest
from telegrad_server.tree import Division, adds_within, children, nodes_within, spans


@pytest.mark.parametrize(
    ("node", "expected"), [((0, 2), (1,)), ((0, 3), (2,)), ((0, 8), (4,)), ((3, 8), (7,)), ((0, 9), (8,))]
)
def test_a_node_splits_at_the_largest_power_of_two_below_its_length(
    node: tuple[int, int], expected: tuple[int]
) -> None:
    (middle,) = expected

    assert children(node) == ((node[0], middle), (middle, node[1]))


def test_a_block_holds_the_largest_nodes_that_lie_within_it() -> None:
    assert nodes_within(0, 8, replicas=8) == ((0, 8),)
    assert nodes_within(0, 4, replicas=8) == ((0, 4),)
    assert nodes_within(1, 7, replicas=8) == ((1, 2), (2, 4), (4, 6), (6, 7))
    assert nodes_within(4, 7, replicas=7) == ((4, 7),)
    assert nodes_within(3, 3, replicas=7) == ()


def test_however_replicas_are_divided_the_same_additions_are_made() -> None:
    rng = random.Random(0)
    for _ in range(300):
        replicas, size = rng.randint(1, 40), rng.randint(1, 6)
        cuts = [0, *sorted(rng.randint(0, replicas) for _ in range(size - 1)), replicas]
        division = Division(replicas, tuple(itertools.pairwise(cuts)))

        own = [add for _, node in division.contributions for add in adds_within(node)]

        assert sorted([*own, *division.adds]) == sorted(adds_within((0, replicas)))


def test_additions_come_after_what_they_need() -> None:
    made = {(r, r + 1) for r in range(13)}

    for add in adds_within((0, 13)):
        assert add.left in made
        assert add.right in made
        made.add(add.out)

    assert (0, 13) in made


def test_even_divisions_and_spans_give_the_first_ones_more() -> None:
    assert spans(7, 3) == [(0, 3), (3, 5), (5, 7)]
    assert Division.even(2, size=3).blocks == ((0, 1), (1, 2), (2, 2))


@pytest.mark.parametrize("blocks", [((0, 2),), ((0, 1), (2, 4)), ((0, 3), (3, 2), (2, 4)), ((1, 4),)])
def test_what_is_no_division_is_refused(blocks: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError):
        Division(4, blocks)
