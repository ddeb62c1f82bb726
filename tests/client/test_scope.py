"""Scopes: lifetimes on the server as blocks on the client."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import ScopeClosed, SessionError

pytestmark = pytest.mark.usefixtures("session")


def big() -> tg.Tensor:
    return tg.asarray(np.ones(1000, np.float32))


def test_what_is_made_inside_is_freed() -> None:
    with tg.connect(backend="numpy", new=True) as session:
        with session.scope():
            x = big() * 2
            x.numpy()

        with pytest.raises(ScopeClosed, match="keep"):
            x.numpy()
        with pytest.raises(ScopeClosed):
            x + 1


def test_kept_tensors_move_to_the_parent(session: tg.Session) -> None:
    with session.scope() as outer:
        with session.scope() as inner:
            x, y = inner.keep({"x": big() * 2, "y": [big() * 3]}).values()
        assert x.numpy()[0] == 2
        outer.keep(y)

    with pytest.raises(ScopeClosed):
        x.numpy()
    assert y[0].numpy()[0] == 3


def test_what_a_scoped_function_returns_lives_on(session: tg.Session) -> None:
    inner: list[tg.Tensor] = []

    @tg.scoped
    def norm(x: tg.Tensor) -> tg.Tensor:
        inner.append(x * x)
        return inner[0].sum()

    x = big()

    assert norm(x).item() == 1000
    with pytest.raises(ScopeClosed):
        inner[0].numpy()


def test_an_exception_frees_everything(session: tg.Session) -> None:
    with pytest.raises(ZeroDivisionError), session.scope() as scope:
        x = scope.keep(big() * 2)
        raise ZeroDivisionError

    with pytest.raises(ScopeClosed):
        x.numpy()


def test_outer_tensors_that_are_pending_survive_the_end_of_an_inner_scope(session: tg.Session) -> None:
    x = big()
    with session.scope():
        y = x * 2
        y.numpy()
    z = x + 1

    assert z.numpy()[0] == 2


def test_a_parameters_gradient_belongs_to_the_parameters_scope(session: tg.Session) -> None:
    w = tg.Parameter(np.ones(1000, np.float32))

    @tg.function
    def f(x: tg.Tensor) -> tg.Tensor:
        loss = (w * x).sum()
        loss.backward()
        return loss

    with session.scope():
        f(big())

    assert w.grad is not None and w.grad.numpy()[0] == 1


def test_updates_of_variables_outlive_the_scope_of_the_step(session: tg.Session) -> None:
    v = tg.Variable(np.zeros(1000, np.float32))
    with session.scope():
        v.assign(v + big())

    assert v.numpy()[0] == 1


def test_a_closed_session_says_so() -> None:
    with tg.connect(backend="numpy", new=True):
        x = big()

    with pytest.raises(SessionError, match="closed"):
        x.numpy()


def test_collected_handles_are_released(session: tg.Session) -> None:
    for _ in range(1000):
        big()
    gc.collect()
    session.release()
    session.synchronize()

    assert tg.asarray([1.0]).item() == 1
