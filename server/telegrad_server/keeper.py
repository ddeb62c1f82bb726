"""Keeps what jobs take within what was agreed: what ended long ago goes, what is nobody's goes, room is waited for.

Each round begins from what the journal says, so it may be cut off anywhere: the next one does the rest. Nothing goes
before the journal has forgotten it; what is there and unknown to the journal is a stray, and goes after a grace, in
which an operator who has put back an older journal can still notice.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from telegrad.errors import QuotaExceeded
from telegrad.wire.job_codec import decode_spec
from telegrad.wire.job_spec import JobSpec

from telegrad_server.checkpoints import CheckpointStore
from telegrad_server.checkpoints.files import storing
from telegrad_server.config import Config
from telegrad_server.datasets import Catalog
from telegrad_server.jobs import events as e
from telegrad_server.jobs.job import Job
from telegrad_server.journal import RESERVE_BYTES
from telegrad_server.ledger import Ledger

SWEEP_SECONDS = 60.0
SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
"""A job without room is tried again after so long, twice as long each time that it comes no further."""

BESIDES = 3
"""Checkpoints of a job besides the newest ones: the first, the best, and the one on its way."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator has chosen. ``ended_seconds`` 0: what has ended stays for ever."""

    max_tenant_bytes: int = 1 << 40
    ended_seconds: float = 0.0
    stray_seconds: float = 24 * 3600.0
    backup: Path | None = None
    backup_seconds: float = 3600.0

    @classmethod
    def of(cls, config: Config) -> Rules:
        """Those of the settings."""
        return cls(
            max_tenant_bytes=config.max_tenant_checkpoint_bytes,
            ended_seconds=config.ended_job_seconds,
            stray_seconds=config.stray_seconds,
            backup=Path(config.journal_backup) if config.journal_backup is not None else None,
            backup_seconds=config.journal_backup_seconds,
        )


@dataclass(frozen=True, slots=True)
class _Arriving:
    """A job that the journal does not know yet: whose, for which request, and the bytes that it may come to take."""

    tenant: str
    request_id: str
    bytes: int


@dataclass(slots=True)
class _Wait:
    """For room: since which step, how long between two looks, and when the next one is."""

    step: int
    seconds: float
    until: float


