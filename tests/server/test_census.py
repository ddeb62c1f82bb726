"""What is shown of sessions, how much of it at most, and that it comes through a worker's renewal as it was."""

from __future__ import annotations

import pytest
import telegrad as tg
from telegrad.ir import Type
from telegrad.ir import types as t
from telegrad.wire import messages as m
from telegrad_server import census
from telegrad_server.config import Config
from telegrad_server.embedded import known_worker
from telegrad_server.executors import pick_executor
from telegrad_server.executors.memory import Memory
from telegrad_server.service.loads import load_of, shown
from telegrad_server.sights import ScopeSight, SessionSight, Shown
from telegrad_server.worker import Worker

NUMBER = Type((), t.float32)


def worker_with(scopes: int, names: int) -> tuple[Worker, str]:
    """A worker with a session of so many scopes in each other, each with so many names of 4 bytes."""
    worker = Worker(Config(), pick_executor("numpy"))
    grant = worker.open_session("alice", "r", 60.0)
    worker.attach("alice", grant.session_id, grant.session_secret, 0, lambda number, event: None)
    sequence = 0
    for scope in range(1, scopes + 1):
        sequence += 1
        worker.receive(grant.session_id, sequence, m.OpenScope(scope, scope - 1), 0)
        for name in range(names):
            sequence += 1
            put = m.Put(scope * names + name + 1, NUMBER, b"\0" * 4, scope)
            worker.receive(grant.session_id, sequence, put, 0)
    worker.start()
    return worker, grant.session_id


def test_a_session_tells_its_scopes_and_what_lives_in_each() -> None:
    with tg.connect(backend="numpy") as session:
        worker = known_worker("numpy")
        assert worker is not None
        with session.scope():
            x = tg.ones((100,), dtype=tg.float32)
            with session.scope():
                y = tg.ones((1000,), dtype=tg.float32) + x[0]
                assert y.numpy().sum() == 2000 and x.numpy().sum() == 100

                (sight,) = worker.census("local")

                tree = {scope.scope: scope for scope in sight.scopes}
                inner = next(scope for scope in sight.scopes if scope.bytes == 4000)
                assert tree[inner.parent].bytes == 400
                assert tree[tree[inner.parent].parent].parent == 0
                assert sight.bytes == sum(scope.bytes or 0 for scope in sight.scopes) == 4400
        assert worker.census("somebody else") == []


def test_looking_is_bounded_and_says_what_it_left_out() -> None:
    worker, session = worker_with(census.MOST_SCOPES + 5, 2)
    try:
        (sight,) = worker.census()

        assert (sight.id, sight.tenant) == (session, "alice")
        assert (len(sight.scopes), sight.hidden_scopes) == (census.MOST_SCOPES, 6)
        assert worker.census("bob") == []
    finally:
        worker.stop()


@pytest.mark.slow
def test_the_bytes_of_very_many_names_are_not_added_up() -> None:
    worker, _ = worker_with(1, census.MOST_NAMES + 1)
    try:
        (sight,) = worker.census()

        assert sight.scopes[1].tensors == census.MOST_NAMES + 1
        assert sight.scopes[1].bytes is None
        assert sight.scopes[0].bytes == 0
    finally:
        worker.stop()


def test_what_a_worker_shows_comes_through_as_it_was() -> None:
    scopes = (ScopeSight(0, 0, 3, 12), ScopeSight(7, 0, 100_000, None))
    sights = (
        SessionSight(
            id="s1", tenant="alice", is_attached=True, lease_seconds=60.0, heard_seconds=1.5, tensors=3, bytes=12,
            queued=2, scopes=scopes, hidden_scopes=1,
        ),
        SessionSight(
            id="s2", tenant="bob", is_attached=False, lease_seconds=None, heard_seconds=0.0, tensors=0, bytes=0,
            queued=0, scopes=(), hidden_scopes=0,
        ),
    )  # fmt: skip

    load = load_of(sessions=2, held_bytes=12, busy_seconds=1.0, memory=Memory(100, 40), sights=sights)

    assert shown(type(load).FromString(load.SerializeToString())) == Shown(100, 40, sights)
    assert [sight.is_job for sight in sights] == [False, True]
