"""What goes with time, what is nobody's, and how room is waited for; and that a round may be cut off anywhere."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from telegrad.errors import NotFound, QuotaExceeded
from telegrad.wire.job_codec import encode_spec, spec_digest
from telegrad.wire.job_spec import JobSpec
from telegrad_server.checkpoints import CheckpointStore, Folders
from telegrad_server.checkpoints.failing import FailingFiles
from telegrad_server.checkpoints.files import RealFiles
from telegrad_server.datasets import Catalog
from telegrad_server.failpoints import Reached, nothing
from telegrad_server.jobs import events as e
from telegrad_server.journal import Journal
from telegrad_server.keeper import SWEEP_SECONDS, Keeper, Rules
from telegrad_server.ledger import Ledger

from tests.checkpoints.drafts import draft, named, tensors
from tests.jobs.specs import small_spec

DAY = 86400.0


class Cut(BaseException):
    """The process ends here."""


@dataclass
class House:
    """A folder with jobs, and two clocks that the tests turn."""

    folder: Path
    rules: Rules = field(default_factory=Rules)
    reached: Reached = nothing
    wall: float = 1000.0
    time: float = 0.0

    def __post_init__(self) -> None:
        self.ledger = Ledger(Journal(self.folder / "journal.db"), act=self.act, clock=lambda: self.wall)
        self.store = CheckpointStore(
            Folders(self.folder / "checkpoints", files=FailingFiles(RealFiles(), self.reached))
        )
        self.catalog = Catalog(self.folder / "datasets")
        self.keeper = Keeper(
            self.ledger, self.store, self.catalog, self.folder, rules=self.rules, clock=lambda: self.wall,
            monotonic=lambda: self.time,
        )  # fmt: skip

    def act(self, command: e.Command) -> None:
        if isinstance(command, e.Forget):
            self.store.remove(command.job)
            self.catalog.let_go(command.tenant, by=f"job-{command.job}")

    def submit(self, job: str, *, tenant: str = "t", spec: JobSpec | None = None) -> None:
        spec = small_spec(job) if spec is None else spec
        data = encode_spec(spec)
        dataset = self.catalog.put(tenant, f"{job}.data", {"x": np.arange(5.0)})
        self.catalog.hold(tenant, dataset.digest, by=f"job-{job}")
        self.catalog.delete(tenant, f"{job}.data")
        self.write(job, 0)
        self.ledger.tell(e.Submitted.of(job, tenant, spec, data), specs={spec_digest(data): data})

    def arriving(self, job: str, *, tenant: str = "t", request: str = "") -> AbstractContextManager[None]:
        return self.keeper.arriving(job, tenant, small_spec(job), request_id=request or job)

    def write(self, job: str, step: int) -> None:
        self.store.write(draft(tensors(step), job=job, step=step, metrics={"loss": 0.5}), named(tensors(step)))

    def end(self, job: str) -> None:
        self.ledger.tell(e.CancelAsked(job))

    def later(self, seconds: float = SWEEP_SECONDS) -> None:
        """So much later: a round."""
        self.wall += seconds
        self.time += seconds
        self.keeper.round()

    def jobs(self) -> list[str]:
        return [job.id for job in self.ledger.every()]

    def close(self) -> None:
        self.ledger.journal.close()


@pytest.fixture
def house(tmp_path: Path) -> Generator[House]:
    house = House(tmp_path, Rules(ended_seconds=10 * DAY, stray_seconds=DAY))
    yield house
    house.ledger.validate()
    house.close()


def test_a_job_that_ended_long_ago_goes_with_all_it_had(house: House) -> None:
    house.submit("old")
    house.end("old")
    house.later(9 * DAY)
    house.submit("young")
    house.end("young")
    house.submit("waiting")
    assert house.jobs() == ["old", "young", "waiting"]

    house.later(2 * DAY)

    assert house.jobs() == ["young", "waiting"]
    assert house.store.steps("old") == [] and house.store.steps("young") == [0]
    assert house.catalog.holders() == {"job-young", "job-waiting"}


def test_what_has_ended_stays_for_ever_unless_the_operator_says_otherwise(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.submit("old")
    house.end("old")

    house.later(10_000 * DAY)

    assert house.jobs() == ["old"] and house.store.steps("old") == [0]
    house.close()


def test_what_is_nobodys_goes_after_a_grace_and_not_before(house: House) -> None:
    house.submit("known")
    house.write("stray", 3)
    held = house.catalog.put("u", "d", {"x": np.arange(4.0)})
    house.catalog.hold("u", held.digest, by="job-stray")
    house.catalog.hold("u", held.digest, by="somebody else")
    house.later()
    house.later(DAY - 1)
    assert house.store.steps("stray") == [3]

    house.later(SWEEP_SECONDS)

    assert house.store.steps("stray") == []
    assert house.store.steps("known") == [0]
    assert house.catalog.holders() == {"job-known", "somebody else"}


def test_what_is_on_its_way_in_is_no_stray(house: House) -> None:
    with house.arriving("new"):
        house.write("new", 0)
        house.later()
        house.later(10 * DAY)

    assert house.store.steps("new") == [0]


def test_a_stray_that_the_journal_comes_to_know_again_stays(house: House) -> None:
    """As when an operator puts the right journal back in time."""
    house.write("known-again", 0)
    house.later()
    house.later(DAY / 2)
    house.submit("known-again")
    house.later(DAY)

    assert 0 in house.store.steps("known-again")


@pytest.mark.parametrize("number", range(1, 7))
def test_a_round_that_is_cut_off_is_done_by_the_next(tmp_path: Path, number: int) -> None:
    """After the journal has forgotten the job, and at each file that goes."""
    passed = 0

    def reached(name: str) -> None:
        nonlocal passed
        passed += name in ("checkpoint.gc", "checkpoint.gc_remove")
        if passed == number:
            raise Cut

    rules = Rules(ended_seconds=DAY, stray_seconds=0.0)
    house = House(tmp_path, rules, reached)
    house.submit("old")
    house.write("old", 1)
    house.end("old")
    house.wall += 2 * DAY
    with pytest.raises(Cut):
        house.later()
    house.close()

    house = House(tmp_path, rules)
    house.later()

    assert house.jobs() == []
    assert os.listdir(tmp_path / "checkpoints") == []
    assert house.catalog.holders() == set()
    house.close()


def test_a_tenant_gets_no_more_jobs_than_its_quota_of_checkpoints_allows(tmp_path: Path) -> None:
    spec = small_spec("a")
    one = sum(slot.type.nbytes for slot in spec.state)
    house = House(tmp_path, Rules(max_tenant_bytes=2 * one * (spec.checkpoints.keep_last + 3)))
    for job in ("a", "b"):
        with house.arriving(job):
            house.submit(job)

    with pytest.raises(QuotaExceeded, match="keep fewer checkpoints") as caught, house.arriving("c"):
        pass
    with house.arriving("c", tenant="another"):
        pass

    assert caught.value.reason == "QUOTA_CHECKPOINT_BYTES"
    assert caught.value.details["wanted"] == one * (spec.checkpoints.keep_last + 3)
    house.close()


def test_jobs_that_come_at_once_do_not_pass_the_quota_together(tmp_path: Path) -> None:
    spec = small_spec("a")
    one = sum(slot.type.nbytes for slot in spec.state)
    house = House(tmp_path, Rules(max_tenant_bytes=one * (spec.checkpoints.keep_last + 3)))

    with house.arriving("a", request="r"):
        with pytest.raises(QuotaExceeded), house.arriving("b"):
            pass
        with house.arriving("b", tenant="another"), house.arriving("again", request="r"):
            house.submit("a")
    with pytest.raises(QuotaExceeded), house.arriving("b"):
        pass
    house.close()


def test_what_has_ended_counts_by_what_is_there(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.submit("a")
    house.end("a")
    size = sum(path.stat().st_size for path in (tmp_path / "checkpoints").rglob("*") if path.is_file())

    assert house.store.sizes("a") == {0: size}
    house.keeper._rules = house.rules = Rules(max_tenant_bytes=size)
    with pytest.raises(QuotaExceeded, match=f"other jobs {size};"), house.arriving("b"):
        pass
    house.close()


def test_a_copy_of_the_journal_is_written_as_often_as_was_said(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    house = House(tmp_path, Rules(backup=copy, backup_seconds=3600.0))
    house.submit("a")
    house.later(3000)
    assert not copy.exists()

    house.later(700)

    backup = Journal(copy)
    assert [entry.event.job for entry in backup.replay()] == ["a"]
    backup.close()
    house.close()


def paused(house: House) -> None:
    house.submit("full")
    house.ledger.place("full", worker="w", fingerprint="f")
    house.ledger.tell(e.Started("full", 1, 0))
    house.ledger.tell(e.Paused("full", 1, "STORAGE_FULL"))


def test_a_job_without_room_goes_on_when_there_is_some(house: House) -> None:
    paused(house)

    house.later(1.0)

    assert house.ledger.find("t", "full").state.value == "QUEUED"


def test_a_job_that_finds_no_room_again_and_again_is_tried_less_often(house: House) -> None:
    paused(house)
    tries: list[float] = []
    for _ in range(200):
        house.later(1.0)
        job = house.ledger.find("t", "full")
        if job.state.value == "QUEUED":
            tries.append(house.time)
            house.ledger.place("full", worker="w", fingerprint="f")
            number = house.ledger.find("t", "full").assignment
            house.ledger.tell(e.Started("full", number, 0))
            house.ledger.tell(e.Paused("full", number, "STORAGE_FULL"))

    waits = np.diff(tries)
    assert waits.tolist() == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0][: len(waits)]
    assert len(waits) >= 6


def test_a_removed_job_is_not_found(house: House) -> None:
    house.submit("old")
    house.end("old")
    house.later(11 * DAY)

    with pytest.raises(NotFound):
        house.ledger.find("t", "old")
