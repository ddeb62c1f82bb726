"""Each planted bug of a job's durability is found by its name, and a story that is as it should be breaks no promise.

A story is told to a real journal, ledger and checkpoint store, with a death at every place that it passes, one after
the other; then the folder is opened again, the story goes on, and its promises are looked at. No bug is found by luck:
the same deaths come in every run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from telegrad.errors import TelegradError
from telegrad.wire.job_codec import encode_spec, spec_digest
from telegrad_server.checkpoints import CheckpointStore, Folders
from telegrad_server.checkpoints.failing import FailingFiles
from telegrad_server.checkpoints.files import RealFiles
from telegrad_server.failpoints import ALL_NAMES, Reached
from telegrad_server.jobs import events as e
from telegrad_server.jobs.job import Job
from telegrad_server.jobs.machine import Jobs
from telegrad_server.journal import Journal
from telegrad_server.ledger import Ledger

from tests.checkpoints.drafts import arrays_of, draft, named, tensors
from tests.jobs.driver import row
from tests.jobs.specs import small_spec

SPEC = small_spec()
DATA = encode_spec(SPEC)
DIGEST = spec_digest(DATA)
STEPS = 2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # each story is told a hundred times


class Death(BaseException):
    """The process ends here."""


class Story:
    """A user who submits until she is answered, and a worker that writes a checkpoint of each step, then says so.

    Subclasses have a bug: in the order of what they do, or in one of the parts that they make.
    """

    def __init__(self, folder: Path, reached: Reached) -> None:
        self.reached = reached
        self.answered: dict[str, str] = {}
        self.store = self.make_store(folder / "checkpoints", reached)
        self.ledger = self.make_ledger(self.make_journal(folder / "journal.db", reached), reached)

    def make_store(self, folder: Path, reached: Reached) -> CheckpointStore:
        return CheckpointStore(Folders(folder, files=FailingFiles(RealFiles(), reached)))

    def make_journal(self, path: Path, reached: Reached) -> Journal:
        return Journal(path, reached=reached)

    def make_ledger(self, journal: Journal, reached: Reached) -> Ledger:
        return Ledger(journal, act=lambda command: None, clock=lambda: 5.0, reached=reached)

    def submit(self, job: str, tenant: str, request: str) -> str:
        """The id of the job that the request has made, now or before."""
        earlier = self.ledger.earlier(tenant, request, DIGEST)
        if earlier is not None:
            return earlier.id
        self.store.write(draft(tensors(0), job=job, step=0, metrics={"loss": 0.5}), named(tensors(0)))
        self.ledger.tell(e.Submitted.of(job, tenant, SPEC, DATA, request_id=request), specs={DIGEST: DATA})
        self.answered[tenant] = job
        self.reached("job.answered")
        return job

    def run(self, tenant: str, id: str) -> None:
        """From where the journal says to the end."""
        job = self.ledger.find(tenant, id)
        if job.is_placed:
            self.ledger.tell(e.Lost(id, job.assignment))
        self.ledger.place(id, worker="w", fingerprint="f")
        job = self.ledger.find(tenant, id)
        self.store.sweep(id)
        self.store.rewind(id, job.step)
        begin = self.store.latest(id).manifest.step
        self.ledger.tell(e.Started(id, job.assignment, begin))
        for step in range(begin + 1, STEPS + 1):
            self.save(job, step)
            self.reached("saved")
            self.store.keep(id, last=1)
        self.ledger.tell(e.Succeeded(id, job.assignment, STEPS, is_early=True))

    def save(self, job: Job, step: int) -> None:
        self.store.write(draft(tensors(step), job=job.id, step=step), named(tensors(step)))
        self.ledger.tell(e.Progressed(job.id, job.assignment, step, rows=(row(step, float(step)),)))

    def end(self) -> None:
        self.ledger.journal.close()


def broken_promises(make: Callable[[Path, Reached], Story]) -> Iterator[str]:
    """What is wrong after a death at the first place, at the second, and so on, until nobody dies; then of zombies."""
    number, was_there = 0, True
    while was_there:
        with tempfile.TemporaryDirectory(prefix="planted-") as folder:
            number += 1
            told, was_there = _dying(make, Path(folder), number)
            for wrong in _after(make, Path(folder), told):
                yield f"death {number}, {told.place}: {wrong}"


@dataclass
class _Told:
    """Where the process ended, and what had been answered then: jobs by tenant."""

    place: str = "none"
    submitted: dict[str, str] = field(default_factory=dict[str, str])


def _dying(make: Callable[[Path, Reached], Story], folder: Path, number: int) -> tuple[_Told, bool]:
    told, passed = _Told(), 0

    def reached(name: str) -> None:
        nonlocal passed
        passed += 1
        if passed == number:
            told.place = name
            raise Death(name)

    story = make(folder, lambda name: None)
    story.end()
    story = make(folder, reached)
    try:
        for tenant in ("t", "u"):
            story.submit(f"job-of-{tenant}", tenant, "request")
        story.run("t", "job-of-t")
    except Death:
        return told, True
    finally:
        told.submitted = story.answered
        story.end()
    return told, False


def _after(make: Callable[[Path, Reached], Story], folder: Path, told: _Told) -> Iterator[str]:
    """What is wrong with what a death has left, and with what the story makes of it."""
    try:
        story = make(folder, lambda name: None)
    except TelegradError as error:
        yield f"it cannot be opened: {error}"
        return
    try:
        for tenant, id in told.submitted.items():
            if [job.id for job in story.ledger.all(tenant)] != [id]:
                yield f"the job of {tenant} was acknowledged, and there are {story.ledger.all(tenant)}"
        for job in story.ledger.all("t"):
            yield from _standing(story, job)
        for tenant in ("t", "u"):  # the client's retry, under another id
            id = story.submit(f"again-of-{tenant}", tenant, "request")
            if id != told.submitted.get(tenant, id) or [job.id for job in story.ledger.all(tenant)] != [id]:
                yield f"a request of {tenant} has made {story.ledger.all(tenant)}, and is answered with {id}"
        (job, *_) = story.ledger.all("t")
        yield from _zombie(story, job)
        if not job.has_ended:
            story.run("t", job.id)
        yield from _standing(story, story.ledger.find("t", job.id))
        story.ledger.validate()
    except (TelegradError, AssertionError) as error:
        yield f"it does not go on: {error}"
    finally:
        story.end()


def _standing(story: Story, job: Job) -> Iterator[str]:
    known = [(r.step, r.value) for r in story.ledger.journal.metrics(job.id)]
    if known != [(step, float(step)) for step in range(1, job.step + 1)]:
        yield f"the checkpoint is of step {job.step}, and the metrics are {known}"
    try:
        if arrays_of(story.store.read(job.id, job.step)[1]) != arrays_of(named(tensors(job.step))):
            yield f"the checkpoint of step {job.step} has other bits"
    except TelegradError as error:
        yield f"the journal says step {job.step}: {error}"


def _zombie(story: Story, job: Job) -> Iterator[str]:
    """A worker that was replaced and says how far it has come."""
    if not job.is_placed:
        return
    former = job.assignment
    story.ledger.tell(e.Lost(job.id, former))
    story.ledger.place(job.id, worker="another", fingerprint="f")
    number = story.ledger.find("t", job.id).assignment
    story.ledger.tell(e.Started(job.id, number, job.step))
    try:
        story.ledger.tell(e.Progressed(job.id, former, job.step + 1, rows=(row(job.step + 1, -1.0),)))
    except TelegradError:
        return
    yield f"assignment {former} was over, and is heard"


# ---- the bugs


class AckBeforeJournal(Story):
    """What is acknowledged is written down with the next thing that is."""

    def make_ledger(self, journal: Journal, reached: Reached) -> Ledger:
        return _Late(journal, act=lambda command: None, clock=lambda: 5.0, reached=reached)


class _Late(Ledger):
    late: tuple[tuple[e.Event, ...], Mapping[str, bytes] | None] = ((), None)

    def tell(self, event: e.Event, *, specs: Mapping[str, bytes] | None = None) -> tuple[e.Event, ...]:
        facts = self._jobs.accept(event)
        self.journal.append(self.late[0], 5.0, specs=self.late[1])
        self.late = (facts, specs)
        for fact in facts:
            self._jobs.apply(fact, 5.0)
        return facts


class LatestBeforeManifest(Story):
    """The journal is told of a checkpoint before it is written."""

    def save(self, job: Job, step: int) -> None:
        self.ledger.tell(e.Progressed(job.id, job.assignment, step, rows=(row(step, float(step)),)))
        self.store.write(draft(tensors(step), job=job.id, step=step), named(tensors(step)))


class MetricsBeforeTheCheckpoint(Story):
    """The metrics of a step are a transaction of their own, before that of the checkpoint which covers them."""

    def make_journal(self, path: Path, reached: Reached) -> Journal:
        return _Apart(path, reached=reached)


class _Apart(Journal):
    def _write(self, facts: tuple[e.Event, ...], at: float, specs: Mapping[str, bytes]) -> None:
        for fact in facts:
            for r in fact.rows if isinstance(fact, e.Progressed) else ():
                self._write_metric("REPLACE", fact.job, 0, r, is_past=0)
        super()._write(tuple([_bare(fact) for fact in facts]), at, specs)


class MetricsAfterTheCheckpoint(Story):
    """The metrics of a step are a transaction of their own, after that of the checkpoint which covers them."""

    def make_journal(self, path: Path, reached: Reached) -> Journal:
        return _After(path, reached=reached)


class _After(Journal):
    def append(self, facts: Iterable[e.Event], at: float, *, specs: Mapping[str, bytes] | None = None) -> None:
        facts = tuple(facts)
        super().append([_bare(fact) for fact in facts], at, specs=specs)
        for fact in facts:
            for r in fact.rows if isinstance(fact, e.Progressed) else ():
                self._write_metric("REPLACE", fact.job, 0, r, is_past=0)


def _bare(fact: e.Event) -> e.Event:
    return replace(fact, rows=()) if isinstance(fact, e.Progressed) else fact


class OneMetricTwice(Story):
    """What a worker says again after an older checkpoint is recorded again."""

    def make_ledger(self, journal: Journal, reached: Reached) -> Ledger:
        return _with(_Again, super().make_ledger(journal, reached))

    def save(self, job: Job, step: int) -> None:
        super().save(job, step)
        self.ledger.tell(e.Progressed(job.id, job.assignment, step, rows=(row(step, float(step) + 0.5),)))


class _Again(Jobs):
    def _progressed(self, job: Job, event: e.Progressed) -> tuple[e.Event, ...]:
        return (replace(event, timeline=job.timeline + (event.step <= job.step)),)


class CollectsWhatLatestPointsAt(Story):
    """What goes is what is newest."""

    def make_store(self, folder: Path, reached: Reached) -> CheckpointStore:
        return _Backwards(Folders(folder, files=FailingFiles(RealFiles(), reached)))


class _Backwards(CheckpointStore):
    def keep(self, job: str, *, last: int, best: Collection[int] = ()) -> list[int]:
        steps = self.steps(job)
        self._put_away(job, [place for place in self._places(job) if place.step in steps[last:]])
        return steps[last:]


class NoEpochCheck(Story):
    """A worker is believed whatever its assignment is."""

    def make_ledger(self, journal: Journal, reached: Reached) -> Ledger:
        return _with(_Unfenced, super().make_ledger(journal, reached))


class _Unfenced(Jobs):
    def _from_worker(self, job: Job, event: e.Event) -> tuple[e.Event, ...]:
        return super()._from_worker(job, replace(event, assignment=job.assignment))  # type: ignore[call-arg]


class RequestsNotKept(Story):
    """Request ids are forgotten with the process."""

    def make_ledger(self, journal: Journal, reached: Reached) -> Ledger:
        ledger = super().make_ledger(journal, reached)
        for tenant in ledger._jobs._tenants.values():
            tenant.requests.clear()
        return ledger


class RequestsWithoutTenant(Story):
    """A request id is looked up among those of all tenants."""

    def make_ledger(self, journal: Journal, reached: Reached) -> Ledger:
        return _with(_OneForAll, super().make_ledger(journal, reached))


class _OneForAll(Jobs):
    def earlier(self, tenant: str, request_id: str, digest: str) -> Job | None:
        found = [super(_OneForAll, self).earlier(name, request_id, digest) for name in self._tenants]
        return next((job for job in found if job is not None), None)


def _with(kind: type[Jobs], ledger: Ledger) -> Ledger:
    """The ledger, with another machine that has heard the same."""
    jobs = kind()
    for entry in ledger.journal.replay():
        jobs.apply(entry.event, entry.at)
    ledger._jobs = jobs
    return ledger


BUGS = {
    AckBeforeJournal: "was acknowledged",
    LatestBeforeManifest: "the journal says step",
    MetricsBeforeTheCheckpoint: "the metrics are",
    MetricsAfterTheCheckpoint: "the metrics are",
    OneMetricTwice: "the metrics are",
    CollectsWhatLatestPointsAt: "the journal says step",
    NoEpochCheck: "was over, and is heard",
    RequestsNotKept: "it does not go on",
    RequestsWithoutTenant: "a request of u has made",
}
"""Each bug, and the promise that it breaks. Those of a disk are in tests/checkpoints: test_crashes, test_damage."""


def test_a_story_without_a_bug_breaks_no_promise() -> None:
    places: set[str] = set()

    class Watched(Story):
        def __init__(self, folder: Path, reached: Reached) -> None:
            super().__init__(folder, lambda name: (places.add(name), reached(name))[1])

    assert list(broken_promises(Watched)) == []
    assert places >= {name for name in ALL_NAMES if name not in ("job.assign", "job.step", "job.covered")}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(bug: type[Story]) -> None:
    found = next((wrong for wrong in broken_promises(bug) if BUGS[bug] in wrong), None)

    print(f"{bug.__name__}: {found}")
    assert found is not None
