"""What a job is rewound to is not taken away by the training that it leaves, however the two meet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from telegrad.errors import JobError, NotFound
from telegrad.wire.job_codec import encode_spec, spec_digest
from telegrad_server.checkpoints import CheckpointStore, Draft, Folders
from telegrad_server.datasets import Catalog
from telegrad_server.forking import Forking
from telegrad_server.intake import Intake
from telegrad_server.jobs import events as e
from telegrad_server.journal import Journal
from telegrad_server.keeper import Keeper, Rules
from telegrad_server.ledger import Ledger

from tests.jobs.specs import small_spec


def write(store: CheckpointStore, step: int) -> None:
    draft = Draft(
        job="j", step=step, epoch=0, cursor=0, calls=0, seed=0, spec_digest="", fingerprint="", metrics={}, tensors={}
    )
    store.write(draft, [])


class House(NamedTuple):
    """A running job with checkpoints of steps 0 to 3."""

    ledger: Ledger
    store: CheckpointStore
    forking: Forking
    commands: list[e.Command]

    def rewind(self, step: int, request: str = "r") -> None:
        self.forking.rewind(self.ledger.find("t", "line"), step, request)

    def discard(self) -> None:
        for command in self.commands:
            if isinstance(command, e.Discard):
                self.forking.discard(command)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    commands: list[e.Command] = []
    ledger = Ledger(Journal(tmp_path / "journal.db"), act=commands.append, clock=lambda: 5.0)
    store = CheckpointStore(Folders(tmp_path / "checkpoints"))
    catalog = Catalog(tmp_path / "datasets")
    keeper = Keeper(ledger, store, catalog, tmp_path, rules=Rules(), clock=lambda: 5.0)
    forking = Forking(ledger, store, Intake(ledger, store, catalog, keeper))
    spec = small_spec()
    data = encode_spec(spec)
    ledger.tell(e.Submitted.of("j", "t", spec, data), specs={spec_digest(data): data})
    ledger.place("j", worker="w", fingerprint="f")
    ledger.tell(e.Started("j", 1, 0))
    for step in range(4):
        write(store, step)
        if step:
            ledger.tell(e.Progressed("j", 1, step))
    yield House(ledger, store, forking, commands)
    ledger.journal.close()


def test_it_stays_until_what_came_after_it_is_discarded(house: House) -> None:
    house.rewind(1)
    house.store.keep("j", last=1)  # of the loop that has not heard of it yet
    assert house.store.steps("j") == [1, 3]

    house.discard()
    house.store.keep("j", last=1)
    assert house.store.steps("j") == [1]
    assert house.ledger.find("t", "line").step == 1


def test_a_rewinding_that_is_refused_keeps_nothing(house: House) -> None:
    house.store.keep("j", last=1)
    with pytest.raises(NotFound, match="no checkpoint of step 1"):
        house.rewind(1)
    house.ledger.tell(e.CancelAsked("j"))
    with pytest.raises(JobError, match="being cancelled"):
        house.rewind(3)
    write(house.store, 4)

    house.store.keep("j", last=1)

    assert house.store.steps("j") == [4]


def test_the_same_request_rewinds_once(house: House) -> None:
    house.rewind(1)
    house.discard()
    house.rewind(1)

    assert house.ledger.find("t", "line").timeline == 1
    write(house.store, 2)
    house.store.keep("j", last=1)
    assert house.store.steps("j") == [2]
