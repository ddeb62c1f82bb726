"""The journal: what was acknowledged is there, damage is found, and a full disk is a sentence and not an end."""

from __future__ import annotations

import math
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from telegrad.errors import DataCorrupt, NotFound, ResourceError, StorageFull, TelegradError, VersionMismatch
from telegrad.wire.job_codec import encode_spec, spec_digest
from telegrad_server.jobs import events as e
from telegrad_server.journal import RESERVE_BYTES, Journal

from tests.jobs.driver import row
from tests.jobs.specs import small_spec

SPEC = encode_spec(small_spec())
DIGEST = spec_digest(SPEC)
SPECS = {DIGEST: SPEC}


def submitted(job: str = "a") -> e.Submitted:
    return e.Submitted.of(job, "t", small_spec(), SPEC, request_id=f"request of {job}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Generator[Journal]:
    made = Journal(path)
    yield made
    made.close()


EVERY: tuple[e.Event, ...] = (
    submitted(),
    e.PauseAsked("a"), e.ResumeAsked("a"), e.CancelAsked("a"), e.Extended("a", DIGEST, 12, "r", "d"),
    e.Rewound("a", 3, 1), e.Assigned("a", 1, "w", "f"), e.NumericsChanged("a", "f", "g"), e.Lost("a", 1),
    e.Continued("a", 1), e.StorageBack("a"), e.Started("a", 1, 0, "naïve \x00\ud800"), e.Progressed("a", 1, 4),
    e.Paused("a", 1, "NONFINITE"), e.Cancelled("a", 0), e.Failed("a", 1, "OP_FAILED", "x\ny", "f.py:1"),
    e.Succeeded("a", 1, 8, True),
)  # fmt: skip


def test_every_event_comes_back_as_it_was(journal: Journal, path: Path) -> None:
    assert {type(event) for event in EVERY} == set(e.KINDS.values()) - {e.Removed}
    for i, event in enumerate(EVERY):
        journal.append([event], 0.1 * i, specs=SPECS)
    journal.close()

    again = Journal(path)

    assert [(entry.event, entry.at) for entry in again.replay()] == [(event, 0.1 * i) for i, event in enumerate(EVERY)]
    assert again.events("a", after=15) == again.replay()[15:]
    assert again.spec(DIGEST) == SPEC
    again.close()


def test_metrics_keep_their_bits_and_come_by_whole_steps(journal: Journal) -> None:
    values = [0.1, math.inf, -math.inf, -0.0, 5e-324, 1e308]
    rows = [row(s, v, name) for s, v in enumerate(values, 1) for name in ("acc", "loss")]
    journal.append([submitted(), e.Progressed("a", 1, 6, rows=(*rows, row(7, math.nan)))], 0.0, specs=SPECS)

    found = journal.metrics("a")

    assert found[:-1] == rows
    assert math.isnan(found[-1].value)
    assert journal.metrics("a", after_step=4)[:2] == rows[8:10]
    assert journal.metrics("a", most=3) == rows[:4]
    assert journal.metrics("b") == []


def test_rewinding_makes_metrics_past(journal: Journal) -> None:
    journal.append(
        [submitted(), e.Progressed("a", 1, 4, rows=tuple([row(s, 1.0) for s in (1, 2, 3, 4)]))], 0.0, specs=SPECS
    )
    journal.append([e.Rewound("a", 2, 1)], 1.0)
    journal.append([e.Progressed("a", 2, 4, timeline=1, rows=(row(3, 2.0), row(4, 2.0)))], 2.0)

    assert [(r.step, r.value) for r in journal.metrics("a")] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def test_facts_of_one_decision_are_written_together_or_not_at_all(journal: Journal) -> None:
    again = e.Progressed("a", 1, 4, rows=(row(4),))
    journal.append([submitted(), again], 0.0, specs=SPECS)

    with pytest.raises(ResourceError):
        journal.append([e.Lost("a", 1), again], 1.0)  # the same metric twice

    assert [entry.event for entry in journal.replay()] == [submitted(), e.Progressed("a", 1, 4)]
    journal.append([e.Lost("a", 1)], 1.0)


def test_a_commit_waits_for_the_disk(journal: Journal) -> None:
    settings = [journal._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]

    assert settings == [2, "wal"]  # FULL: each commit syncs the log; no test here can pull the plug


def test_a_removed_job_leaves_nothing(journal: Journal, path: Path) -> None:
    journal.append([submitted("a")], 0.0, specs=SPECS)
    journal.append([submitted("b"), e.Progressed("b", 1, 1, rows=(row(1),))], 0.0, specs=SPECS)
    journal.append([e.Removed("a")], 1.0)
    assert journal.spec(DIGEST) == SPEC

    journal.append([e.Removed("b")], 1.0)

    assert journal.replay() == []
    with pytest.raises(NotFound):
        journal.spec(DIGEST)
    journal.append([submitted("c")], 2.0, specs=SPECS)
    assert journal.replay()[0].number == 4


@pytest.mark.slow
def test_a_second_process_is_told(journal: Journal, path: Path) -> None:
    with pytest.raises(ResourceError, match="open in another process") as caught:
        Journal(path)

    assert caught.value.reason == "STORAGE_FAILED"


def test_a_journal_of_a_newer_server_is_not_touched(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    before = path.read_bytes()

    with pytest.raises(VersionMismatch, match="version 99"):
        Journal(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        ("Teleported", "{}", VersionMismatch),
        ("Lost", '{"job":"a","assignment":1,"mood":"blue"}', VersionMismatch),
        ("Lost", '{"job":"a"}', DataCorrupt),
        ("Lost", "[", DataCorrupt),
        ("Lost", "[1]", DataCorrupt),
    ],
)
def test_an_event_that_is_not_known_here_is_refused(kind: str, text: str, error: type[TelegradError]) -> None:
    from telegrad_server.jobs.records import event_of

    with pytest.raises(error):
        event_of(kind, text)


# ---- damage


def test_every_flipped_bit_is_found_or_harmless(path: Path) -> None:
    journal = Journal(path)
    for i in range(6):
        facts = [submitted(f"j{i}"), e.Progressed(f"j{i}", 1, 2, rows=(row(1), row(2)))]
        journal.append(facts, 0.5 * i, specs=SPECS)
    whole = _contents(journal)
    journal.close()
    data = bytearray(path.read_bytes())
    used = [i for i, byte in enumerate(data) if byte]
    rng, found = random.Random(7), 0
    for _ in range(400):
        place, bit = rng.choice(used), 1 << rng.randrange(8)
        data[place] ^= bit
        path.write_bytes(data)
        data[place] ^= bit
        try:
            damaged = Journal(path)
        except (DataCorrupt, VersionMismatch) as error:
            found += 1
            assert "sqlite3" in str(error) or isinstance(error, VersionMismatch)
            continue
        except ResourceError:
            found += 1
            continue
        assert _contents(damaged) == whole, f"byte {place}"
        damaged.close()
    assert found > 200


def _contents(journal: Journal) -> Any:
    return journal.replay(), journal.spec(DIGEST), [journal.metrics(f"j{i}") for i in range(6)]


@pytest.mark.parametrize("size", [0, 10, 100, 4096, 10_000])
def test_a_truncated_file_is_found(path: Path, size: int) -> None:
    journal = Journal(path)
    journal.append([submitted()], 0.0, specs=SPECS)
    journal.close()
    path.write_bytes(path.read_bytes()[:size])

    if size == 0:  # an empty file is a new journal
        Journal(path).close()
        return
    with pytest.raises(DataCorrupt, match="put a backup in its place") as caught:
        Journal(path)
    assert caught.value.details["file"] == "journal.db"


def test_a_backup_is_whole_and_can_take_its_place(journal: Journal, path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    journal.append([submitted()], 0.0, specs=SPECS)
    journal.backup(copy)
    journal.append([e.Lost("a", 1)], 1.0)
    first = copy.read_bytes()
    journal.backup(copy)
    assert copy.read_bytes() != first

    backup = Journal(copy)

    assert backup.replay() == journal.replay()
    assert backup.id == journal.id
    assert sorted(p.name for p in tmp_path.iterdir() if "draft" in p.name) == []
    backup.close()


# ---- a full disk


def test_a_full_journal_is_a_sentence_and_nothing_is_written(journal: Journal) -> None:
    journal.append([submitted()], 0.0, specs=SPECS)
    (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
    journal._db.execute(f"PRAGMA max_page_count={pages}").fetchall()
    with pytest.raises(StorageFull, match="the disk is full"):
        for i in range(1000):
            journal.append([e.Progressed("a", 1, i, rows=(row(i),))], 0.0)
    before = journal.replay()
    with pytest.raises(StorageFull):
        journal.append([e.PauseAsked("a"), e.Failed("a", 1, "X", "y" * 90_000)], 0.0)  # the reserve is of no use here

    assert journal.replay() == before
    journal._db.execute("PRAGMA max_page_count=1000000").fetchall()
    journal.append([e.Lost("a", 1)], 0.0)
    assert journal.keep_reserve()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root, to mount a small disk")
def test_on_a_full_disk_a_job_can_still_be_paused(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        journal = Journal(disk / "journal.db")
        journal.append([submitted()], 0.0, specs=SPECS)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(bytes(4096))
        step = 0
        with pytest.raises(StorageFull):
            for step in range(1, 100_000):
                journal.append([e.Progressed("a", 1, step, rows=(row(step),))], 0.0)
        assert (disk / "journal.db.reserve").stat().st_size == RESERVE_BYTES

        journal.append([e.Paused("a", 1, "STORAGE_FULL")], 1.0)

        assert not (disk / "journal.db.reserve").exists()
        filler.unlink()
        assert journal.keep_reserve()
        journal.append([e.StorageBack("a")], 2.0)
        entries = journal.replay()
        assert [type(x.event) for x in entries[-2:]] == [e.Paused, e.StorageBack]
        assert len(entries) == step + 2
        journal.close()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


# ---- crashes

WRITER = """
import sys
from pathlib import Path
from telegrad_server.jobs import events as e
from telegrad_server.journal import Journal
from tests.jobs.driver import row
from tests.jobs.test_journal import SPECS, submitted

journal = Journal(Path(sys.argv[1]))
first = max([int(x.event.job[1:]) for x in journal.replay()], default=-1) + 1
print("ready", first, flush=True)
for i in range(first, 1_000_000):
    job = f"j{i}"
    journal.append([submitted(job), e.Progressed(job, 1, 2, rows=(row(1), row(2)))], float(i), specs=SPECS)
    print(i, flush=True)
    if i % 50 == 49:
        journal.backup(Path(sys.argv[1] + ".backup"))
"""


@pytest.mark.slow
def test_what_was_acknowledged_is_there_after_kill_9(path: Path) -> None:
    rng = random.Random(11)
    acknowledged = -1
    for _ in range(20):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            word, first = writer.stdout.readline().split()
            assert word == "ready"
            assert int(first) > acknowledged, "an acknowledged event is gone"
            for _ in range(rng.randint(0, 120)):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            rest = writer.stdout.read().split("\n")
            acknowledged = max([acknowledged, *[int(x) for x in rest[:-1] if x]])  # the last line may be cut

    journal = Journal(path)
    entries = journal.replay()
    jobs = [entry.event.job for entry in entries]
    assert acknowledged > 300
    assert jobs[::2] == jobs[1::2], "half of a decision is there"
    assert jobs[::2] == [f"j{i}" for i in range(len(jobs) // 2)]
    assert len(jobs) // 2 > acknowledged
    assert [r.step for r in journal.metrics(f"j{acknowledged}")] == [1, 2]
    journal.close()
    backup = Journal(Path(f"{path}.backup"))
    assert backup.replay() == entries[: len(backup.replay())]
    backup.close()
