"""Which worker a session gets, which ones its replicas, and who waits in what order."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telegrad_server.cluster.launcher import Device
from telegrad_server.cluster.members import Facts, Members
from telegrad_server.cluster.placement import FORGOTTEN_SECONDS, Demand, Place, Queue, Wait, companions, place
from telegrad_server.cluster.pool import Due, Pool


def cluster(*loads: int, **more: object) -> Members:
    members = Members(lease_seconds=10)
    for i, sessions in enumerate(loads):
        options: dict[str, object] = {"machine": f"m{i // 2}", "fingerprint": "same", "max_sessions": 4} | more
        member, _ = members.join(Facts(f"w{i}", f"w{i}.1", f"h{i}:1", **options), now=0)  # type: ignore[arg-type]
        member.sessions = sessions
    return members


def name_of(found: Place | Wait) -> str:
    assert isinstance(found, Place), found
    return found.member.facts.name


def test_a_session_goes_where_the_fewest_are() -> None:
    assert name_of(place(Demand(), cluster(2, 1, 3).all())) == "w1"


def test_memory_in_use_decides_between_equals() -> None:
    members = cluster(1, 1, max_bytes=100)
    members.all()[0].held_bytes = 50

    assert name_of(place(Demand(), members.all())) == "w1"
    assert name_of(place(Demand(memory_bytes=50, worker="w0"), members.all())) == "w0"


@pytest.mark.parametrize(
    ("demand", "why", "is_hopeless"),
    [
        (Demand(backend="cupy"), "no worker computes with 'cupy'; there are 2 x numpy", True),
        (Demand(worker="w9"), "there is no worker 'w9'; there are w0, w1", True),
        (Demand(memory_bytes=101), "no worker holds 101 bytes", True),
        (Demand(memory_bytes=60), "60 bytes are wanted and 50 are free", False),
    ],
)
def test_a_demand_that_cannot_be_met_is_told_why(demand: Demand, why: str, is_hopeless: bool) -> None:
    members = cluster(0, 0, max_bytes=100)
    for member in members.all():
        member.held_bytes = 50

    found = place(demand, members.all())

    assert isinstance(found, Wait) and why in found.why and found.is_hopeless == is_hopeless


def test_full_and_draining_workers_take_nobody() -> None:
    full = place(Demand(), cluster(4, 4).all())
    members = cluster(0)
    members.drain("w0")
    draining = place(Demand(), members.all())
    empty = place(Demand(), [])

    assert [isinstance(w, Wait) and not w.is_hopeless for w in (full, draining, empty)] == [True] * 3


def test_replicas_stand_close_together_or_far_apart() -> None:
    members = cluster(0, 0, 0, 0, 0, 0)  # two on each of three machines
    home = members.all()[0]

    def machines(strategy: str, count: int) -> list[str]:
        found = companions(home, members.all(), count=count, strategy=strategy)  # type: ignore[arg-type]
        return [m.facts.machine for m in found]

    assert machines("pack", 1) == ["m0"]
    assert machines("pack", 3) == ["m0", "m1", "m1"]
    assert machines("spread", 2) == ["m1", "m2"]
    assert len(machines("spread", 99)) == 5


def test_replicas_share_a_fingerprint_and_avoid_those_that_failed() -> None:
    members = cluster(0, 0, 0)
    other, _ = members.join(Facts("other", "o1", "h:1", fingerprint="another", machine="m0"), now=0)
    home = members.all()[1]

    found = companions(home, members.all(), count=9, strategy="pack", without=["w0" if home.facts.name != "w0" else ""])

    assert other not in found and {m.facts.name for m in found} == {"w1", "w2"} - {home.facts.name}


def test_200_workers_get_1000_sessions_in_under_a_second() -> None:
    members = cluster(*[0] * 200, max_sessions=5)
    began = time.thread_time()

    for i in range(1000):
        found = place(Demand(), members.all())
        assert isinstance(found, Place)
        members.opened(found.member.facts.name, str(i), now=float(i))

    assert time.thread_time() - began < 1.0
    assert {m.sessions for m in members.all()} == {5}


# ---- the queue


def test_the_queue_tells_positions_and_lets_tenants_take_turns() -> None:
    queue = Queue()
    greedy = [queue.ask("greedy", f"g{i}", Demand(), now=0) for i in range(3)]
    modest = queue.ask("modest", "m0", Demand(), now=0)

    assert [w.request[1] for w in queue.order()] == ["g0", "m0", "g1", "g2"]
    assert queue.position(modest) == 2
    queue.leave(greedy[0], is_served=True)
    assert [w.request[1] for w in queue.order()] == ["m0", "g1", "g2"]


def test_asking_again_keeps_the_place_and_silence_loses_it() -> None:
    queue = Queue()
    first = queue.ask("t", "a", Demand(), now=0)
    queue.ask("t", "b", Demand(), now=0)

    assert queue.ask("t", "a", Demand(), now=6) is first
    queue.forget(now=FORGOTTEN_SECONDS + 1)

    assert [w.request[1] for w in queue.order()] == ["a"]
    queue.withdraw("t", "a")
    assert queue.order() == []


def test_who_waits_for_what_is_not_there_holds_up_nobody() -> None:
    queue, members = Queue(), cluster(0)
    queue.ask("t", "gpu", Demand(backend="cupy"), now=0)
    second = queue.ask("t", "cpu", Demand(), now=0)
    third = queue.ask("t", "late", Demand(), now=0)

    assert queue.is_first(second, members.all())
    assert not queue.is_first(third, members.all())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=80))
def test_no_tenant_that_waits_is_passed_over_twice_in_a_row(events: list[tuple[str, bool]]) -> None:
    queue = Queue()
    served_while_waiting = dict.fromkeys("abc", 0)
    for i, (tenant, is_new) in enumerate(events):
        if is_new:
            queue.ask(tenant, str(i), Demand(), now=0)
            continue
        order = queue.order()
        if not order:
            continue
        winner = order[0].request[0]
        waiting = {w.request[0] for w in order}
        queue.leave(order[0], is_served=True)
        for other in "abc":
            served_while_waiting[other] = served_while_waiting[other] + 1 if other in waiting - {winner} else 0
            assert served_while_waiting[other] <= 2 * 2  # two others, each at most twice


# ---- the pool


def devices(count: int) -> list[Device]:
    return [Device(f"n/cpu{i}", "n", "cpu", cpus=2) for i in range(count)]


def test_every_device_gets_a_worker_once() -> None:
    pool = Pool(most=None)

    assert [s.device.name for s in pool.due(devices(2), now=0).start] == ["n/cpu0", "n/cpu1"]
    assert [s.device.name for s in pool.due(devices(3), now=1).start] == ["n/cpu2"]
    assert pool.due(devices(3), now=2) == Due()


def test_a_worker_that_ends_is_replaced_soon_under_a_new_name() -> None:
    pool, now, names = Pool(most=None), 0.0, set[str]()
    for _ in range(4):
        (spec,) = pool.due(devices(1), now).start
        names.add(spec.name)
        now += 61
        pool.ended(spec.name, now)
        assert pool.due(devices(1), now + 0.4) == Due()
        now += 0.5

    assert len(names) == 4


def test_a_worker_that_keeps_failing_is_tried_ever_more_rarely() -> None:
    pool, now, starts = Pool(most=None), 0.0, list[float]()
    while now < 200:
        for spec in pool.due(devices(1), now).start:
            starts.append(now)
            pool.ended(spec.name, now)
        now += 0.25

    assert [b - a for a, b in pairwise(starts)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_limit_holds_and_a_device_that_goes_takes_its_worker_along() -> None:
    pool = Pool(most=2)
    first, second = pool.due(devices(3), now=0).start
    assert pool.due(devices(3), now=1) == Due()

    due = pool.due(devices(3)[1:], now=2)
    pool.ended(first.name, now=3)

    assert due.drain == (first.name,) and [s.device.name for s in due.start] == ["n/cpu2"]
    assert pool.due(devices(3)[1:], now=100) == Due()
    assert set(pool.workers()) == {second.name, "worker-3"}
