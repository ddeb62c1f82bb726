"""An order of rows that lie in blocks: every row once, few blocks at a time, and any place known by itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad_server.datasets import Pass
from telegrad_server.datasets.layout import Layout, Order

GOLDEN = [15, 14, 0, 16, 2, 1, 17, 8, 10, 9, 12, 13, 11, 4, 18, 19, 3, 6, 5, 7]


def layout(block_rows: list[int], window_rows: int) -> Layout:
    return Layout("d" * 64, (("x", Type((), t.int64)),), np.array(block_rows, np.int64), window_rows)


blocks = st.lists(st.integers(1, 23), min_size=1, max_size=30)
seeds = st.none() | st.integers(0, 2**64 - 1)


@given(blocks, st.integers(1, 80), seeds, st.integers(0, 5), st.data())
@settings(max_examples=100, deadline=None)
def test_every_row_of_a_pass_comes_once(
    block_rows: list[int], window: int, seed: int | None, epoch: int, data: st.DataObject
) -> None:
    total = sum(block_rows)
    first = data.draw(st.integers(0, total - 1))
    rows = data.draw(st.integers(1, total - first))

    found = Order(layout(block_rows, window), Pass(first, rows, seed, epoch)).rows(np.arange(rows))

    assert sorted(found.tolist()) == list(range(first, first + rows))
    if seed is None:
        assert found.tolist() == list(range(first, first + rows))


@given(blocks, st.integers(1, 80), st.integers(0, 2**64 - 1), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_any_batch_is_known_by_itself(block_rows: list[int], window: int, seed: int, batch: int) -> None:
    whole = Pass(0, sum(block_rows), seed, 3)
    order = Order(layout(block_rows, window), whole).rows(np.arange(whole.rows))

    for first in range(0, whole.rows, batch):
        places = np.arange(first, min(first + batch, whole.rows))
        alone = Order(layout(block_rows, window), whole).rows(places)
        assert alone.tolist() == order[places].tolist()


@given(blocks, st.integers(1, 80), st.integers(0, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_a_block_is_asked_for_within_one_window_only(block_rows: list[int], window: int, seed: int) -> None:
    """So a loop that has room for a window and the next asks for no block twice in an epoch."""
    of = layout(block_rows, window)
    order = Order(of, Pass(0, of.rows, seed, 0))
    asked = of.blocks_of(order.rows(np.arange(of.rows)))

    for block in range(len(block_rows)):
        at = np.flatnonzero(asked == block)
        assert at[-1] - at[0] < max(window, of.largest_rows)
        place = int(order.block(int(at[0]))[1]) - 1  # what is to be prepared for a place is what lies around it
        assert 0 <= place < of.rows


def test_epochs_seeds_and_windows_have_orders_of_their_own() -> None:
    of = layout([50] * 8, 100)

    def order(seed: int, epoch: int) -> npt.NDArray[np.int64]:
        return Order(of, Pass(0, 400, seed, epoch)).rows(np.arange(400))

    first = order(1, 1)
    for other in (order(2, 1), order(1, 2)):
        assert np.count_nonzero(first == other) < 40
    starts = first.reshape(4, 100) % 50  # where in its block: two windows that were shuffled alike would agree
    assert np.count_nonzero(starts[0] == starts[1]) < 20


def test_the_order_is_the_same_on_all_machines_and_in_all_versions() -> None:
    of = layout([3, 5, 6, 4, 2], 9)

    assert Order(of, Pass(0, 20, 5, 2)).rows(np.arange(20)).tolist() == GOLDEN


@pytest.mark.parametrize("window", [1, 2**40])
def test_windows_of_one_block_and_of_all(window: int) -> None:
    of = layout([4, 4, 4], window)
    found = Order(of, Pass(0, 12, 0, 0)).rows(np.arange(12))

    blocks = of.blocks_of(found).reshape(3, 4)
    assert (len(set(blocks[0].tolist())) == 1) == (window == 1)
