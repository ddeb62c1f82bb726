"""A worker with the real executor and a clock that is turned by hand: leases, tenants, functions, uploads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from telegrad.errors import DataCorrupt, GraphError, LeaseExpired, NotFound, QuotaExceeded
from telegrad.ir import Function, Graph, Type, new_input
from telegrad.ir import types as t
from telegrad.ops import elementwise as e
from telegrad.wire import messages as m
from telegrad.wire.codec import encode_function, function_id
from telegrad.wire.status import to_exception
from telegrad_server.config import Config
from telegrad_server.executors import pick_executor
from telegrad_server.worker import Worker

VECTOR = Type((3,), t.float32)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Client:
    """A session and what it has heard."""

    def __init__(self, worker: Worker, *, tenant: str = "t", lease: float = 10.0) -> None:
        self.worker, self.tenant = worker, tenant
        self.grant = worker.open_session(tenant, "", lease)
        self.who = (tenant, self.grant.session_id, self.grant.session_secret)
        self.events: list[m.Event] = []
        self.changed = threading.Condition()
        self.sequence = 0
        self.attach()

    def attach(self, heard: int = 0) -> int:
        received = self.worker.attach(*self.who, heard, self.hear)
        self.worker.begin_delivery(self.grant.session_id)
        return received

    def hear(self, number: int, event: m.Event) -> None:
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def send(self, command: m.Command) -> int:
        self.sequence += 1
        self.worker.receive(self.grant.session_id, self.sequence, command, 0)
        return self.sequence

    def wait(self, sequence: int) -> Any:
        def answer() -> Any:
            kinds = (m.Fetched, m.Failed)
            return next((x for x in self.events if isinstance(x, kinds) and x.sequence == sequence), None)

        with self.changed:
            assert self.changed.wait_for(lambda: answer() is not None, 10)
            found = answer()
        if isinstance(found, m.Failed):
            raise to_exception(found.error)
        return np.frombuffer(found.data, np.float32) if found.data is not None else found

    def put(self, name: int, *numbers: float) -> None:
        self.send(m.Put(name, Type((len(numbers),), t.float32), np.array(numbers, np.float32).tobytes()))

    def fetch(self, name: int) -> Any:
        return self.wait(self.send(m.Fetch(name)))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def worker(clock: Clock) -> Iterator[Worker]:
    worker = Worker(Config(lease_seconds=60, max_session_bytes=1 << 20), pick_executor("numpy"), clock=clock)
    worker.start()
    yield worker
    worker.validate()
    worker.stop()


def double() -> tuple[bytes, bytes]:
    x = new_input(VECTOR)
    data = encode_function(Function(Graph.of([x], [e.add(x, x)])))
    return function_id(data), data


def test_a_lease_is_kept_to_the_second(worker: Worker, clock: Clock) -> None:
    client = Client(worker, lease=10)
    client.put(1, 1, 2, 3)
    client.fetch(1)
    clock.now += 10
    worker.tick()
    assert worker.statistics()["tensors"] == 1
    assert worker.keep_alive(*client.who, 0) == 10
    clock.now += 10.001
    worker.tick()

    assert worker.statistics() == {"sessions": 0, "tensors": 0, "bytes": 0}
    assert isinstance(client.events[-1], m.Ended)
    assert isinstance(to_exception(client.events[-1].error), LeaseExpired)


def test_a_lease_is_not_longer_than_the_server_allows(worker: Worker) -> None:
    assert worker.open_session("t", "", 3600).lease_seconds == 60


def test_the_same_request_opens_one_session(worker: Worker) -> None:
    first, again = (worker.open_session("t", "r1", 10) for _ in range(2))

    assert again == first
    assert worker.open_session("u", "r1", 10) != first


def test_a_new_process_finds_everything_as_it_was(worker: Worker) -> None:
    client = Client(worker)
    client.put(1, 1, 2, 3)
    client.fetch(1)
    worker.detach(client.grant.session_id, client.hear)
    client.events.clear()

    assert client.attach(heard=0) == 2
    np.testing.assert_array_equal(client.fetch(1), [1, 2, 3])


@pytest.mark.parametrize("tenant", ["t", "other"])
@pytest.mark.parametrize("part", ["id", "secret", "tenant"])
def test_a_stranger_learns_nothing(worker: Worker, part: str, tenant: str) -> None:
    """A wrong secret, another tenant and an id that never was give the same answer, on every method."""
    client = Client(worker)
    who = {
        "id": (tenant, "0" * 32, client.grant.session_secret),
        "secret": (tenant, client.grant.session_id, b"\0" * 32),
        "tenant": ("stranger", client.grant.session_id, client.grant.session_secret),
    }[part]
    answers: set[tuple[str, str]] = set()
    calls: list[Any] = [
        lambda: worker.attach(*who, 0, lambda n, x: None),
        lambda: worker.keep_alive(*who, 0),
        lambda: worker.close_session(*who),
        lambda: worker.begin_upload(*who, 1, VECTOR),
        lambda: worker.download(*who, "ticket"),
        lambda: worker.download_done(*who, "ticket"),
    ]
    for call in calls:
        with pytest.raises(NotFound) as caught:
            call()
        answers.add((caught.value.message, caught.value.reason))

    assert answers == {("there is no such session", "SESSION_UNKNOWN")}


def test_functions_are_asked_for_and_must_have_the_bytes_of_their_id(worker: Worker) -> None:
    client = Client(worker)
    function, data = double()
    client.put(1, 1, 2, 3)
    client.fetch(1)
    client.send(m.Run(function, (1,), (2,)))
    with pytest.raises(GraphError, match="do not have the id"):
        worker.supply(client.grant.session_id, function, data + b"\0")
    worker.supply(client.grant.session_id, function, data)

    np.testing.assert_array_equal(client.fetch(2), [2, 4, 6])
    assert m.FunctionNeeded(function) in client.events


def test_a_function_that_is_wrong_says_so_at_each_run(worker: Worker) -> None:
    client = Client(worker)
    data = b"nonsense"
    worker.supply(client.grant.session_id, function_id(data), data)
    for name in (1, 2):
        client.send(m.Run(function_id(data), (), (name,)))
        with pytest.raises(GraphError, match="no Function message"):
            client.fetch(name)


def test_operands_must_be_what_the_function_takes(worker: Worker) -> None:
    client = Client(worker)
    function, data = double()
    worker.supply(client.grant.session_id, function, data)
    client.put(1, 1, 2)
    runs = [
        m.Run(function, (1,), (10,)),
        m.Run(function, (1, 1), (11,)),
        m.Run(function, (0,), (12,), b"\0" * 8),
        m.Run(function, (0,), (13,), b"\0" * 16),
        m.Run(function, (0,), (14, 15), b"\0" * 12),
    ]
    for run in runs:
        client.send(run)

    for name, error in ((10, GraphError), (11, GraphError), (12, DataCorrupt), (13, DataCorrupt), (14, GraphError)):
        with pytest.raises(error):
            client.fetch(name)


def test_uploads_of_the_wrong_length_are_refused_and_poison_their_name(worker: Worker) -> None:
    client = Client(worker)
    for name, data in ((1, b"\0" * 8), (2, b"\0" * 16)):
        client.send(m.Expect(name, VECTOR))
        upload = worker.begin_upload(*client.who, name, VECTOR)
        with pytest.raises(DataCorrupt):
            upload.write(data)
            upload.finish()
        with pytest.raises(DataCorrupt):
            client.fetch(name)


def test_an_upload_beyond_the_quota_is_refused_before_it_begins(worker: Worker) -> None:
    client = Client(worker)

    with pytest.raises(QuotaExceeded):
        worker.begin_upload(*client.who, 1, Type((1 << 20,), t.float32))


def test_a_large_result_is_fetched_by_ticket_once(worker: Worker) -> None:
    client = Client(worker)
    big = Type((m.INLINE_BYTES,), t.float32)
    client.send(m.Expect(1, big))
    upload = worker.begin_upload(*client.who, 1, big)
    upload.write(np.ones(m.INLINE_BYTES, np.float32).tobytes())
    assert upload.finish() == big.nbytes
    answer = client.fetch(1)
    assert len(worker.download(*client.who, answer.ticket)) == big.nbytes
    worker.download_done(*client.who, answer.ticket)

    with pytest.raises(NotFound):
        worker.download(*client.who, answer.ticket)


def test_sessions_take_turns(worker: Worker) -> None:
    """A session with a long queue does not keep another waiting until it is empty."""
    function, data = double()
    busy, quick = Client(worker), Client(worker)
    for client in (busy, quick):
        worker.supply(client.grant.session_id, function, data)
        client.put(1, 1, 2, 3)
        client.fetch(1)
    for name in range(2, 5000):
        busy.send(m.Run(function, (1,), (name,)))
    last = busy.send(m.Fetch(4999))
    quick.send(m.Run(function, (1,), (2,)))
    quick.fetch(2)

    assert not any(isinstance(x, m.Fetched) and x.sequence == last for x in busy.events)
    busy.wait(last)


def test_closing_counts_what_it_frees(worker: Worker) -> None:
    client = Client(worker)
    client.put(1, 1)
    client.put(2, 2)
    client.fetch(2)

    assert worker.close_session(*client.who) == 2
