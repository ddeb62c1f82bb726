"""When a worker that had no place for a job is asked again."""

from __future__ import annotations

from telegrad_server.jobs.full import LONGEST_WAIT_SECONDS, FullWorkers


def test_a_full_worker_is_asked_again_after_twice_as_long_each_time_until_it_takes_a_job() -> None:
    full, now, waits = FullWorkers(), 0.0, list[float]()
    for _ in range(9):
        full.refused("w", "256 sessions are open", now)
        began = now
        while full.at(now, there={"w"}):
            now += 0.5
        waits.append(now - began)
    full.took("w")
    full.refused("w", "256 sessions are open", now)

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, LONGEST_WAIT_SECONDS]
    assert full.at(now, there={"w"}) == {"w": "256 sessions are open (worker w is asked again every 1 s)"}
    assert full.at(now + 1, there={"w"}) == {}


def test_a_worker_that_is_gone_is_forgotten() -> None:
    full = FullWorkers()
    full.refused("w", "256 sessions are open", 0.0)

    assert full.at(0.5, there={"other"}) == {}
    assert not full
