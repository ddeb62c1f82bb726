"""Golden journals: recorded once, as SQL, and replayed for ever. `python -m tests.jobs.recordings` adds missing ones.

A recording is never made anew: it is what a server of its day has written, and what users' journals look like.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from telegrad.wire.job_codec import encode_spec, spec_digest
from telegrad.wire.job_spec import JobSpec, Loop
from telegrad_server.jobs import events as e
from telegrad_server.journal import Journal
from telegrad_server.ledger import Ledger

from tests.jobs.driver import row
from tests.jobs.specs import full_spec, small_spec

FOLDER = Path(__file__).parent / "golden"


class Stage:
    """A ledger with a clock that goes on by a second with each event."""

    def __init__(self, path: Path) -> None:
        self.now = 1_700_000_000.0
        self.ledger = Ledger(Journal(path), act=lambda command: None, clock=self.tick)

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def submit(self, job: str, spec: JobSpec, *, tenant: str = "t", request: str = "") -> None:
        data = encode_spec(spec)
        event = e.Submitted.of(job, tenant, spec, data, request_id=request)
        self.ledger.tell(event, specs={spec_digest(data): data})

    def run(self, job: str, *, worker: str = "worker-1", fingerprint: str = "f1", steps: int = 0) -> int:
        self.ledger.place(job, worker=worker, fingerprint=fingerprint)
        found = self.ledger.find("t", job)
        self.ledger.tell(e.Started(job, found.assignment, found.step))
        if steps:
            rows = [
                row(s, 1 / s, name) for s in range(found.step + 1, found.step + steps + 1) for name in ("acc", "loss")
            ]
            self.ledger.tell(e.Progressed(job, found.assignment, found.step + steps, rows=tuple(rows)))
        return found.assignment

    def tell(self, event: e.Event) -> None:
        self.ledger.tell(event)


def success(s: Stage) -> None:
    s.submit("j1", small_spec("digits"), request="r1")
    s.tell(e.Succeeded("j1", s.run("j1", steps=8), 8))


def crash_loop(s: Stage) -> None:
    s.submit("j1", small_spec("poison"))
    s.tell(e.Lost("j1", s.run("j1", steps=3), message="killed by signal 9"))
    for _ in range(5):
        if s.ledger.find("t", "j1").state.value == "QUEUED":
            s.tell(e.Lost("j1", s.run("j1"), message="killed by signal 11"))


def pauses(s: Stage) -> None:
    s.submit("j1", small_spec("patient"))
    s.tell(e.PauseAsked("j1"))
    s.tell(e.ResumeAsked("j1"))
    s.tell(e.Paused("j1", s.run("j1", steps=2), "STORAGE_FULL", "no room under data_dir"))
    s.tell(e.StorageBack("j1"))
    number = s.run("j1", steps=2)
    s.tell(e.PauseAsked("j1"))
    s.tell(e.Paused("j1", number, "ASKED"))


def longer_and_back(s: Stage) -> None:
    spec = small_spec("wandering")
    s.submit("j1", spec)
    s.tell(e.Succeeded("j1", s.run("j1", steps=8), 8))
    longer = small_spec("wandering", loop=Loop(32, epochs=3))
    data = encode_spec(longer)
    event = e.Extended("j1", spec_digest(data), longer.last_step, "r2", "+1")
    s.ledger.tell(event, specs={spec_digest(data): data})
    s.run("j1", steps=2)
    s.tell(e.Rewound("j1", 4, 0, "r3", "4"))
    s.run("j1", steps=1, worker="worker-2", fingerprint="f2")


def every_ending(s: Stage) -> None:
    s.submit("j1", full_spec("fork"))
    s.tell(e.Succeeded("j1", s.run("j1", steps=2), 5, is_early=True))
    s.submit("j2", small_spec("stopped"))
    number = s.run("j2", steps=1)
    s.tell(e.CancelAsked("j2"))
    s.tell(e.Cancelled("j2", number))
    s.submit("j3", small_spec("nan"))
    s.tell(e.Failed("j3", s.run("j3", steps=1), "NONFINITE", "loss is nan at step 2", "train.py:12"))
    s.submit("j4", small_spec("gone"))
    s.tell(e.CancelAsked("j4"))
    s.tell(e.Removed("j4"))
    s.submit("j5", small_spec("large"))
    for _ in range(2):
        s.tell(e.Lost("j5", s.run("j5"), "WORKER_OOM"))


def in_line(s: Stage) -> None:
    for i in range(6):
        s.submit(f"j{i}", small_spec(f"own-{i}"))
    s.submit("k", small_spec("other"), tenant="u")
    s.tell(e.Lost("j0", s.run("j0"), "DRAINED"))
    for i in range(4):
        s.ledger.place(f"j{i}", worker=f"worker-{i}", fingerprint="f1")
    s.tell(e.Started("j1", 1, 0))
    s.tell(e.CancelAsked("j1"))
    s.tell(e.PauseAsked("j2"))


SCENES: dict[str, Callable[[Stage], None]] = {
    scene.__name__: scene for scene in (success, crash_loop, pauses, longer_and_back, every_ending, in_line)
}


def outcome(ledger: Ledger) -> dict[str, Any]:
    """All that a journal amounts to, as JSON has it."""
    jobs = [job for tenant in ("t", "u") for job in ledger.all(tenant)]
    shown = [{**asdict(job), "state": job.state.value, "wish": job.wish.value} for job in jobs]
    for job in shown:
        del job["number"]  # only orders jobs
    found = {
        "jobs": shown,
        "metrics": {job.id: ledger.journal.metrics(job.id) for job in jobs},
        "line": ledger.line(),
        "events": [[entry.number, entry.at, type(entry.event).__name__] for entry in ledger.journal.replay()],
    }
    return json.loads(json.dumps(found))


def record() -> None:
    """Record every scene that has no recording."""
    for name, scene in SCENES.items():
        target = FOLDER / f"{name}.sql"
        if target.exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "journal.db"
            stage = Stage(path)
            scene(stage)
            result = outcome(stage.ledger)
            stage.ledger.journal.close()
            db = sqlite3.connect(path)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            dump = "\n".join(db.iterdump())
            db.close()
        target.write_text(f"PRAGMA user_version={version};\n{dump}\n")
        target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


def load(name: str, path: Path) -> dict[str, Any]:
    """Put a recording where a server finds it; what it amounted to."""
    db = sqlite3.connect(path)
    db.executescript((FOLDER / f"{name}.sql").read_text())
    db.close()
    return json.loads((FOLDER / f"{name}.json").read_text())


if __name__ == "__main__":
    record()
