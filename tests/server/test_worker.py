"""A worker with the real executor and a clock that is turned by hand: leases, tenants, functions, uploads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
from telegrad.errors import DataCorrupt, GraphError, LeaseExpired, NotFound, QuotaExceeded, ServerUnavailable
from telegrad.ir import Function, Graph, Type, new_input
from telegrad.ir import types as t
from telegrad.ir.value import apply
from telegrad.ops import elementwise as e
from telegrad.ops.loops import INDEX, Scan
from telegrad.wire import messages as m
from telegrad.wire.codec import encode_function, function_id
from telegrad.wire.status import to_exception
from telegrad_server.cluster.lease import Lease
from telegrad_server.config import Config
from telegrad_server.executors import pick_executor
from telegrad_server.line import Claim, Line
from telegrad_server.worker import Worker
from telegrad_server.yielding import YieldingLock

VECTOR = Type((3,), t.float32)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Client:
    """A session and what it has heard."""

    def __init__(
        self, worker: Worker, *, tenant: str = "t", lease: float = 10.0, diary: list[m.Event] | None = None
    ) -> None:
        self.worker, self.tenant = worker, tenant
        self.diary = diary if diary is not None else []
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
            self.diary.append(event)
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


@contextmanager
def running(config: Config) -> Generator[Worker, None, None]:
    """A worker of its own."""
    worker = Worker(config, pick_executor("numpy"))
    worker.start()
    yield worker
    worker.validate()
    worker.stop()


class Held:
    """The real executor, held up where its first run begins."""

    def __init__(self) -> None:
        self._executor = pick_executor("numpy")
        self.started, self.goes_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def run(self, plan: Any, inputs: Any) -> Any:
        self.started.set()
        assert self.goes_on.wait(10)
        return self._executor.run(plan, inputs)


def double() -> tuple[bytes, bytes]:
    x = new_input(VECTOR)
    data = encode_function(Function(Graph.of([x], [e.add(x, x)])))
    return function_id(data), data


def endless() -> tuple[bytes, bytes]:
    """A loop of hours."""
    x, trip, carry = new_input(VECTOR), new_input(INDEX), new_input(VECTOR)
    body = Graph.of([trip, carry], [e.add(carry, carry)])
    data = encode_function(Function(Graph.of([x], [*apply(Scan(1_000_000_000, 1, 0), (x,), (body,))])))
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


def test_sessions_take_turns() -> None:
    """A session with a long queue does not keep another waiting until it is empty."""
    held = Held()
    worker = Worker(Config(), cast(Any, held))
    worker.start()
    function, data = double()
    diary: list[m.Event] = []
    busy, quick = Client(worker, diary=diary), Client(worker, diary=diary)
    for client in (busy, quick):
        worker.supply(client.grant.session_id, function, data)
        client.put(1, 1, 2, 3)
    for name in range(2, 500):
        busy.send(m.Run(function, (1,), (name,)))
    last = busy.send(m.Fetch(499))
    assert held.started.wait(10)
    quick.send(m.Run(function, (1,), (2,)))
    answer = quick.send(m.Fetch(2))
    held.goes_on.set()
    busy.wait(last)
    quick.wait(answer)
    fetched = [x.sequence for x in diary if isinstance(x, m.Fetched)]
    assert fetched == [answer, last]
    worker.stop()


def test_a_loop_ends_with_its_session() -> None:
    function, data = endless()
    worker = Worker(Config(), pick_executor("numpy"))
    worker.start()
    client, other = Client(worker), Client(worker)
    worker.supply(client.grant.session_id, function, data)
    client.put(1, 1, 2, 3)
    client.send(m.Run(function, (1,), (2,)))
    other.put(1, *np.ones(1 << 16, np.float32))
    fetched = other.send(m.Fetch(1))
    worker.close_session(*client.who)

    assert other.wait(fetched) is not None  # long before the loop's trips are over
    worker.stop()


def served(claims: dict[str, Claim], seconds: dict[str, float], turns: int) -> Counter[str]:
    """How often each party is served when all always want the device."""
    line = Line[str](YieldingLock())
    for name, claim in claims.items():
        line.join(name, claim)
    found: Counter[str] = Counter()
    for _ in range(turns):
        name = line.take(lambda _: True)
        assert name is not None
        found[name] += 1
        claims[name].used += seconds[name] / claims[name].weight
        line.give_back()
        line.join(name, claims[name])
    return found


def test_the_device_is_shared_by_measured_time() -> None:
    found = served({"heavy": Claim(), "light": Claim()}, {"heavy": 0.1, "light": 0.001}, turns=2020)

    assert found == {"heavy": 20, "light": 2000}


def test_a_weight_gives_a_larger_share() -> None:
    found = served({"once": Claim(), "thrice": Claim(weight=3)}, {"once": 0.01, "thrice": 0.01}, turns=400)

    assert found == {"once": 100, "thrice": 300}


def test_who_was_away_has_no_credit() -> None:
    line, busy, late = Line[str](YieldingLock()), Claim(used=50.0), Claim()
    line.join("busy", busy)
    assert line.take(lambda _: True) == "busy"
    line.give_back()
    line.join("late", late)

    assert late.used == 50.0


def test_what_was_under_way_when_the_gateway_gave_the_worker_up_is_not_committed(clock: Clock) -> None:
    held, lease = Held(), Lease(clock=clock)
    lease.renew(asked_at=clock.now, seconds=10)
    worker = Worker(Config(), cast(Any, held), clock=clock, lease=lease)
    worker.start()
    function, data = double()
    client = Client(worker)
    worker.supply(client.grant.session_id, function, data)
    client.put(1, 1, 2, 3)
    running = threading.Thread(target=client.send, args=(m.Run(function, (1,), (2,)),))
    running.start()
    assert held.started.wait(10)
    client.send(m.Fetch(2))

    clock.now += 20  # the lease runs no more
    held.goes_on.set()
    lease.end()

    running.join()
    with client.changed:
        assert client.changed.wait_for(lambda: bool(client.events), 10)
    (answer,) = client.events
    worker.stop()
    assert isinstance(answer, m.Ended)
    assert answer.error.reason == "STATE_LOST"


def test_a_light_task_waits_while_another_is_under_way() -> None:
    held = Held()
    worker = Worker(Config(), cast(Any, held))
    worker.start()
    function, data = double()
    client, other = Client(worker), Client(worker)
    worker.supply(client.grant.session_id, function, data)
    client.put(1, 1, 2, 3)
    client.send(m.Run(function, (1,), (2,)))
    assert held.started.wait(10)
    other.put(1, 4)
    fetched = other.send(m.Fetch(1))
    assert not other.events
    held.goes_on.set()
    assert list(other.wait(fetched)) == [4]
    worker.stop()


def test_the_thread_that_brings_a_light_task_carries_it_out() -> None:
    worker = Worker(Config(), pick_executor("numpy"))  # nobody serves its line yet
    client = Client(worker)
    client.put(1, 1, 2, 3)
    fetched = client.send(m.Fetch(1))
    assert client.events[-1] == m.Fetched(fetched, VECTOR, np.array([1, 2, 3], np.float32).tobytes())
    assert worker.is_idle()
    worker.receive(client.grant.session_id, 3, m.Fetch(1), 0, takes_light=False)
    client.sequence = 3
    assert not worker.is_idle()
    client.put(2, *np.zeros(1 << 16, np.float32))
    small = client.send(m.Fetch(1))  # stands behind the large one
    assert not worker.is_idle()
    worker.start()
    assert list(client.wait(small)) == [1, 2, 3]
    worker.validate()
    worker.stop()


def test_light_and_heavy_tasks_of_many_threads_come_out_right(worker: Worker) -> None:
    function, data = double()
    wrong: list[object] = []

    def work(number: int) -> None:
        client = Client(worker)
        worker.supply(client.grant.session_id, function, data)
        client.put(1, number, 0, 1)
        for i in range(2, 102):
            client.send(m.Run(function, (i - 1,), (i,)) if i % 4 else m.Alias(i, i - 1))
            if i % 10 == 0:
                client.put(1000 + i, *np.full(10_000, i))
                found = client.fetch(1000 + i)
                if not np.array_equal(found, np.full(10_000, i, np.float32)):
                    wrong.append(found)
        doublings = sum(i % 4 != 0 for i in range(2, 102))
        if not np.array_equal(client.fetch(101), np.array([number, 0, 1], np.float32) * 2.0**doublings):
            wrong.append(number)
        worker.close_session(*client.who)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert worker.is_idle()
    assert worker.statistics() == {"sessions": 0, "tensors": 0, "bytes": 0}


def test_closing_counts_what_it_frees(worker: Worker) -> None:
    client = Client(worker)
    client.put(1, 1)
    client.put(2, 2)
    client.fetch(2)

    assert worker.close_session(*client.who) == 2


# ---- what a hostile or unlucky client must not do


def increment() -> tuple[bytes, bytes]:
    """A function of a variable and an operand: variable += operand; its result is the new value."""
    x, y = new_input(VECTOR), new_input(VECTOR)
    data = encode_function(Function(Graph.of([x, y], [e.add(x, y)]), ((0, 0),)))
    return function_id(data), data


def test_variables_are_held_back_by_functions_that_never_ran(worker: Worker) -> None:
    """What a function updates is known before it is compiled, else a step behind a failed one would be forgotten."""
    client = Client(worker)
    function, data = increment()
    client.put(1, 1, 2, 3)
    client.send(m.Put(2, VECTOR, b"too short"))
    worker.supply(client.grant.session_id, function, data)
    client.send(m.Run(function, (1, 2), (3,)))

    for name in (1, 2, 3):
        with pytest.raises(DataCorrupt):
            client.fetch(name)
    client.send(m.Resume(2))
    np.testing.assert_array_equal(client.fetch(1), [1, 2, 3])


def test_a_run_without_the_variable_that_its_function_updates_harms_nobody(worker: Worker) -> None:
    client = Client(worker)
    function, data = increment()
    worker.supply(client.grant.session_id, function, data)
    client.put(1, 1, 2, 3)
    for inputs, immediates in (((), b""), ((0, 1), bytes(12)), ((1,), b"")):
        client.send(m.Run(function, inputs, (0,), immediates))
        with pytest.raises(GraphError):
            client.wait(client.sequence)
        client.send(m.Resume(client.sequence))

    np.testing.assert_array_equal(client.fetch(1), [1, 2, 3])


def test_a_variable_is_not_updated_twice_by_one_run(worker: Worker) -> None:
    client = Client(worker)
    x, y = new_input(VECTOR), new_input(VECTOR)
    data = encode_function(Function(Graph.of([x, y], [e.add(x, y), e.multiply(x, y)]), ((0, 0), (1, 1))))
    worker.supply(client.grant.session_id, function_id(data), data)
    client.put(1, 1, 2, 3)
    client.send(m.Run(function_id(data), (1, 1), (0, 0)))

    with pytest.raises(GraphError, match="the same variable twice"):
        client.wait(client.sequence)


def test_a_function_that_is_forgotten_before_its_run_is_asked_for_again() -> None:
    with running(Config(cached_functions=1)) as worker:
        client = Client(worker)
        (double_id, double_data), (increment_id, increment_data) = double(), increment()
        client.put(1, 1, 2, 3)
        worker.supply(client.grant.session_id, double_id, double_data)
        worker.supply(client.grant.session_id, increment_id, increment_data)
        sequence = client.send(m.Run(double_id, (1,), (2,)))
        last = client.send(m.Fetch(2))
        with client.changed:
            assert client.changed.wait_for(lambda: m.FunctionNeeded(double_id) in client.events, 10)
        worker.supply(client.grant.session_id, double_id, double_data)

        np.testing.assert_array_equal(client.wait(last), [2, 4, 6])
        assert sequence < last


def test_room_for_uploads_is_taken_when_they_begin(worker: Worker) -> None:
    client = Client(worker)
    half = Type((1 << 17,), t.float32)
    uploads = [worker.begin_upload(*client.who, name, half) for name in (1, 2)]
    with pytest.raises(QuotaExceeded):
        worker.begin_upload(*client.who, 3, VECTOR)
    worker.validate()

    uploads[0].abandon()

    assert worker.statistics()["bytes"] == half.nbytes
    worker.begin_upload(*client.who, 4, VECTOR).abandon()
    worker.close_session(*client.who)
    assert worker.statistics()["bytes"] == 0
    with pytest.raises(NotFound):
        uploads[1].finish()


def test_a_refused_upload_keeps_nobody_waiting(worker: Worker) -> None:
    client = Client(worker)
    client.send(m.Expect(1, VECTOR))
    with pytest.raises(DataCorrupt, match="announced was"):
        worker.begin_upload(*client.who, 1, Type((4,), t.float32))

    with pytest.raises(DataCorrupt, match="announced was"):
        client.fetch(1)


def test_an_upload_that_breaks_off_may_be_tried_again(worker: Worker) -> None:
    client = Client(worker)
    client.send(m.Expect(1, VECTOR))
    broken = worker.begin_upload(*client.who, 1, VECTOR)
    broken.write(b"\0" * 8)
    again = worker.begin_upload(*client.who, 1, VECTOR)
    broken.abandon()
    again.write(np.array([1, 2, 3], np.float32).tobytes())
    again.finish()

    np.testing.assert_array_equal(client.fetch(1), [1, 2, 3])
    late = worker.begin_upload(*client.who, 1, VECTOR)
    late.write(bytes(12))
    late.finish()
    np.testing.assert_array_equal(client.fetch(1), [1, 2, 3])


def test_a_downloaded_tensor_is_kept_a_while_in_case_its_last_bytes_were_lost(worker: Worker, clock: Clock) -> None:
    client = Client(worker)
    client.put(1, *range(m.INLINE_BYTES // 4 + 1))
    answer = client.fetch(1)
    client.send(m.Release((1,)))
    for _ in range(2):
        assert len(worker.download(*client.who, answer.ticket)) > m.INLINE_BYTES
        worker.download_sent(*client.who, answer.ticket)
    clock.now += 4
    worker.tick()
    assert worker.statistics()["bytes"] > m.INLINE_BYTES
    worker.detach(client.grant.session_id, client.hear)
    clock.now += 3
    worker.tick()  # nobody is attached, so the bytes may well be lost
    client.attach(heard=0)
    worker.download(*client.who, answer.ticket)
    worker.download_sent(*client.who, answer.ticket)
    clock.now += 5.1
    worker.tick()

    assert worker.statistics()["bytes"] == 0
    with pytest.raises(NotFound):
        worker.download(*client.who, answer.ticket)


def test_a_new_stream_takes_over_and_the_old_one_is_told(worker: Worker) -> None:
    client = Client(worker)
    taken: list[str] = []
    worker.attach(*client.who, 0, client.hear, taken=lambda: taken.append("first"))
    worker.attach(*client.who, 0, client.hear, taken=lambda: taken.append("second"))

    assert taken == ["first"]
    client.put(1, 1)
    np.testing.assert_array_equal(client.fetch(1), [1])


def test_a_listener_that_fails_harms_nobody_else(worker: Worker) -> None:
    bad, good = Client(worker), Client(worker)

    def fail(number: int, event: m.Event) -> None:
        raise RuntimeError("deaf")

    worker.attach(*bad.who, 0, fail)
    bad.put(1, 1)
    sequence = bad.send(m.Fetch(1))
    good.put(1, 2)
    np.testing.assert_array_equal(good.fetch(1), [2])
    bad.attach()

    np.testing.assert_array_equal(bad.wait(sequence), [1])


def test_a_client_in_the_same_process_waits_while_its_queue_is_full(worker: Worker) -> None:
    client = Client(worker)
    function, data = double()
    has_room = True
    while has_room:  # nothing runs: the function is missing
        client.sequence += 1
        run = m.Run(function, (0,), (), bytes(1 << 20))
        has_room = worker.receive(client.grant.session_id, client.sequence, run, 0)
    waiting = threading.Thread(target=worker.wait_for_room, args=(client.grant.session_id,))
    waiting.start()

    worker.supply(client.grant.session_id, function, data)
    waiting.join(10)

    assert not waiting.is_alive()


def test_a_tenants_limit_holds_over_its_sessions() -> None:
    with running(Config(max_tenant_bytes=20)) as worker:
        one, two, other = Client(worker), Client(worker), Client(worker, tenant="other")
        one.put(1, 1, 2, 3)
        one.fetch(1)
        two.put(1, 1, 2, 3)
        with pytest.raises(QuotaExceeded, match="tenant"):
            two.fetch(1)
        other.put(1, 1, 2, 3)
        other.fetch(1)
        assert worker.held_bytes("t") == 12
        worker.close_session(*one.who)
        two.put(2, 1, 2, 3)

        two.fetch(2)


def test_results_that_do_not_fit_are_refused_before_they_are_computed() -> None:
    with running(Config(max_session_bytes=20)) as worker:
        client = Client(worker)
        function, data = double()
        worker.supply(client.grant.session_id, function, data)
        client.put(1, 1, 2, 3)
        client.send(m.Run(function, (1,), (2,)))
        with pytest.raises(QuotaExceeded) as refused:
            client.fetch(2)

        assert refused.value.details["limit_bytes"] == "20"
        np.testing.assert_array_equal(client.fetch(1), [1, 2, 3])


def test_a_request_id_is_not_used_for_two_different_things(worker: Worker) -> None:
    worker.open_session("t", "r1", 10)

    with pytest.raises(GraphError) as refused:
        worker.open_session("t", "r1", 20)
    assert refused.value.reason == "REQUEST_ID_REUSED"


def test_a_stopping_worker_opens_no_session_and_ends_those_there_are() -> None:
    with running(Config()) as worker:
        client = Client(worker)
        worker.stop()
        assert isinstance(client.events[-1], m.Ended)

        with pytest.raises(ServerUnavailable):
            worker.open_session("t", "", 10)


def test_a_session_that_expires_while_it_computes_is_freed_and_the_worker_goes_on(clock: Clock) -> None:
    held = Held()
    worker = Worker(Config(), cast(Any, held), clock=clock)
    worker.start()
    client = Client(worker, lease=10)
    function, data = double()
    worker.supply(client.grant.session_id, function, data)
    client.put(1, 1, 2, 3)
    client.send(m.Run(function, (1,), (2,)))
    assert held.started.wait(10)
    clock.now += 10.1
    worker.tick()

    assert worker.statistics() == {"sessions": 0, "tensors": 0, "bytes": 0}
    held.goes_on.set()
    other = Client(worker)
    other.put(1, 5)
    np.testing.assert_array_equal(other.fetch(1), [5])
    assert worker.statistics() == {"sessions": 1, "tensors": 1, "bytes": 4}
    worker.stop()
