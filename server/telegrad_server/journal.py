"""The journal: what must last of the jobs, in one SQLite file with one writer. It decides nothing.

A transaction holds everything that one decision amounts to (events, metrics, the bytes of a spec), and `append` returns
once it is on the disk: WAL with full sync. Events are only ever added, until their job is removed. Each row has its own
checksum, since SQLite's pages have none: a bit that the disk has turned is found, and is not taken for history.

A reserve file beside it is given up when the disk is full, so that a job can still be written down as paused or ended.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import sqlite3
import threading
import zlib
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from telegrad.errors import DataCorrupt, NotFound, ResourceError, StorageFull, TelegradError, VersionMismatch

from telegrad_server.failpoints import Reached, nothing
from telegrad_server.jobs import events as e
from telegrad_server.jobs.records import event_of, text_of

VERSION = 1
RESERVE_BYTES = 1 << 20

_SCHEMA = """
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, job TEXT NOT NULL, kind TEXT NOT NULL,
    fields TEXT NOT NULL, checksum INTEGER NOT NULL
);
CREATE INDEX events_of_job ON events (job, number);
CREATE TABLE specs (digest TEXT PRIMARY KEY, bytes BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE uses (job TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (job, digest)) WITHOUT ROWID;
CREATE TABLE metrics (
    job TEXT NOT NULL, timeline INTEGER NOT NULL, step INTEGER NOT NULL, name TEXT NOT NULL, epoch INTEGER NOT NULL,
    value REAL, at REAL NOT NULL, is_past INTEGER NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (job, timeline, step, name)
) WITHOUT ROWID;
"""

_ENDINGS = (e.Paused, e.Lost, e.Cancelled, e.Failed, e.Succeeded)
"""What is written from the reserve when the disk is full: it ends something."""


class Entry(NamedTuple):
    """An event as it stands in the journal. Metrics are kept beside it: a Progressed has no rows."""

    number: int
    at: float
    event: e.Event


class Journal:
    """The journal at ``path``, made if it is not there. Opening it checks all of it.

    Raises DataCorrupt (file) with what to do if a page or a row is not what was written, VersionMismatch if a newer
    program has written it, ResourceError (STORAGE_FAILED) if another process has it open or the disk refuses.
    """

    def __init__(self, path: Path, *, reached: Reached = nothing) -> None:
        self.path = path
        self._reached = reached
        self._lock = threading.Lock()
        self._reserve = path.with_name(path.name + ".reserve")
        with _errors(path):
            self._db = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
                self._check()
            except BaseException:
                self._db.close()
                raise
        self.keep_reserve()

    def _prepare(self) -> None:
        """Become the one writer, and make the tables of a new journal."""
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        self._db.execute("BEGIN IMMEDIATE")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={VERSION}")
        (number,) = self._db.execute("PRAGMA application_id").fetchone()
        if version <= VERSION and not number:
            number = 1 + secrets.randbelow((1 << 31) - 1)
            self._db.execute(f"PRAGMA application_id={number}")
        self.id = f"{number:08x}"
        """What tells this journal, and its copies, from others."""
        self._db.execute("COMMIT")
        if version > VERSION:
            raise VersionMismatch(
                f"{self.path.name} is a journal of version {version}, and this server knows up to {VERSION}; update it"
            )
        if version == 0:
            _sync_folder(self.path.parent)

    def _check(self) -> None:
        found = [row[0] for row in self._db.execute("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise self._corrupt("; ".join(map(str, found)))
        for number, *row, checksum in self._db.execute("SELECT number, at, job, kind, fields, checksum FROM events"):
            if _checksum(row) != checksum:
                raise self._corrupt(f"event {number} is not as it was written")
        for *row, checksum in self._db.execute(
            "SELECT job, timeline, step, name, epoch, value, at, is_past, checksum FROM metrics"
        ):
            if _checksum(row) != checksum:
                raise self._corrupt(
                    f"the metric {row[3]} of the job {row[0]} at step {row[2]} is not as it was written"
                )
        for digest, data in self._db.execute("SELECT digest, bytes FROM specs"):
            if hashlib.sha256(data).hexdigest() != digest:
                raise self._corrupt(f"the spec {digest[:16]} is not as it was written")

    def _corrupt(self, what: str) -> DataCorrupt:
        return DataCorrupt(_hint(self.path, what), file=self.path.name, found=what)

    # ---- writing

    def append(self, facts: Iterable[e.Event], at: float, *, specs: Mapping[str, bytes] | None = None) -> None:
        """Write the facts of one decision, all or none; they last when it returns.

        StorageFull if the disk is; ResourceError (STORAGE_FAILED) for its other errors. Then nothing is written.
        """
        facts = tuple(facts)
        with self._lock:
            try:
                self._write(facts, at, specs or {})
            except StorageFull:
                if not any(isinstance(fact, _ENDINGS) for fact in facts) or not self._give_up_reserve():
                    raise
                self._write(facts, at, specs or {})
        self._reached("journal.after_commit")

    def _write(self, facts: tuple[e.Event, ...], at: float, specs: Mapping[str, bytes]) -> None:
        with _errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for digest, data in specs.items():
                    assert hashlib.sha256(data).hexdigest() == digest
                    self._db.execute("INSERT OR IGNORE INTO specs VALUES (?, ?)", (digest, data))
                for fact in facts:
                    self._write_event(fact, at)
                self._reached("journal.before_commit")
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _write_event(self, fact: e.Event, at: float) -> None:
        if isinstance(fact, e.Removed):
            self._erase(fact.job)
            return
        row = (float(at), fact.job, type(fact).__name__, text_of(fact))
        self._db.execute(
            "INSERT INTO events (at, job, kind, fields, checksum) VALUES (?, ?, ?, ?, ?)", (*row, _checksum(row))
        )
        match fact:
            case e.Submitted() | e.Extended():
                assert self._db.execute("SELECT 1 FROM specs WHERE digest = ?", (fact.spec,)).fetchone(), "no such spec"
                self._db.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (fact.job, fact.spec))
            case e.Progressed():
                for r in fact.rows:
                    self._write_metric("INSERT", fact.job, fact.timeline, r, is_past=0)
            case e.Rewound():
                for timeline, *r in self._db.execute(
                    "SELECT timeline, step, epoch, name, value, at FROM metrics WHERE job = ? AND step > ?"
                    " AND NOT is_past",
                    (fact.job, fact.step),
                ).fetchall():
                    self._write_metric("REPLACE", fact.job, timeline, e.Row(*r), is_past=1)
            case _:
                pass

    def _write_metric(self, verb: str, job: str, timeline: int, r: e.Row, *, is_past: int) -> None:
        row = (job, timeline, r.step, r.name, r.epoch, _stored(r.value), float(r.at), is_past)
        self._db.execute(f"{verb} INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, _checksum(row)))

    def _erase(self, job: str) -> None:
        for table in ("events", "metrics", "uses"):
            self._db.execute(f"DELETE FROM {table} WHERE job = ?", (job,))
        self._db.execute("DELETE FROM specs WHERE digest NOT IN (SELECT digest FROM uses)")

    # ---- reading

    def replay(self, after: int = 0) -> list[Entry]:
        """Every event after this number, in order."""
        return self._entries("WHERE number > ? ORDER BY number", (after,))

    def events(self, job: str, after: int = 0) -> list[Entry]:
        """What has happened to a job after this number, in order."""
        return self._entries("WHERE job = ? AND number > ? ORDER BY number", (job, after))

    def _entries(self, where: str, values: tuple[object, ...]) -> list[Entry]:
        with self._lock, _errors(self.path):
            rows = self._db.execute(f"SELECT number, at, kind, fields FROM events {where}", values).fetchall()
        return [Entry(number, at, event_of(kind, text)) for number, at, kind, text in rows]

    def metrics(self, job: str, *, after_step: int = -1, most: int = 100_000) -> list[e.Row]:
        """The job's metrics after a step, by step and name; what rewinding has made past is not among them.

        A step's metrics come together: the answer may be a step's longer than ``most``.
        """
        question = (
            "SELECT step, epoch, name, value, at FROM metrics WHERE job = ? AND step > ? AND step <= IFNULL("
            "(SELECT step FROM metrics WHERE job = ? AND step > ? AND NOT is_past ORDER BY step LIMIT 1 OFFSET ?), 9e18"
            ") AND NOT is_past ORDER BY step, name"
        )
        with self._lock, _errors(self.path):
            rows = self._db.execute(question, (job, after_step, job, after_step, most - 1)).fetchall()
        return [e.Row(step, epoch, name, math.nan if v is None else v, at) for step, epoch, name, v, at in rows]

    def spec(self, digest: str) -> bytes:
        """The bytes of a spec. NotFound if no job uses it."""
        with self._lock, _errors(self.path):
            row = self._db.execute("SELECT bytes FROM specs WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            raise NotFound(f"the journal has no spec {digest[:16]}")
        return row[0]

    # ---- keeping it

    def backup(self, path: Path) -> None:
        """Write a copy that is whole, and was checked, and then takes the place of what was at ``path``."""
        draft = path.with_name(path.name + ".draft")
        draft.unlink(missing_ok=True)
        with _errors(path):
            copy = sqlite3.connect(draft, isolation_level=None)
            try:
                with self._lock:
                    self._db.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE").fetchall()
                found = [row[0] for row in copy.execute("PRAGMA integrity_check(3)")]
            finally:
                copy.close()
            if found != ["ok"]:
                raise self._corrupt("; ".join(map(str, found)))
            descriptor = os.open(draft, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            draft.rename(path)
            _sync_folder(path.parent)

    def keep_reserve(self) -> bool:
        """Set room aside, if there is some; whether there is."""
        if self._reserve.exists() and self._reserve.stat().st_size == RESERVE_BYTES:
            return True
        try:
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError:
            self._reserve.unlink(missing_ok=True)
            return False
        return True

    def _give_up_reserve(self) -> bool:
        if not self._reserve.exists():
            return False
        self._reserve.unlink()
        return True

    def close(self) -> None:
        """Let go of the file. What was appended is there already."""
        with self._lock:
            self._db.close()


def _checksum(row: Iterable[object]) -> int:
    return zlib.crc32(repr(tuple(row)).encode())


def _stored(value: float | None) -> float | None:
    """SQLite has no NaN."""
    return None if value is None or math.isnan(value) else float(value)


def _hint(path: Path, what: str) -> str:
    return (
        f"the journal {path.name} is damaged: {what}; stop the server, keep a copy, and put a backup in its place, or"
        f" recover what can be with `sqlite3 {path.name} .recover`"
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _errors(path: Path) -> Generator[None]:
    """Inside the ``with``, SQLite's errors and the disk's are ours."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        raise _translated(path, error) from error


def _translated(path: Path, error: Any) -> TelegradError:
    if isinstance(error, UnicodeDecodeError):
        return DataCorrupt(_hint(path, "a text in it is none"), file=path.name, found=str(error))
    code = getattr(error, "sqlite_errorcode", None)
    match code & 0xFF if code is not None else None:
        case sqlite3.SQLITE_FULL:
            return StorageFull(f"the journal {path.name} cannot grow: the disk is full; free some room and it goes on")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DataCorrupt(_hint(path, str(error)), file=path.name, found=str(error))
        case sqlite3.SQLITE_BUSY:
            message = f"the journal {path.name} is open in another process; one server at a time may use a data_dir"
            return ResourceError(message, reason="STORAGE_FAILED")
        case _:
            message = f"the journal {path.name}: the disk refused ({error}); see to the disk under data_dir"
            return ResourceError(message, reason="STORAGE_FAILED")
