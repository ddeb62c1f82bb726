"""The jobs' states: what each event amounts to in each of them, what is refused, and what must hold whatever comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from telegrad.errors import GraphError, JobError, NotFound, QuotaExceeded, TelegradError
from telegrad.wire.job_codec import encode_spec
from telegrad_server.jobs import events as e
from telegrad_server.jobs.job import ENDED, State
from telegrad_server.jobs.machine import Limits

from tests.jobs.driver import Driver, row
from tests.jobs.specs import small_spec


@pytest.fixture
def d() -> Driver:
    return Driver()


def test_a_job_goes_from_queued_to_succeeded(d: Driver) -> None:
    d.submit()
    number = d.run(step=8)
    d.tell(e.Succeeded("a", number, 8))

    assert d.state() == (State.SUCCEEDED, "DONE")
    assert d.take() == [e.Assign("a", "w", 1, 0, d["a"].spec), e.Release("a", "w", 1)]


def test_a_submission_that_comes_twice_is_one_job(d: Driver) -> None:
    d.submit("a", request="r")
    d.restart()
    d.submit("a", request="r")
    spec = small_spec("a")

    assert d.tell(e.Submitted.of("b", "t", spec, encode_spec(spec), request_id="r")) == ()
    earlier = d.jobs.earlier("t", "r", d["a"].spec)
    assert earlier is not None and earlier.id == "a"
    assert len(d.jobs.all("t")) == 1


def test_a_request_id_for_something_else_is_refused(d: Driver) -> None:
    d.submit("a", request="r")

    with pytest.raises(GraphError) as caught:
        d.submit("b", request="r")

    assert caught.value.reason == "REQUEST_ID_REUSED"
    d.submit("b", tenant="other", request="r")


def test_requests_are_forgotten_after_a_day_and_never_are_too_many() -> None:
    d = Driver(Limits(requests=3))
    for i in range(5):
        d.submit(f"j{i}", request=f"r{i}")
    assert d.jobs.earlier("t", "r1", "") is None
    assert d.jobs.earlier("t", "r2", d["j2"].spec) == d["j2"]

    d.now += 24 * 3600.0
    d.submit("late", request="late")

    assert d.jobs.earlier("t", "r4", "") is None


def test_a_name_is_free_again_when_its_job_has_ended(d: Driver) -> None:
    d.submit("a", name="n")
    with pytest.raises(JobError, match="a job named n is QUEUED") as caught:
        d.submit("b", name="n")
    assert caught.value.reason == "JOB_NAME_TAKEN"
    d.submit("c", name="n", tenant="other")

    d.tell(e.CancelAsked("a"))
    d.submit("b", name="n")

    assert d.jobs.find("t", "n").id == "b"
    assert d.jobs.find("t", "a").id == "a"


def test_other_tenants_jobs_are_not_found(d: Driver) -> None:
    d.submit("a", name="n")

    for key in ("a", "n", "nothing"):
        with pytest.raises(NotFound) as caught:
            d.jobs.find("other", key)
        assert str(caught.value) == f"there is no job {key!r}; `telegrad jobs list` shows those there are"


def test_what_an_old_assignment_says_is_refused_and_changes_nothing(d: Driver) -> None:
    d.submit()
    old = d.run(step=4)
    d.tell(e.Lost("a", old))
    for _ in range(2):
        for event in (
            e.Started("a", old, 4), e.Progressed("a", old, 5), e.Lost("a", old), e.Succeeded("a", old, 8),
            e.Failed("a", old, "OP_FAILED", ""), e.Paused("a", old, "STORAGE_FULL"), e.Cancelled("a", old),
        ):  # fmt: skip
            before = d["a"]
            with pytest.raises(JobError) as caught:
                d.tell(event)
            assert caught.value.reason == "JOB_FENCED"
            assert d["a"] == before
        if d["a"].state is State.QUEUED:
            d.run()


def test_a_lost_job_goes_on_from_its_last_checkpoint(d: Driver) -> None:
    d.submit()
    number = d.run(step=4)
    d.tell(e.Lost("a", number, message="no heartbeat"))

    assert d.state() == (State.QUEUED, "WORKER_LOST")
    d.take()
    d.assign(worker="w2")
    assert d.take() == [e.Assign("a", "w2", 2, 4, d["a"].spec)]


def test_five_losses_without_a_checkpoint_between_are_a_crash_loop(d: Driver) -> None:
    d.submit()
    for _ in range(3):
        d.tell(e.Lost("a", d.run()))
    number = d.run(step=2)
    d.tell(e.Lost("a", number))
    for _ in range(3):
        d.tell(e.Lost("a", d.run(), message="signal 11"))
    assert d.state() == (State.QUEUED, "WORKER_LOST")

    facts = d.tell(e.Lost("a", d.run(), message="signal 11"))

    assert [type(f) for f in facts] == [e.Lost, e.Failed]
    assert d.state() == (State.FAILED, "CRASH_LOOP")
    assert d["a"].step == 2
    assert "5 workers were lost" in d["a"].message and "signal 11" in d["a"].message and "step 2" in d["a"].message


def test_a_worker_that_is_drained_is_no_crash(d: Driver) -> None:
    d.submit()
    for _ in range(7):
        d.tell(e.Lost("a", d.run(), "DRAINED"))

    assert d.state() == (State.QUEUED, "DRAINED")


def test_a_worker_that_is_full_counts_as_no_try(d: Driver) -> None:
    d.submit()
    d.tell(e.Lost("a", d.run(), "WORKER_OOM"))
    for _ in range(7):
        d.tell(e.Lost("a", d.assign(), "WORKER_FULL", "256 sessions are open"))

    assert d.state() == (State.QUEUED, "WORKER_FULL")
    assert (d["a"].losses, d["a"].memory_losses, d["a"].restarts) == (1, 1, 1)


def test_out_of_memory_is_tried_once_more(d: Driver) -> None:
    d.submit()
    d.tell(e.Lost("a", d.run(), "WORKER_OOM"))
    assert d.state() == (State.QUEUED, "WORKER_OOM")

    d.tell(e.Lost("a", d.run(), "WORKER_OOM"))

    assert d.state() == (State.FAILED, "OUT_OF_MEMORY")


def test_metrics_never_come_twice_and_never_go_back(d: Driver) -> None:
    d.submit()
    number = d.run()
    event = e.Progressed("a", number, 4, rows=tuple([row(s) for s in (1, 2, 3, 4)]))
    d.tell(event)
    assert d.tell(event) == ()
    d.tell(e.Lost("a", number))
    number = d.assign()
    d.tell(e.Started("a", number, 2, "the checkpoint of step 4 is corrupt"))  # an older one had to do

    d.tell(e.Progressed("a", number, 3, rows=(row(3, 9.0),)))
    d.tell(e.Progressed("a", number, 6, rows=tuple([row(s) for s in (5, 4, 3, 6)])))

    assert [r.step for r in d.rows] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(JobError, match="does not cover"):
        d.tell(e.Progressed("a", number, 7, rows=(row(8),)))


def test_a_queued_job_is_paused_at_once_and_a_running_one_at_a_checkpoint(d: Driver) -> None:
    d.submit()
    d.tell(e.PauseAsked("a"))
    assert d.state() == (State.PAUSED, "ASKED")
    assert d.tell(e.PauseAsked("a")) == ()
    d.tell(e.ResumeAsked("a"))
    number = d.run()
    d.take()

    d.tell(e.PauseAsked("a"))
    assert d.take() == [e.StopAtCheckpoint("a", "w", number)]
    d.restart()
    assert d.take() == [e.Assign("a", "w", number, 0, d["a"].spec), e.StopAtCheckpoint("a", "w", number)]
    d.tell(e.Progressed("a", number, 3))
    d.tell(e.Paused("a", number, "ASKED"))

    assert d.state() == (State.PAUSED, "ASKED")
    assert d["a"].step == 3


def test_a_job_whose_pause_was_taken_back_continues(d: Driver) -> None:
    d.submit()
    number = d.run()
    d.tell(e.PauseAsked("a"))
    d.tell(e.ResumeAsked("a"))

    d.tell(e.Paused("a", number, "ASKED"))

    assert d.state() == (State.QUEUED, "CONTINUED")


def test_a_worker_lost_while_pausing_or_cancelling_has_done_so(d: Driver) -> None:
    for job, ask, state in (("a", e.PauseAsked("a"), State.PAUSED), ("b", e.CancelAsked("b"), State.CANCELLED)):
        d.submit(job)
        number = d.run(job)
        d.tell(ask)
        d.tell(e.Lost(job, number))

        assert d[job].state is state


def test_cancelling_stops_the_worker_at_once(d: Driver) -> None:
    d.submit()
    number = d.run()
    d.take()
    d.tell(e.CancelAsked("a"))
    assert d.tell(e.CancelAsked("a")) == ()
    assert d.take() == [e.StopNow("a", "w", number)]
    with pytest.raises(JobError, match="is being cancelled and cannot be paused"):
        d.tell(e.PauseAsked("a"))

    d.tell(e.Cancelled("a", number))

    assert d.state() == (State.CANCELLED, "ASKED")
    assert d.tell(e.CancelAsked("a")) == ()
    for event in (e.PauseAsked("a"), e.ResumeAsked("a"), e.Extended("a", "", 99)):
        with pytest.raises(JobError) as caught:
            d.tell(event)
        assert caught.value.reason == "JOB_STATE"


def test_a_full_disk_pauses_a_job_until_there_is_room(d: Driver) -> None:
    d.submit()
    number = d.run(step=4)
    d.tell(e.Paused("a", number, "STORAGE_FULL", "no room under data_dir"))
    assert d.state() == (State.PAUSED, "STORAGE_FULL")
    assert d.jobs.without_room() == ["a"]

    d.tell(e.StorageBack("a"))

    assert d.state() == (State.QUEUED, "STORAGE_BACK")
    assert d.tell(e.StorageBack("a")) == ()


def test_a_job_that_is_paused_by_its_user_does_not_resume_when_there_is_room(d: Driver) -> None:
    d.submit()
    d.tell(e.Paused("a", d.run(), "STORAGE_FULL"))
    d.tell(e.PauseAsked("a"))

    assert d.tell(e.StorageBack("a")) == ()
    assert d.state() == (State.PAUSED, "ASKED")


def test_extending_takes_effect_in_every_state_that_can(d: Driver) -> None:
    d.submit()
    number = d.run(step=8)
    d.take()
    d.tell(e.Extended("a", "spec12", 12, "r", "+4"))
    assert d.tell(e.Extended("a", "spec12", 12, "r", "+4")) == ()
    assert d.take() == [e.Extend("a", "w", number, "spec12")]

    d.tell(e.Succeeded("a", number, 8))  # it had not heard of it
    assert d.state() == (State.QUEUED, "CONTINUED")
    d.tell(e.Succeeded("a", d.run(step=12), 12))
    assert d.state() == (State.SUCCEEDED, "DONE")

    d.tell(e.Extended("a", "spec16", 16))
    assert d.state() == (State.QUEUED, "EXTENDED")
    with pytest.raises(JobError, match="ends after step 16 already"):
        d.tell(e.Extended("a", "spec12", 12))


def test_an_early_stop_is_a_success(d: Driver) -> None:
    d.submit()
    d.tell(e.Succeeded("a", d.run(step=5), 5, is_early=True))

    assert d.state() == (State.SUCCEEDED, "EARLY_STOPPED")


def test_success_needs_its_last_checkpoint(d: Driver) -> None:
    d.submit()
    number = d.run(step=7)

    with pytest.raises(JobError, match="cannot end at 8"):
        d.tell(e.Succeeded("a", number, 8))


def test_rewinding_fences_the_worker_and_begins_a_timeline(d: Driver) -> None:
    d.submit()
    number = d.run(step=6)
    d.take()
    d.tell(e.Rewound("a", 4))

    assert d.state() == (State.QUEUED, "REWOUND")
    assert d.take() == [e.StopNow("a", "w", number), e.Release("a", "w", number), e.Discard("a", 4)]
    with pytest.raises(JobError):
        d.tell(e.Progressed("a", number, 7))
    d.run(step=5)
    assert d["a"].timeline == 1
    with pytest.raises(JobError, match="cannot go back to 7"):
        d.tell(e.Rewound("a", 7))


def test_a_failed_job_goes_on_after_rewinding(d: Driver) -> None:
    d.submit()
    d.tell(e.Failed("a", d.run(step=4), "NONFINITE", "loss is nan", "train.py:7"))
    assert (d["a"].reason, d["a"].line) == ("NONFINITE", "train.py:7")

    d.tell(e.Rewound("a", 4))

    assert d.state() == (State.QUEUED, "REWOUND")
    assert d["a"].message == d["a"].line == ""


def test_a_removed_job_is_forgotten(d: Driver) -> None:
    d.submit("a", request="r")
    with pytest.raises(JobError, match="cannot be removed; cancel it first"):
        d.tell(e.Removed("a"))
    d.tell(e.CancelAsked("a"))
    d.take()

    d.tell(e.Removed("a"))

    assert d.take() == [e.Forget("a", "t")]
    assert d.jobs.all("t") == []
    with pytest.raises(NotFound):
        d.tell(e.PauseAsked("a"))


def test_other_bits_are_an_event_or_refused(d: Driver) -> None:
    d.submit("a")
    d.submit("s", strict=True)
    for job in ("a", "s"):
        d.tell(e.Lost(job, d.run(job, fingerprint="f1")))

    facts = d.tell(d.jobs.next_assignment("a", worker="w", fingerprint="f2"))
    assert facts[0] == e.NumericsChanged("a", "f1", "f2")
    with pytest.raises(JobError, match="is strict") as caught:
        d.assign("s", fingerprint="f2")
    assert caught.value.reason == "JOB_NUMERICS"
    d.assign("s", fingerprint="f1")


def test_the_line_is_fair_and_gives_reasons() -> None:
    d = Driver(Limits(running=2))
    for job, tenant in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("a4", "a"), ("c1", "c")):
        d.submit(job, tenant=tenant)
    d.assign("a1")

    places = d.jobs.line()

    assert [p.job for p in places] == ["b1", "c1", "a2", "a3", "a4"]
    assert [p.reason for p in places[:3]] == [
        "a worker is being looked for",
        "1 job is before it",
        "2 jobs are before it",
    ]
    assert places[3].reason == "its tenant may run 2 at once, and 1 run; others of its own are before it"
    assert [p.may_run for p in places] == [True, True, True, False, False]
    d.assign("a2")
    with pytest.raises(QuotaExceeded):
        d.assign("a3")
    assert d.jobs.line()[-1].reason == "its tenant may run 2 at once, and 2 run"
    d.jobs.note("b1", "no worker has 3 GiB free")
    assert d.jobs.line()[0].reason == "no worker has 3 GiB free"
    d.assign("b1")
    d.jobs.validate()


def test_a_job_that_lost_its_worker_is_first_among_its_tenants() -> None:
    d = Driver()
    d.submit("a")
    d.submit("b")
    d.tell(e.Lost("a", d.run("a")))

    assert [p.job for p in d.jobs.line()] == ["a", "b"]


def test_too_many_queued_jobs_are_refused() -> None:
    d = Driver(Limits(queued=2))
    d.submit("a")
    d.submit("b")

    with pytest.raises(QuotaExceeded) as caught:
        d.submit("c")

    assert caught.value.reason == "QUOTA_JOBS"
    d.submit("c", tenant="other")


def test_a_fork_begins_at_its_parents_step(d: Driver) -> None:
    from telegrad.wire.job_spec import Parent

    job = d.submit(parent=Parent("p", 5))

    assert (job.first_step, job.step) == (5, 5)
    d.assign()
    assert d.take() == [e.Assign("a", "w", 1, 5, job.spec)]


@pytest.mark.parametrize("step", [-1, 1, 5])
def test_a_worker_cannot_start_elsewhere(d: Driver, step: int) -> None:
    d.submit()
    number = d.assign()

    with pytest.raises(JobError, match="cannot start at step"):
        d.tell(e.Started("a", number, step))


@pytest.mark.parametrize("event", [e.NumericsChanged("a", "", ""), e.Continued("a", 1)])
def test_what_only_the_machine_says_is_not_taken(d: Driver, event: e.Event) -> None:
    with pytest.raises(GraphError):
        d.tell(event)


# ---- whatever comes, in whatever order

JOBS = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 4)
STEPS = st.integers(0, 13)


class AnyOrder(RuleBasedStateMachine):
    """Every event at any time, also late, twice and of old assignments; the gateway may end at any point."""

    def __init__(self) -> None:
        super().__init__()
        self.d = Driver(Limits(running=2, queued=3, requests=3))
        self.history: list[e.Event] = []
        self.recorded: dict[str, dict[int, float]] = {}

    def tell(self, event: e.Event) -> None:
        self.history.append(event)
        before = {job.id: job for job in self.d.jobs.in_order()}
        try:
            facts = self.d.tell(event)
        except TelegradError as error:
            assert error.reason != "INTERNAL" and str(error)
            assert {job.id: job for job in self.d.jobs.in_order()} == before
            return
        for fact in facts:
            self.check(fact, before.get(fact.job))

    def check(self, fact: e.Event, old: object) -> None:
        kept = self.recorded.setdefault(fact.job, {})
        if isinstance(fact, e.Progressed):
            for r in fact.rows:
                assert r.step not in kept, "a metric came twice"
                kept[r.step] = r.value
        if isinstance(fact, e.Rewound):
            self.recorded[fact.job] = {s: v for s, v in kept.items() if s <= fact.step}
        if isinstance(fact, e.Submitted | e.Removed):
            self.recorded[fact.job] = {}

    @rule(job=JOBS, tenant=st.sampled_from(["t", "u"]), name=st.sampled_from(["n", "m"]), request=st.integers(0, 4))
    def submit(self, job: str, tenant: str, name: str, request: int) -> None:
        spec = small_spec(name, strict=name == "m")
        self.tell(e.Submitted.of(job, tenant, spec, encode_spec(spec), request_id=f"r{request}" if request else ""))

    @rule(job=JOBS, ask=st.sampled_from([e.PauseAsked, e.ResumeAsked, e.CancelAsked, e.StorageBack, e.Removed]))
    def ask(self, job: str, ask: Callable[[str], e.Event]) -> None:
        self.tell(ask(job))

    @rule(job=JOBS, fingerprint=st.sampled_from(["f", "g"]), late=st.integers(-1, 1))
    def assign(self, job: str, fingerprint: str, late: int) -> None:
        if any(found.id == job for found in self.d.jobs.in_order()):
            event = self.d.jobs.next_assignment(job, worker="w", fingerprint=fingerprint)
            self.tell(replace(event, assignment=event.assignment + (late if late < 0 else 0)))

    @rule(
        job=JOBS,
        why=st.sampled_from(["WORKER_LOST", "WORKER_LOST", "WORKER_OOM", "DRAINED", "WORKER_FULL"]),
        back=NUMBERS,
    )
    def lose(self, job: str, why: e.Loss, back: int) -> None:
        self.tell(e.Lost(job, self.number(job, back), why))

    @rule(job=JOBS, back=NUMBERS, step=STEPS)
    def start(self, job: str, back: int, step: int) -> None:
        self.tell(e.Started(job, self.number(job, back), step))

    @rule(job=JOBS)
    def start_well(self, job: str) -> None:
        for found in self.d.jobs.placed():
            if found.id == job:
                self.tell(e.Started(job, found.assignment, found.step))

    @rule(job=JOBS, back=NUMBERS, step=STEPS, rows=st.lists(STEPS, max_size=4))
    def progress(self, job: str, back: int, step: int, rows: list[int]) -> None:
        self.tell(e.Progressed(job, self.number(job, back), step, rows=tuple([row(s) for s in rows if s])))

    @rule(job=JOBS, back=NUMBERS, why=st.sampled_from(["ASKED", "STORAGE_FULL", "STORAGE_AWAY", "NONFINITE"]))
    def pause(self, job: str, back: int, why: e.Why) -> None:
        self.tell(e.Paused(job, self.number(job, back), why))

    @rule(job=JOBS, back=NUMBERS, early=st.booleans())
    def end(self, job: str, back: int, early: bool) -> None:
        step = next((found.step for found in self.d.jobs.in_order() if found.id == job), 0)
        number = self.number(job, back)
        self.tell(e.Cancelled(job, number) if early and back == 1 else e.Succeeded(job, number, step, early))

    @rule(job=JOBS, back=NUMBERS)
    def fail(self, job: str, back: int) -> None:
        self.tell(e.Failed(job, self.number(job, back), "OP_FAILED", "x" * 5000, "train.py:3"))

    @rule(job=JOBS, step=STEPS, request=st.integers(0, 2))
    def extend(self, job: str, step: int, request: int) -> None:
        self.tell(e.Extended(job, f"s{step}", step, f"x{request}" if request else "", str(step)))

    @rule(job=JOBS, step=STEPS)
    def rewind(self, job: str, step: int) -> None:
        self.tell(e.Rewound(job, step))

    @rule(back=st.integers(0, 20))
    def repeat(self, back: int) -> None:
        if self.history:
            self.tell(self.history[-1 - back % len(self.history)])

    @rule(seconds=st.sampled_from([1.0, 90_000.0, -500.0]))
    def wait(self, seconds: float) -> None:
        self.d.now += seconds

    @rule()
    def restart(self) -> None:
        self.d.restart()

    def number(self, job: str, back: int) -> int:
        """The assignment, or one before."""
        now = next((found.assignment for found in self.d.jobs.in_order() if found.id == job), 1)
        return now - max(back - 2, 0)

    @invariant()
    def holds(self) -> None:
        self.d.jobs.validate()
        for command in self.d.take():
            if isinstance(command, e.Assign):
                job = self.d[command.job]
                assert (job.worker, job.assignment) == (command.worker, command.assignment) or not job.is_placed
        for job in self.d.jobs.in_order():
            assert all(step <= job.step for step in self.recorded.get(job.id, {}))
            assert job.state not in ENDED or job.worker == ""


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None, derandomize=True)
TestAnyOrder = AnyOrder.TestCase
