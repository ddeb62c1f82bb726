"""`tg.data.prefetch`: batches that are there before their step, and nothing left of them after it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import GraphError, ScopeClosed

LARGE = 20_000


def numbered(count: int, size: int = LARGE) -> Iterator[Any]:
    """Batches in one buffer, which is filled anew for each."""
    buffer = np.empty(size, np.float32)
    for k in range(count):
        buffer[:] = k
        yield buffer


def tensors(session: tg.Session) -> int:
    """How many names the session holds on the server in this process."""
    from telegrad_server import embedded

    session.synchronize()
    worker = embedded.known_worker("numpy")
    assert worker is not None
    return worker.statistics()["tensors"]


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("size", [3, LARGE])
def test_batches_come_in_order_as_they_were_when_they_were_asked_for(
    session: tg.Session, depth: int, size: int
) -> None:
    found = [x.sum().item() / size for x in tg.data.prefetch(numbered(5, size), depth=depth)]

    assert found == [0, 1, 2, 3, 4]


def test_so_many_are_on_their_way_when_one_comes_out(session: tg.Session) -> None:
    asked: list[int] = []

    def batches() -> Iterator[Any]:
        for k, batch in enumerate(numbered(6)):
            asked.append(k)
            yield batch

    ahead = [(next_in, len(asked)) for next_in, _ in enumerate(tg.data.prefetch(batches(), depth=2))]

    assert ahead == [(0, 3), (1, 4), (2, 5), (3, 6), (4, 6), (5, 6)]


def test_nests_keep_their_form_and_what_is_no_array_stays(session: tg.Session) -> None:
    @dataclass
    class Batch:
        x: Any
        more: Any

    given = Batch(np.ones(4, np.float32), {"ids": (np.arange(3), "name"), "scale": 2.5, "none": None})
    (found,) = tg.data.prefetch([given])

    assert isinstance(found, Batch)
    assert isinstance(found.x, tg.Tensor)
    ids, name = found.more["ids"]
    assert isinstance(ids, tg.Tensor)
    assert (ids.tolist(), name, found.more["scale"], found.more["none"]) == ([0, 1, 2], "name", 2.5, None)


def test_a_tensor_passes_as_it_is(session: tg.Session) -> None:
    x = tg.asarray(np.ones(LARGE, np.float32))

    (found,) = tg.data.prefetch([(x, 1)])

    assert found[0] is x


def test_a_function_is_called_with_it(session: tg.Session) -> None:
    step = tg.function(lambda batch: (batch["x"] * batch["y"]).sum())  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType, reportUnknownVariableType, reportUnknownMemberType]
    batches = [{"x": np.full(LARGE, k, np.float32), "y": np.ones(LARGE, np.float32)} for k in range(3)]

    assert [step(batch).item() for batch in tg.data.prefetch(batches)] == [0, LARGE, 2 * LARGE]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType, reportUnknownVariableType]
    assert step.traces == 1  # pyright: ignore[reportUnknownMemberType]


def test_scopes_of_the_loop_free_what_the_loop_made_and_no_batch(session: tg.Session) -> None:
    sums: list[float] = []
    for x in tg.data.prefetch(numbered(5)):
        with session.scope():
            sums.append((x * 2).sum().item())

    assert sums == [2 * k * LARGE for k in range(5)]


def test_batches_belong_to_the_scope_they_were_asked_for_in(session: tg.Session) -> None:
    with session.scope():
        ahead = tg.data.prefetch(numbered(3))
        x = next(ahead)
    with pytest.raises(ScopeClosed):
        (x * 2).numpy()
    ahead.close()


def test_a_loop_that_is_left_early_leaves_nothing() -> None:
    with tg.connect(backend="numpy", new=True) as session:
        threads = threading.active_count()
        before = tensors(session)

        for k, _ in enumerate(tg.data.prefetch(numbered(100), depth=5)):
            if k == 3:
                break
        del _
        gc.collect()
        session.release()

        assert tensors(session) == before
        assert threading.active_count() <= threads


def test_a_loop_that_raises_leaves_nothing() -> None:
    def loop() -> None:
        for _ in tg.data.prefetch(numbered(100), depth=5):
            raise ZeroDivisionError

    with tg.connect(backend="numpy", new=True) as session:
        before = tensors(session)

        with pytest.raises(ZeroDivisionError):
            loop()
        gc.collect()
        session.release()

        assert tensors(session) == before


def test_no_more_batches_are_held_than_promised() -> None:
    with tg.connect(backend="numpy", new=True) as session:
        before = tensors(session)
        held: list[int] = []
        _: Any = None
        for _ in tg.data.prefetch(numbered(20), depth=2):
            session.release()
            held.append(tensors(session) - before)
        del _

        assert max(held) <= 3 + 1  # the one that the loop still held while the next was uploaded


def test_a_session_that_is_closed_ends_it_quietly() -> None:
    with tg.connect(backend="numpy", new=True):
        ahead = tg.data.prefetch(numbered(9))
        next(ahead)

    ahead.close()


def test_a_depth_of_none_is_refused(session: tg.Session) -> None:
    with pytest.raises(GraphError, match="depth"):
        tg.data.prefetch([], depth=0)
