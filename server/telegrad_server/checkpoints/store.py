"""The checkpoints of jobs, wherever they lie: what is in them, which of them stay, which one a job goes on from.

Nothing is changed in place: a step that is written again, as after a resume, is the next try, and the one before stays
until `keep` takes it away. JOB's home is a digest of the job's id: no name from outside is ever a path.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from telegrad.errors import DataCorrupt, GraphError, NotFound

from telegrad_server.checkpoints import contents
from telegrad_server.checkpoints import manifest as manifests
from telegrad_server.checkpoints.contents import Damage, Latest, Report, damage
from telegrad_server.checkpoints.depot import Depot, Read
from telegrad_server.checkpoints.files import storing
from telegrad_server.checkpoints.manifest import Draft, Manifest
from telegrad_server.checkpoints.places import Place, spent
from telegrad_server.checkpoints.shards import SHARD_BYTES, Named, write_shards
from telegrad_server.tally import Written


def home_of(job: str) -> str:
    """The name of a job's home."""
    return hashlib.sha256(job.encode()).hexdigest()[:40]


class CheckpointStore:
    """The checkpoints of all jobs in a depot. A job has one writer at a time; anybody may read."""

    def __init__(self, depot: Depot, *, shard_bytes: int = SHARD_BYTES) -> None:
        self._depot = depot
        self._shard_bytes = shard_bytes
        self._whole: set[tuple[str, Place]] = set()
        self._lock = threading.Lock()
        self.written = Written()
        self._pins: Counter[tuple[str, int]] = Counter()
        self._sizes: dict[tuple[str, Place], int] = {}

    def write(self, draft: Draft, tensors: Iterable[Named]) -> Manifest:
        """Write a checkpoint; it lasts when this returns. Whatever happens, those before it are as they were.

        ``tensors`` come in any order; in `write_order`, none of them waits in memory. GraphError if they are not those
        of the draft; StorageFull if the disk is, StorageAway; ResourceError (STORAGE_FAILED) for its other errors.
        """
        began = time.monotonic()
        with storing(f"checkpoint of step {draft.step}"):
            entry = self._depot.begin(self.home_of(draft.job), draft.step)
            try:
                shards = write_shards(entry.create, draft.tensors, tensors, shard_bytes=self._shard_bytes)
                manifest = manifests.with_shards(draft, shards)
                place = entry.commit(manifests.encode(manifest))
            except BaseException:
                with suppress(OSError):
                    entry.discard()
                raise
        self._whole.add((draft.job, place))
        self._count(manifest, time.monotonic() - began)
        return manifest

    def adopt(self, manifest: Manifest, name: str, *, still: Callable[[], object]) -> None:
        """Commit a checkpoint whose files another machine has put here; ``still`` is called before and may refuse.

        NotFound unless all of them, and nothing else, can be read from here in their full length: then it counts.
        """
        with storing(f"checkpoint of step {manifest.step}"):
            try:
                entry = self._depot.adopt(self.home_of(manifest.job), name, manifest.step)
                found = entry.lengths()
            except (FileNotFoundError, NotADirectoryError):
                found, entry = {}, None
            if entry is None or found != {shard.file: shard.bytes for shard in manifest.shards}:
                raise NotFound(f"the files of the checkpoint of step {manifest.step} cannot be seen from here")
            still()
            place = entry.commit(manifests.encode(manifest))
        self._whole.add((manifest.job, place))
        self._count(manifest, None)

    def _count(self, manifest: Manifest, seconds: float | None) -> None:
        with self._lock:
            self.written.bytes += sum([shard.bytes for shard in manifest.shards])
            if seconds is not None:  # another machine wrote it
                self.written.durations.add(seconds)

    def steps(self, job: str) -> list[int]:
        """The steps of a job with a checkpoint, in order. Their bytes have not been looked at."""
        return sorted({place.step for place in self._places(job)})

    def sizes(self, job: str) -> dict[int, int]:
        """How many bytes the checkpoints of each step take, by their manifests; what has none that is whole takes 0."""
        found: dict[int, int] = {}
        for place in self._places(job):
            if (job, place) not in self._sizes:
                size = contents.size(self._read(job, place))
                self._sizes[job, place] = size
            found[place.step] = found.get(place.step, 0) + self._sizes[job, place]
        return found

    def read(self, job: str, step: int) -> tuple[Manifest, Iterator[Named]]:
        """The checkpoint of a step: its manifest, and its tensors in `write_order`, one file in memory at a time.

        NotFound if the step has none. DataCorrupt, before anything is returned, if it is not as it was written.
        """
        places = [place for place in self._places(job) if place.step == step]
        if not places:
            raise NotFound(f"there is no checkpoint of step {step}; there are those of {self.steps(job)}")
        found = self._newest(job, places)
        return found.manifest, found.tensors

    def latest(self, job: str) -> Latest:
        """The newest checkpoint that is as it was written, and what is wrong with those that are newer.

        NotFound if the job has no checkpoint, DataCorrupt if it has none that is whole.
        """
        places = self._places(job)
        if not places:
            raise NotFound("the job has no checkpoint; it begins at its first step")
        return self._newest(job, places)

    def restore(self, job: str, step: int) -> Latest:
        """The newest whole checkpoint up to a step, for a job that goes on from there.

        Those after it are removed, since the metrics of their steps were never written, and what crashes have left.
        """
        self._tidy(job, step)
        return self.latest(job)

    def named(self, job: str, step: int) -> Manifest:
        """The manifest of what `restore` tries first, for who reads its files himself. NotFound, DataCorrupt."""
        self._tidy(job, step)
        places = self._places(job)
        if not places:
            raise NotFound("the job has no checkpoint; it begins at its first step")
        place = max(places)
        return contents.manifest_of(self._read(job, place), place, job=job)

    def _tidy(self, job: str, step: int) -> None:
        self.sweep(job)
        self.rewind(job, step)

    def verify(self, job: str) -> Report:
        """Read every byte of a job's checkpoints."""
        whole: set[int] = set()
        damaged: list[Damage] = []
        for place in self._places(job):
            try:
                self._check(job, place)
                whole.add(place.step)
            except DataCorrupt as error:
                if place in self._places(job):
                    damaged.append(damage(place, error))
        return Report(tuple(sorted(whole)), tuple(damaged))

    def keep(self, job: str, *, last: int, best: Collection[int] = ()) -> list[int]:
        """Remove all checkpoints but the ``last`` newest whole ones and those of ``best``; returns the steps removed.

        Damaged ones do not count, and go when they are older than those that stay. If it is interrupted anywhere, the
        next call does the rest. Errors of the disk are those of `write`. What is pinned stays, too.
        """
        if last < 1:
            raise GraphError(f"checkpoints: last={last}; one at least stays")
        with self._lock, storing("checkpoints to be removed"):
            stay = {*best, *(step for pinned, step in self._pins if pinned == job)}
            places = spent(self._places(job), lambda place: self._is_whole(job, place), last=last, best=stay)
            self._put_away(job, places)
        with storing("checkpoints to be removed"):
            self._depot.clean(self.home_of(job))
        return sorted({place.step for place in places} - set(self.steps(job)))

    def pin(self, job: str, step: int) -> None:
        """Let `keep` leave a step's checkpoint alone from now on, if it is still there, until `unpin`: see `read`."""
        with self._lock:
            self._pins[job, step] += 1

    def unpin(self, job: str, step: int) -> None:
        """Undo a `pin`, if there was one."""
        with self._lock:
            self._pins[job, step] -= 1
            if self._pins[job, step] <= 0:
                del self._pins[job, step]

    @contextmanager
    def pinned(self, job: str, step: int) -> Generator[None]:
        """A step's checkpoint is pinned inside the ``with``."""
        self.pin(job, step)
        try:
            yield
        finally:
            self.unpin(job, step)

    def rewind(self, job: str, step: int) -> None:
        """Remove the checkpoints after a step, newest first, for a job that goes on from there in another way."""
        with storing("checkpoints to be removed"):
            self._put_away(job, [place for place in reversed(self._places(job)) if place.step > step])
            self._depot.clean(self.home_of(job))

    def sweep(self, job: str) -> None:
        """Remove what crashes have left of a job. Who writes a checkpoint of it meanwhile fails: he was replaced."""
        with storing("what a crash has left"):
            self._depot.sweep(self.home_of(job))

    def remove(self, job: str) -> None:
        """Remove all checkpoints of a job. If it is interrupted anywhere, calling it again does the rest."""
        with storing("checkpoints to be removed"):
            self._put_away(job, self._places(job))
        self.remove_home(self.home_of(job))

    def room(self) -> int:
        """The bytes for which there is room."""
        with storing("checkpoints"):
            return self._depot.room()

    def homes(self) -> list[str]:
        """The names of the homes of jobs that are there; what has another form of name is not ours."""
        with storing("checkpoints"):
            return [name for name in self._depot.homes() if re.fullmatch(r"[0-9a-f]{40}", name)]

    def home_of(self, job: str) -> str:
        """The name of a job's home."""
        return home_of(job)

    def remove_home(self, name: str) -> None:
        """Remove a home that no job has. If it is interrupted anywhere, calling it again does the rest."""
        with storing("checkpoints to be removed"):
            self._depot.remove_home(name)

    def _put_away(self, job: str, places: list[Place]) -> None:
        if not places:
            return
        for place in places:
            self._whole.discard((job, place))
            self._sizes.pop((job, place), None)
        self._depot.put_away(self.home_of(job), places)

    # ---- reading

    def _newest(self, job: str, places: list[Place]) -> Latest:
        """Of the places given, the newest whole one. One that goes while it is read counts as never there."""
        skipped: list[Damage] = []
        first: DataCorrupt | None = None
        for place in sorted(places, reverse=True):
            try:
                manifest = self._check(job, place)
            except DataCorrupt as error:
                if place in self._places(job):
                    first = first or error
                    skipped.append(damage(place, error))
                continue
            tensors = contents.tensors(self._read(job, place), place, manifest)
            return Latest(manifest, tensors, tuple(skipped))
        raise first or NotFound(f"the checkpoints of steps {[p.step for p in places]} were removed meanwhile")

    def _check(self, job: str, place: Place) -> Manifest:
        manifest = contents.check(self._read(job, place), place, job=job)
        self._whole.add((job, place))
        return manifest

    def _is_whole(self, job: str, place: Place) -> bool:
        """Whether this store has written the checkpoint, or read it as it was written."""
        if (job, place) not in self._whole:
            with suppress(DataCorrupt):
                self._check(job, place)
        return (job, place) in self._whole

    def _read(self, job: str, place: Place) -> Read:
        return partial(self._depot.read, self.home_of(job), place)

    def _places(self, job: str) -> list[Place]:
        with storing("checkpoints"):
            return self._depot.places(self.home_of(job))
