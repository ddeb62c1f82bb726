"""Ctrl-C and given-up reads: the session goes on, and nothing is lost or kept."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.critical import Critical
from telegrad.errors import TimedOut
from telegrad_server.embedded import open_worker

# hypothesis watches garbage collection in Python; an interrupt that hits it is lost there, and comes again
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def interrupt(work: Callable[[], Any], *, after_seconds: float) -> None:
    """Repeat ``work`` until Ctrl-C from another thread ends it; pressed again if it was lost."""
    is_over = threading.Event()

    def press() -> None:
        seconds = after_seconds
        while not is_over.wait(seconds):
            os.kill(os.getpid(), signal.SIGINT)
            seconds = 1.0

    thread = threading.Thread(target=press)
    try:
        thread.start()
        while True:
            work()
    except KeyboardInterrupt:
        pass
    is_over.set()
    thread.join()


def test_an_interrupt_comes_after_a_critical_section() -> None:
    steps: list[int] = []
    critical = Critical()
    former = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), critical:
        with critical:
            signal.raise_signal(signal.SIGINT)
            steps.append(1)
        steps.append(2)
    assert steps == [1, 2]
    assert signal.getsignal(signal.SIGINT) is former
    with critical:
        steps.append(3)  # it is free, and the interrupt is not raised twice


def test_an_interrupt_in_two_sections_at_once_comes_after_the_outer() -> None:
    outer, inner = Critical(), Critical()
    steps: list[int] = []
    with pytest.raises(KeyboardInterrupt), outer:
        with inner:
            signal.raise_signal(signal.SIGINT)
        steps.append(1)
    assert steps == [1]


def test_a_programs_own_handler_hears_of_it_and_stays() -> None:
    heard: list[int] = []

    def handler(number: int, frame: object) -> None:
        heard.append(number)

    former = signal.signal(signal.SIGINT, handler)
    try:
        with Critical():
            signal.raise_signal(signal.SIGINT)
            assert not heard
        assert heard == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, former)


def test_what_waits_before_the_lock_can_be_interrupted() -> None:
    critical = Critical(lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), critical:
        raise AssertionError
    assert not critical._lock.locked()


def _calls(x: tg.Tensor) -> Callable[[], Any]:
    count = tg.Variable(0.0)

    @tg.function
    def step(x: tg.Tensor) -> tg.Tensor:
        count.assign(count + 1)
        return x + 1

    return lambda: step(x)


def _eager(x: tg.Tensor) -> Callable[[], Any]:
    def work() -> None:
        y = x
        for _ in range(10):
            y = y * 1.5 + 1
        y.sum().item()

    return work


def _scopes(x: tg.Tensor) -> Callable[[], Any]:
    def work() -> None:
        with x.session.scope() as scope:
            scope.keep(x * 2)

    return work


def _uploads(x: tg.Tensor) -> Callable[[], Any]:
    array = np.ones(50_000, np.float32)
    return lambda: tg.asarray(array)


@pytest.mark.parametrize("make", [_calls, _eager, _scopes, _uploads])
def test_a_session_survives_interrupts_at_any_moment(session: tg.Session, make: Callable[..., Any]) -> None:
    x = tg.asarray(np.ones(3, np.float32))
    work = make(x)
    total = tg.Variable(0.0)

    @tg.function
    def add() -> tg.Tensor:
        total.assign(total + 1)
        return total.sum()

    for trial in range(25):
        interrupt(work, after_seconds=0.001 + 0.0007 * trial)
        assert (x + 1).tolist() == [2, 2, 2]
        assert add().numpy(timeout_seconds=30) == trial + 1


def test_an_interrupted_step_has_happened_as_a_whole_or_not_at_all(session: tg.Session) -> None:
    a, b = tg.Variable(0.0), tg.Variable(0.0)
    began = 0

    @tg.function
    def step() -> None:
        a.assign(a + 1)
        b.assign(b - 1)

    def begin() -> None:
        nonlocal began
        began += 1
        step()

    begin()
    for trial in range(25):
        interrupt(begin, after_seconds=0.001 + 0.0005 * trial)
        assert a.item() == -b.item()
    assert began - 25 <= a.item() <= began


def test_a_read_that_is_given_up_keeps_nothing_on_the_server() -> None:
    worker = open_worker("numpy")
    with tg.connect(backend="numpy", new=True) as session:
        x = tg.ones((1 << 17,))
        session.synchronize()
        before = worker.statistics()
        y = x * 2
        with pytest.raises(TimedOut):
            y.numpy(timeout_seconds=0)
        del y
        session.release()
        session.synchronize()
        session.release()
        session.synchronize()
        after = worker.statistics()
        assert after["bytes"] <= before["bytes"] + 2  # the markers of synchronize
