"""Journals that older servers wrote: they are opened, amount to what they did, and go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from telegrad.wire.job_codec import decode_spec
from telegrad_server.jobs import events as e
from telegrad_server.journal import Journal
from telegrad_server.ledger import Ledger

from tests.jobs.recordings import FOLDER, SCENES, load, outcome

RECORDINGS = sorted(path.stem for path in FOLDER.glob("*.sql"))


def test_every_scene_is_recorded() -> None:
    assert set(SCENES) <= set(RECORDINGS)


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_golden_journal_amounts_to_what_it_did(name: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    expected = load(name, path)
    commands: list[e.Command] = []

    ledger = Ledger(Journal(path), act=commands.append, clock=lambda: 2e9)
    ledger.recover()

    assert outcome(ledger) == expected
    ledger.validate()
    jobs = [job for tenant in ("t", "u") for job in ledger.all(tenant)]
    assert {c.job for c in commands if isinstance(c, e.Assign)} == {job.id for job in jobs if job.is_placed}
    for job in jobs:
        assert decode_spec(ledger.journal.spec(job.spec)).last_step == job.last_step
        ledger.tell(e.Rewound(job.id, job.first_step)) if job.wish.value != "cancel" else None
    ledger.validate()
    ledger.journal.close()
