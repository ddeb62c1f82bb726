"""What is counted of jobs follows from their facts."""

from __future__ import annotations

from telegrad_server.jobs import events as e
from telegrad_server.jobs.counts import JobCounts
from telegrad_server.jobs.machine import Jobs


class Told:
    """Jobs that are told facts at times, and what is counted of them."""

    def __init__(self) -> None:
        self.jobs, self.counts = Jobs(), JobCounts()

    def tell(self, event: e.Event, at: float) -> None:
        for fact in self.jobs.accept(event):
            self.jobs.apply(fact, at)
            self.counts.heard(fact, self.jobs.get(fact.job), at)

    def place(self, at: float) -> int:
        event = self.jobs.next_assignment("j", worker="w", fingerprint="f")
        self.tell(event, at)
        return event.assignment


def test_waits_steps_and_restarts_are_counted() -> None:
    told = Told()
    told.tell(e.Submitted("j", "t", "n", "s", 0, 100), 0.0)
    first = told.place(2.0)
    told.tell(e.Started("j", first, 0), 3.0)
    told.tell(e.Progressed("j", first, 10), 4.0)
    told.tell(e.Progressed("j", first, 30), 5.0)
    told.tell(e.Lost("j", first), 6.0)
    second = told.place(16.0)
    told.tell(e.Started("j", second, 30), 17.0)
    told.tell(e.Progressed("j", second, 40), 18.0)

    assert told.counts.steps == 40
    assert told.counts.restarts == 1
    assert told.counts.waits.seconds == 12.0


def test_a_worker_that_was_full_is_no_restart_and_the_wait_goes_on() -> None:
    told = Told()
    told.tell(e.Submitted("j", "t", "n", "s", 0, 100), 0.0)
    told.tell(e.Lost("j", told.place(1.0), "WORKER_FULL"), 2.0)
    told.place(5.0)

    assert told.counts.restarts == 0
    assert told.counts.waits.seconds == 1.0 + 3.0


def test_steps_that_are_trained_again_after_going_back_count_again() -> None:
    told = Told()
    told.tell(e.Submitted("j", "t", "n", "s", 0, 100), 0.0)
    first = told.place(1.0)
    told.tell(e.Started("j", first, 0), 1.0)
    told.tell(e.Progressed("j", first, 30), 2.0)
    told.tell(e.Rewound("j", 10), 3.0)
    second = told.place(4.0)
    told.tell(e.Started("j", second, 10), 5.0)
    told.tell(e.Progressed("j", second, 30), 6.0)

    assert told.counts.steps == 50
