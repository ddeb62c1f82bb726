"""Jobs and journal together: whatever gap a crash falls into, what was acknowledged holds and commands are repeated."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from telegrad.errors import JobError, StorageFull, TelegradError
from telegrad.wire.job_codec import encode_spec, spec_digest
from telegrad_server.failpoints import NAMES, Failpoints
from telegrad_server.jobs import events as e
from telegrad_server.jobs.job import State
from telegrad_server.journal import Journal
from telegrad_server.ledger import Ledger

from tests.jobs.driver import row
from tests.jobs.specs import small_spec

SPEC = small_spec()
DATA = encode_spec(SPEC)


class Crash(BaseException):
    """The process ends here."""


class House:
    """A ledger on a disk, that ends where it is told to and is opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commands: list[e.Command] = []
        self.heard: list[e.Event] = []
        self.crash_at: str | None = None
        self.passed: list[str] = []
        self.open()

    def open(self) -> None:
        self.crash_at = None
        self.ledger = Ledger(
            Journal(self.path, reached=self.reached), act=self.commands.append, clock=lambda: 5.0,
            heard=self.heard.append, reached=self.reached,
        )  # fmt: skip
        self.ledger.recover()

    def reached(self, name: str) -> None:
        self.passed.append(name)
        if name == self.crash_at:
            raise Crash(name)

    def tell(self, event: e.Event) -> tuple[e.Event, ...]:
        return self.ledger.tell(event, specs={spec_digest(DATA): DATA})

    def end(self) -> None:
        self.ledger.journal.close()


@pytest.fixture
def house(tmp_path: Path) -> Generator[House]:
    made = House(tmp_path / "journal.db")
    yield made
    made.ledger.validate()
    made.end()


def submitted(job: str = "a", request: str = "r") -> e.Submitted:
    return e.Submitted.of(job, "t", SPEC, DATA, request_id=request)


def test_an_event_passes_every_place_in_order(house: House) -> None:
    house.tell(submitted())
    house.passed.clear()

    house.ledger.place("a", worker="w", fingerprint="f")

    assert tuple(house.passed) == NAMES
    assert house.heard[-1] == e.Assigned("a", 1, "w", "f")


@pytest.mark.parametrize("place", NAMES[:-1])
def test_a_submission_cut_anywhere_is_there_once_after_a_retry(house: House, place: str) -> None:
    house.crash_at = place
    with pytest.raises(Crash):
        house.tell(submitted("a"))
    house.end()

    house.open()
    house.tell(submitted("b"))  # the client's retry: the same request, another id

    (job,) = house.ledger.all("t")
    assert job.id == ("a" if place in ("journal.after_commit", "job.applied") else "b")


@pytest.mark.parametrize("place", NAMES)
def test_an_assignment_cut_anywhere_is_never_given_twice(house: House, place: str) -> None:
    house.tell(submitted())
    house.commands.clear()
    house.crash_at = place
    with pytest.raises(Crash):
        house.ledger.place("a", worker="w", fingerprint="f")
    house.end()
    assert house.commands == []

    house.open()

    if place in ("job.accept", "journal.before_commit"):
        assert house.commands == [] and house.ledger.find("t", "a").state is State.QUEUED
        house.ledger.place("a", worker="w2", fingerprint="f")
    assert [(c.assignment, c.step) for c in house.commands if isinstance(c, e.Assign)] == [(1, 0)]


@pytest.mark.parametrize("place", NAMES[:-1])
def test_progress_cut_anywhere_is_recorded_once(house: House, place: str) -> None:
    house.tell(submitted())
    house.ledger.place("a", worker="w", fingerprint="f")
    house.tell(e.Started("a", 1, 0))
    event = e.Progressed("a", 1, 2, rows=(row(1), row(2)))
    house.crash_at = place
    with pytest.raises(Crash):
        house.tell(event)
    house.end()

    house.open()
    house.tell(event)

    assert house.ledger.journal.metrics("a") == [row(1), row(2)]
    assert house.ledger.find("t", "a").step == 2


def test_what_cannot_be_written_has_not_happened(house: House) -> None:
    house.tell(submitted())

    def full(name: str) -> None:
        if name == "journal.before_commit":
            raise StorageFull("full")

    house.ledger.journal._reached = full
    with pytest.raises(StorageFull):
        house.ledger.place("a", worker="w", fingerprint="f")

    assert house.ledger.find("t", "a").state is State.QUEUED
    assert house.commands == []


def test_a_decision_of_several_facts_is_one_transaction(house: House) -> None:
    house.tell(submitted())
    house.passed.clear()

    facts = house.tell(e.CancelAsked("a"))

    assert len(facts) == 2
    assert house.passed.count("journal.before_commit") == 1


def test_a_command_must_not_tell(house: House) -> None:
    house.tell(submitted())
    house.ledger._act = lambda command: house.ledger.tell(e.PauseAsked("a"))  # type: ignore[assignment]

    with pytest.raises(JobError, match="another turn"):
        house.ledger.place("a", worker="w", fingerprint="f")