class Keeper:
    """The keeper of a ledger's jobs and their checkpoints in a folder. One thread calls `round` again and again.

    ``clock`` gives the wall clock's seconds, by which jobs end; all else goes by ``monotonic``.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: CheckpointStore,
        catalog: Catalog,
        folder: Path,
        *,
        rules: Rules,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._store, self._catalog, self._folder = ledger, store, catalog, folder
        self._rules, self._clock, self._monotonic = rules, clock, monotonic
        self._lock = threading.Lock()
        self._arriving: dict[str, _Arriving] = {}
        self._strays: dict[str, float] = {}
        self._waits: dict[str, _Wait] = {}
        self._most: dict[str, int] = {}
        self._ended: dict[str, tuple[float, int]] = {}
        self._swept_at = -float("inf")
        self._backed_up_at = monotonic()

    def round(self) -> None:
        """Do what is due. Errors of the disk are the store's and the journal's; then the next round tries again."""
        now = self._monotonic()
        self._give_room_back(now)
        if now - self._swept_at >= SWEEP_SECONDS:
            self._swept_at = now
            self._expire()
            self._sweep(now)
        if self._rules.backup is not None and now - self._backed_up_at >= self._rules.backup_seconds:
            self._backed_up_at = now
            self._ledger.journal.backup(self._rules.backup)

    # ---- room

    @contextmanager
    def arriving(self, job: str, tenant: str, spec: JobSpec, *, request_id: str) -> Generator[None]:
        """Inside the ``with`` a job has files that the journal does not know yet, that are no strays and count.

        QuotaExceeded (QUOTA_CHECKPOINT_BYTES) unless it may have all its checkpoints.
        """
        wanted = _most_bytes(spec)
        with self._lock:
            self._check_room(tenant, wanted, request_id)
            self._arriving[job] = _Arriving(tenant, request_id, wanted)
        try:
            yield
        finally:
            with self._lock:
                del self._arriving[job]

    def _check_room(self, tenant: str, wanted: int, request_id: str) -> None:
        others = {
            job: new.bytes
            for job, new in self._arriving.items()
            if new.tenant == tenant and new.request_id != request_id  # of one request, one job comes about
        }
        held = sum({**others, **{job.id: self._held(job) for job in self._ledger.all(tenant)}}.values())
        quota = self._rules.max_tenant_bytes
        if held + wanted > quota:
            raise QuotaExceeded(
                f"this job's checkpoints may take {wanted} bytes, and those of the tenant's other jobs {held}; that"
                f" is over its quota of {quota}; keep fewer checkpoints, or remove jobs that have ended",
                reason="QUOTA_CHECKPOINT_BYTES",
                wanted=wanted,
                held=held,
                quota=quota,
            )

    def _held(self, job: Job) -> int:
        """What a job takes: of one that has ended what is there, of others as much as they may come to take."""
        if job.has_ended:
            since, held = self._ended.get(job.id, (0.0, 0))
            if since != job.changed_at:  # nobody writes for it any more: a store far away is asked once
                held = sum(self._store.sizes(job.id).values())
                self._ended[job.id] = job.changed_at, held
            return held
        if job.spec not in self._most:
            self._most[job.spec] = _most_bytes(decode_spec(self._ledger.journal.spec(job.spec)))
        return self._most[job.spec]

    def _give_room_back(self, now: float) -> None:
        """Let jobs that wait for room go on, once there is as much as a checkpoint of theirs takes."""
        waiting = self._ledger.without_room()
        for gone in self._waits.keys() - waiting:
            if not self._is_placed(gone):
                del self._waits[gone]
        for id in waiting:
            sizes = self._store.sizes(id)
            wait = self._waits.get(id)
            if wait is None or wait.step < max(sizes, default=0):
                wait = self._waits[id] = _Wait(max(sizes, default=0), SHORTEST_WAIT_SECONDS, now)
            if now < wait.until:
                continue
            wait.until, wait.seconds = now + wait.seconds, min(2 * wait.seconds, LONGEST_WAIT_SECONDS)
            with storing("the room for checkpoints"):
                disk = os.statvfs(self._folder)
            has_room = disk.f_bavail * disk.f_frsize >= RESERVE_BYTES
            has_room = has_room and self._store.room() >= max(sizes.values(), default=0) + RESERVE_BYTES
            if has_room and self._ledger.journal.keep_reserve():
                self._ledger.tell(e.StorageBack(id))

    def _is_placed(self, id: str) -> bool:
        return any(job.id == id for job in self._ledger.placed())

    # ---- what goes

    def _expire(self) -> None:
        if not self._rules.ended_seconds:
            return
        for job in self._ledger.every():
            if job.has_ended and self._clock() - job.changed_at > self._rules.ended_seconds:
                self._ledger.tell(e.Removed(job.id))

    def _sweep(self, now: float) -> None:
        """Remove what no job has, if it was so for the grace."""
        homes, holders = self._store.homes(), self._catalog.holders()  # before the jobs: later ones' files do not count
        with self._lock:
            jobs = {*self._arriving}
        jobs |= {job.id for job in self._ledger.every()}
        self._ended = {job: held for job, held in self._ended.items() if job in jobs}
        strays = {*homes} - {self._store.home_of(job) for job in jobs}
        strays |= {by for by in holders if by.startswith("job-") and by.removeprefix("job-") not in jobs}
        self._strays = {name: self._strays.get(name, now) for name in strays}
        for name, since in self._strays.items():
            if now - since >= self._rules.stray_seconds:
                if name in homes:
                    self._store.remove_home(name)
                else:
                    self._catalog.let_all_go(by=name)
        self._catalog.collect(now=self._clock())


def _most_bytes(spec: JobSpec) -> int:
    one = sum(slot.type.nbytes for slot in (*spec.state, *spec.constants))
    return one * (spec.checkpoints.keep_last + BESIDES)
