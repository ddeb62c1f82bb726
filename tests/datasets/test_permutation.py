"""The order of rows: a bijection, even enough, and each place by itself."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telegrad.errors import GraphError, IndexRange
from telegrad_server.datasets import permuted

GOLDEN_10 = [3, 8, 9, 7, 0, 5, 1, 4, 6, 2]
GOLDEN_60000 = [3366, 19126, 57419]

seeds = st.integers(0, 2**64 - 1)


@given(rows=st.integers(1, 3000), seed=seeds, epoch=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_every_row_comes_once(rows: int, seed: int, epoch: int) -> None:
    order = permuted(np.arange(rows), rows=rows, seed=seed, epoch=epoch)

    assert sorted(order.tolist()) == list(range(rows))


@given(rows=st.integers(1, 3000), seed=seeds, data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_place_alone_is_as_in_the_whole_table(rows: int, seed: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, rows - 1))
    order = permuted(np.arange(rows), rows=rows, seed=seed, epoch=1)

    assert permuted(place, rows=rows, seed=seed, epoch=1) == order[place]
    assert permuted([[place], [0]], rows=rows, seed=seed, epoch=1).tolist() == [[order[place]], [order[0]]]


@given(rows=st.integers(2**40, 2**63 - 1), seed=seeds)
@settings(max_examples=50, deadline=None)
def test_more_rows_than_a_table_could_hold(rows: int, seed: int) -> None:
    places = np.linspace(0, rows - 1025, 512).astype(np.int64)

    order = permuted(places, rows=rows, seed=seed, epoch=0)

    assert len(set(order.tolist())) == 512
    assert order.min() >= 0 and order.max() < rows


@pytest.mark.slow
def test_every_order_of_few_rows_is_as_likely_as_another() -> None:
    tries = 6000
    for rows, orders in ((2, 2), (3, 6), (4, 24)):
        counts = Counter(tuple(permuted(np.arange(rows), rows=rows, seed=s, epoch=0).tolist()) for s in range(tries))

        expected = tries / orders
        chi_squared = sum((counts[o] - expected) ** 2 / expected for o in counts)
        assert len(counts) == orders
        assert chi_squared < orders - 1 + 5 * (2 * (orders - 1)) ** 0.5


@pytest.mark.parametrize("rows", [10, 97, 100, 1000])
def test_a_place_holds_every_row_as_often_and_neighbours_are_far_apart(rows: int) -> None:
    epochs = 2000
    orders = np.stack([permuted(np.arange(rows), rows=rows, seed=7, epoch=e) for e in range(epochs)])

    for place in (0, rows // 2, rows - 1):
        counts = np.bincount(orders[:, place], minlength=rows)
        chi_squared = float((((counts - epochs / rows) ** 2) / (epochs / rows)).sum())
        assert chi_squared < rows - 1 + 5 * (2 * (rows - 1)) ** 0.5
    steps = (orders[:, 1:] - orders[:, :-1]) % rows
    counts = np.bincount(steps.reshape(-1), minlength=rows)[1:]
    expected = steps.size / (rows - 1)
    assert counts.min() > expected - 6 * expected**0.5
    assert counts.max() < expected + 6 * expected**0.5


def test_orders_of_two_epochs_or_seeds_have_one_row_in_its_place_on_average() -> None:
    first = permuted(np.arange(10_000), rows=10_000, seed=1, epoch=1)

    for seed, epoch in ((1, 2), (2, 1)):
        other = permuted(np.arange(10_000), rows=10_000, seed=seed, epoch=epoch)
        assert (first == other).sum() < 10


def test_the_order_never_changes_between_versions() -> None:
    assert permuted(range(10), rows=10, seed=0, epoch=0).tolist() == GOLDEN_10
    assert permuted([0, 1, 59_999], rows=60_000, seed=2**64 - 1, epoch=12).tolist() == GOLDEN_60000


def test_a_place_outside_is_refused() -> None:
    for places, rows in (([10], 10), ([-1], 10), ([0], 0)):
        with pytest.raises(IndexRange):
            permuted(places, rows=rows, seed=0, epoch=0)
    with pytest.raises(GraphError):
        permuted([0], rows=1, seed=-1, epoch=0)
    assert permuted([], rows=0, seed=0, epoch=0).shape == (0,)
