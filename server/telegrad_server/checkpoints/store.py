"""Checkpoints on a disk: each a folder that is written beside, synced, renamed, and only then spoken of.

::

    FOLDER/JOB/STEP.TRY/manifest.json, shard-00001-of-00001.safetensors     a checkpoint
    FOLDER/JOB/writing-RANDOM/                                              one on its way, or left by a crash
    FOLDER/JOB/gone-RANDOM/                                                 one on its way out

JOB is a digest of the job's id: no name from outside is ever a path. Nothing is changed in place: a step that is
written again, as after a resume, is the next TRY, and the one before stays until `keep` takes it away.

Write: the shards, then the manifest with their digests, each synced; the folder, synced; the rename, which is the
commit; the folder above, synced; then `write` returns. So a crash at any point leaves the checkpoints whose `write` had
returned, and of the one on its way all or nothing (`tests/checkpoints/test_crashes.py` enumerates what a disk may be
left with).
"""

from __future__ import annotations

import errno
import hashlib
import secrets
import threading
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from telegrad.errors import DataCorrupt, GraphError, NotFound

from telegrad_server.checkpoints import contents
from telegrad_server.checkpoints import manifest as manifests
from telegrad_server.checkpoints.contents import Damage, Latest, Report, damage
from telegrad_server.checkpoints.files import Files, RealFiles, storing
from telegrad_server.checkpoints.manifest import Draft, Manifest
from telegrad_server.checkpoints.places import GONE, WRITING, Place, places_in, spent
from telegrad_server.checkpoints.shards import SHARD_BYTES, Named, write_shards


