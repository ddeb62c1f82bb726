"""`Tensor.item_async`: a number that is asked for now and read later, on both connections."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import IndexRange, ServerUnavailable, SessionError, ShapeError, TelegradError, TraceError

take = tg.function(lambda x, i: tg.take(x, i).sum())  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType, reportUnknownVariableType, reportUnknownMemberType]


def wrong(session: tg.Session) -> tg.Tensor:
    """A number that cannot be computed."""
    return take(tg.asarray(np.ones(3, np.float32)), np.array([7]))  # type: ignore[no-any-return]


def test_the_number_is_that_of_item(session: tg.Session) -> None:
    x = tg.asarray([1.5, 2.5]).sum()

    later = x.item_async()

    assert later.result() == 4.0 == x.item()
    assert later.done()
    assert later.result() == 4.0


def test_what_is_known_here_is_here_at_once(session: tg.Session) -> None:
    later = tg.asarray(3).item_async()

    assert later.done()
    assert later.result() == 3
    assert type(later.result()) is int


def test_it_is_the_value_of_that_moment(session: tg.Session) -> None:
    v = tg.Variable(np.float32(0))
    seen: list[Any] = []
    for i in range(5):
        v.assign(v + 1)
        seen.append(v.item_async())
        assert i == len(seen) - 1

    assert [later.result() for later in seen] == [1, 2, 3, 4, 5]


def test_a_loop_may_print_what_has_come(session: tg.Session) -> None:
    step = tg.function(lambda x: x * 2)
    waiting: deque[Any] = deque()
    printed: list[float] = []
    for i in range(30):
        waiting.append(step(tg.asarray(float(i))).item_async())
        while waiting and waiting[0].done():
            printed.append(waiting.popleft().result())
    printed += [later.result() for later in waiting]

    assert printed == [2.0 * i for i in range(30)]


def test_an_error_comes_out_of_the_result(session: tg.Session) -> None:
    later = wrong(session).item_async()

    with pytest.raises(IndexRange) as caught:
        later.result(timeout=30)
    assert caught.value.location is not None
    assert __file__ in caught.value.location
    assert tg.asarray([1.0, 2.0]).sum().item() == 3.0  # and the session goes on


def test_an_error_of_a_later_step_is_not_raised_by_an_earlier_number(session: tg.Session) -> None:
    good = tg.asarray([1.0, 2.0]).sum().item_async()
    bad = wrong(session).item_async()

    assert good.result() == 3.0
    with pytest.raises(IndexRange):
        bad.result()


def test_an_error_that_nobody_reads_is_raised_by_what_waits_next(session: tg.Session) -> None:
    wrong(session).item_async()

    with pytest.raises(IndexRange):
        session.synchronize()


def test_a_number_that_nobody_wants_leaves_nothing(session: tg.Session) -> None:
    for _ in range(10):
        tg.asarray([1.0, 2.0]).sum().item_async()
    gc.collect()
    session.synchronize()

    assert session.commands.unanswered == 0


def test_it_takes_one_element(session: tg.Session) -> None:
    with pytest.raises(ShapeError, match="one element"):
        tg.asarray([1.0, 2.0]).item_async()


def test_a_traced_tensor_has_no_number(session: tg.Session) -> None:
    @tg.function
    def f(x: tg.Tensor) -> tg.Tensor:
        x.item_async()
        return x

    with pytest.raises(TraceError):
        f(tg.asarray(1.0) + 1)


def test_it_may_be_awaited(session: tg.Session) -> None:
    async def main() -> list[float]:
        numbers = [(tg.asarray([float(i)]) + 1).sum().item_async() for i in range(3)]
        return [await number for number in numbers]

    assert asyncio.run(main()) == [1.0, 2.0, 3.0]


def test_a_session_that_is_closed_ends_the_wait(session: tg.Session) -> None:
    later = tg.asarray([1.0, 2.0]).sum().item_async()
    session.close(check=False)

    try:
        assert later.result(timeout=30) == 3.0  # it came before
    except SessionError as error:
        assert error.reason == "SESSION_CLOSED"


def test_a_lost_session_says_so(session: tg.Session) -> None:
    lost: TelegradError = ServerUnavailable("gone")
    later = tg.asarray([1.0, 2.0]).sum().item_async()
    later.result()
    session.commands._lose(lost)  # pyright: ignore[reportPrivateUsage]

    with pytest.raises(ServerUnavailable):
        (tg.asarray([1.0]) + 1).sum().item_async()
    session.commands.lost = None  # so that it can be closed