WORKER = """
import sys
from pathlib import Path
from telegrad_server.failpoints import Failpoints
from telegrad_server.journal import Journal
from telegrad_server.ledger import Ledger
from telegrad_server.jobs import events as e
from tests.jobs.test_ledger import DATA, submitted
from telegrad.wire.job_codec import spec_digest

reached = Failpoints(sys.argv[2])
journal = Journal(Path(sys.argv[1]), reached=reached)
ledger = Ledger(journal, act=lambda c: print(c, flush=True), clock=lambda: 1.0, reached=reached)
ledger.recover()
ledger.tell(submitted(), specs={spec_digest(DATA): DATA})
print("submitted", flush=True)
if ledger.find("t", "a").state.value == "QUEUED":
    ledger.place("a", worker="w", fingerprint="f")
print("assigned", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", NAMES)
def test_a_real_kill_at_each_place_is_survived(tmp_path: Path, place: str) -> None:
    def run(failpoint: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WORKER, str(tmp_path / "journal.db"), failpoint]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    first = run(f"{place}=kill:1")
    assert first.returncode == -9, first.stderr
    second = run(f"{place}=kill:2")
    third = run("")

    assert third.returncode == 0, third.stderr
    assert "assigned" in third.stdout
    assert ("Assign(" in second.stdout) <= ("Assign(" in third.stdout)
    house = House(tmp_path / "journal.db")
    assert [(j.id, j.state, j.assignment) for j in house.ledger.all("t")] == [("a", State.STARTING, 1)]
    house.end()


@pytest.mark.parametrize("text", ["x=kill", "job.accept=sleep", "job.accept=kill:x", "job.accept"])
def test_a_failpoint_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(TelegradError, match="NAME=kill"):
        Failpoints(text)


class CrashesAnywhere(RuleBasedStateMachine):
    """A user, a worker that tells everything until it is acknowledged, and a process that ends at any place."""

    folder: Callable[[], Path]

    def __init__(self) -> None:
        super().__init__()
        self.house = House(type(self).folder() / "journal.db")
        self.steps: dict[str, int] = {}

    def tell(self, event: e.Event, place: str | None) -> None:
        """Say it, with a crash somewhere, until it is answered."""
        self.house.crash_at = place
        for _ in range(2):
            try:
                self.house.tell(event)
                return
            except Crash:
                self.house.end()
                self.house.open()
            except TelegradError:
                return

    PLACES = st.sampled_from([None, *NAMES])
    IDS = st.sampled_from(["a", "b"])

    @rule(job=IDS, place=PLACES)
    def submit(self, job: str, place: str | None) -> None:
        self.tell(e.Submitted.of(job, job, SPEC, DATA, request_id=job), place)

    @rule(job=IDS, place=PLACES)
    def assign(self, job: str, place: str | None) -> None:
        if self.house.ledger.all(job):
            jobs = self.house.ledger._jobs
            self.tell(jobs.next_assignment(job, worker="w", fingerprint="f"), place)

    @rule(job=IDS, place=PLACES, size=st.integers(1, 3))
    def work(self, job: str, place: str | None, size: int) -> None:
        for found in self.house.ledger.placed():
            if found.id == job and found.step + size <= found.last_step:
                self.tell(e.Started(job, found.assignment, found.step), None)
                end = found.step + size
                rows = tuple([row(s, float(s)) for s in range(found.step + 1, end + 1)])
                self.tell(e.Progressed(job, found.assignment, end, rows=rows), place)
                assert self.house.ledger.find(job, job).step == end

    @rule(job=IDS, place=PLACES, kind=st.sampled_from([e.PauseAsked, e.ResumeAsked, e.CancelAsked, e.Removed]))
    def ask(self, job: str, place: str | None, kind: Callable[[str], e.Event]) -> None:
        self.tell(kind(job), place)

    @rule(job=IDS, place=PLACES, back=st.integers(0, 3))
    def rewind(self, job: str, place: str | None, back: int) -> None:
        for found in self.house.ledger.all(job):
            self.tell(e.Rewound(job, max(found.step - back, 0), 0, f"{found.timeline}", f"{back}"), place)

    @rule(job=IDS, place=PLACES)
    def lose(self, job: str, place: str | None) -> None:
        for found in self.house.ledger.placed():
            if found.id == job:
                self.tell(e.Lost(job, found.assignment), place)

    def teardown(self) -> None:
        for job in ("a", "b"):
            for found in self.house.ledger.all(job):
                metrics = self.house.ledger.journal.metrics(job)
                assert [(r.step, r.value) for r in metrics] == [(s, float(s)) for s in range(1, found.step + 1)]
        self.house.ledger.validate()
        self.house.end()


def test_whatever_crash_comes_the_jobs_are_what_was_acknowledged(tmp_path_factory: pytest.TempPathFactory) -> None:
    CrashesAnywhere.folder = staticmethod(lambda: tmp_path_factory.mktemp("ledger"))
    case = CrashesAnywhere.TestCase
    case.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)
    case("runTest").runTest()