class CheckpointStore:
    """The checkpoints of all jobs under a folder. A job has one writer at a time; anybody may read."""

    def __init__(self, folder: Path, *, files: Files | None = None, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._files = RealFiles() if files is None else files
        self._shard_bytes = shard_bytes
        self._whole: set[tuple[str, Place]] = set()
        self._lock = threading.Lock()
        self._pins: Counter[tuple[str, int]] = Counter()
        self._sizes: dict[tuple[str, Place], int] = {}

    def write(self, draft: Draft, tensors: Iterable[Named]) -> Manifest:
        """Write a checkpoint; it lasts when this returns. Whatever happens, those before it are as they were.

        ``tensors`` come in any order; in `write_order`, none of them waits in memory. GraphError if they are not those
        of the draft; StorageFull if the disk is; ResourceError (STORAGE_FAILED) for its other errors.
        """
        home = self._home(draft.job)
        beside = home / f"{WRITING}{secrets.token_hex(8)}"
        with storing(f"checkpoint of step {draft.step}"):
            self._make_home(home)
            self._files.make_folder(beside)
            try:
                manifest = self._fill(beside, draft, tensors)
                place = self._commit(home, beside, draft.step)
            except BaseException:
                with suppress(OSError):
                    self._discard(beside)
                raise
            self._files.sync_folder(home)
        self._whole.add((draft.job, place))
        return manifest

    def steps(self, job: str) -> list[int]:
        """The steps of a job with a checkpoint, in order. Their bytes have not been looked at."""
        return sorted({place.step for place in self._places(job)})

    def sizes(self, job: str) -> dict[int, int]:
        """How many bytes the checkpoints of each step take, by their manifests; what has none that is whole takes 0."""
        found: dict[int, int] = {}
        for place in self._places(job):
            if (job, place) not in self._sizes:
                size = contents.size(self._files, self._home(job) / place.name)
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
        self.sweep(job)
        self.rewind(job, step)
        return self.latest(job)

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
            self._clean(self._home(job), GONE)
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
            self._clean(self._home(job), GONE)

    def sweep(self, job: str) -> None:
        """Remove what crashes have left of a job. Who writes a checkpoint of it meanwhile fails: he was replaced."""
        with storing("what a crash has left"):
            self._clean(self._home(job), WRITING, GONE)

    def remove(self, job: str) -> None:
        """Remove all checkpoints of a job. If it is interrupted anywhere, calling it again does the rest."""
        with storing("checkpoints to be removed"):
            self._put_away(job, self._places(job))
        self.remove_home(self.home_of(job))

    def homes(self) -> list[str]:
        """The names of the folders of jobs that are there."""
        with storing("checkpoints"), suppress(FileNotFoundError):
            return self._files.names(self._folder)
        return []

    def home_of(self, job: str) -> str:
        """The name of a job's folder."""
        return self._home(job).name

    def remove_home(self, name: str) -> None:
        """Remove a folder that no job has. If it is interrupted anywhere, calling it again does the rest."""
        home = self._folder / name
        with storing("checkpoints to be removed"), suppress(FileNotFoundError):
            for checkpoint in self._files.names(home):
                self._discard(home / checkpoint)
            self._files.remove_folder(home)
            self._files.sync_folder(self._folder)

    # ---- writing

    def _make_home(self, home: Path) -> None:
        """The job's folder, lasting: a crash may have left it without its name synced, so that is done each time."""
        for folder in (self._folder, home):
            with suppress(FileExistsError):
                self._files.make_folder(folder)
            self._files.sync_folder(folder.parent)

    def _fill(self, folder: Path, draft: Draft, tensors: Iterable[Named]) -> Manifest:
        shards = write_shards(self._files, folder, draft.tensors, tensors, shard_bytes=self._shard_bytes)
        manifest = manifests.with_shards(draft, shards)
        output = self._files.create(folder / manifests.NAME)
        try:
            output.write(manifests.encode(manifest))
            output.sync()
        finally:
            output.close()
        self._files.sync_folder(folder)
        return manifest

    def _commit(self, home: Path, beside: Path, step: int) -> Place:
        """Give the folder its name: the next try of its step, also if another process has just made one."""
        while True:
            tries = [place.attempt for place in self._listed(home) if place.step == step]
            place = Place(step, max(tries, default=0) + 1)
            try:
                self._files.rename(beside, home / place.name)
                return place
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise

    # ---- removing

    def _put_away(self, job: str, places: list[Place]) -> None:
        """Remove checkpoints: first their names, for good, so that no reader ever meets half of one."""
        if not places:
            return
        home = self._home(job)
        self._files.sync_folder(home)  # what stays must last before anything goes
        for place in places:
            with suppress(FileNotFoundError):  # another process puts it away too
                self._files.rename(home / place.name, home / f"{GONE}{secrets.token_hex(8)}")
            self._whole.discard((job, place))
            self._sizes.pop((job, place), None)
        self._files.sync_folder(home)

    def _clean(self, folder: Path, *prefixes: str) -> None:
        """Remove from a folder the folders whose names begin so."""
        with suppress(FileNotFoundError):
            for name in self._files.names(folder):
                if name.startswith(prefixes):
                    self._discard(folder / name)

    def _discard(self, folder: Path) -> None:
        """Remove a folder of files, which another process may be removing too."""
        with suppress(FileNotFoundError):
            for name in self._files.names(folder):
                with suppress(FileNotFoundError):
                    self._files.remove(folder / name)
            self._files.remove_folder(folder)

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
            tensors = contents.tensors(self._files, self._home(job) / place.name, manifest)
            return Latest(manifest, tensors, tuple(skipped))
        raise first or NotFound(f"the checkpoints of steps {[p.step for p in places]} were removed meanwhile")

    def _check(self, job: str, place: Place) -> Manifest:
        manifest = contents.check(self._files, self._home(job) / place.name, job=job, step=place.step)
        self._whole.add((job, place))
        return manifest

    def _is_whole(self, job: str, place: Place) -> bool:
        """Whether this store has written the checkpoint, or read it as it was written."""
        if (job, place) not in self._whole:
            with suppress(DataCorrupt):
                self._check(job, place)
        return (job, place) in self._whole

    # ---- places

    def _home(self, job: str) -> Path:
        return self._folder / hashlib.sha256(job.encode()).hexdigest()[:40]

    def _places(self, job: str) -> list[Place]:
        with storing("checkpoints"):
            return self._listed(self._home(job))

    def _listed(self, home: Path) -> list[Place]:
        """The checkpoints in a job's folder, in order."""
        try:
            return places_in(self._files.names(home))
        except FileNotFoundError:
            return []
