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
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from telegrad.errors import DataCorrupt, NotFound

from telegrad_server.checkpoints import manifest as manifests
from telegrad_server.checkpoints.files import Files, RealFiles, reading, storing
from telegrad_server.checkpoints.manifest import Draft, Manifest
from telegrad_server.checkpoints.shards import SHARD_BYTES, Named, read_shard, write_shards


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """Which checkpoint of a job: its step, and the how manieth of that step."""

    step: int
    attempt: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.step:012d}.{self.attempt:04d}"


@dataclass(frozen=True, slots=True)
class Damage:
    """A checkpoint that is not as it was written: which, and what was expected and found in which file."""

    step: int
    attempt: int
    file: str
    expected: str
    found: str
    message: str


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest whole checkpoint, and the newer ones that are damaged."""

    manifest: Manifest
    tensors: Iterator[Named]
    skipped: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found: the steps with a whole checkpoint, and everything that is damaged."""

    whole: tuple[int, ...]
    damaged: tuple[Damage, ...]


class CheckpointStore:
    """The checkpoints of all jobs under a folder. A job has one writer at a time; anybody may read."""

    def __init__(self, folder: Path, *, files: Files | None = None, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._files = RealFiles() if files is None else files
        self._shard_bytes = shard_bytes

    def write(self, draft: Draft, tensors: Iterable[Named]) -> Manifest:
        """Write a checkpoint; it lasts when this returns. Whatever happens, those before it are as they were.

        ``tensors`` come in any order; in `write_order`, none of them waits in memory. GraphError if they are not those
        of the draft; StorageFull if the disk is; ResourceError (STORAGE_FAILED) for its other errors.
        """
        home = self._home(draft.job)
        beside = home / f"writing-{secrets.token_hex(8)}"
        with storing(f"checkpoint of step {draft.step}"):
            self._make_home(home)
            self._files.make_folder(beside)
            try:
                manifest = self._fill(beside, draft, tensors)
                self._commit(home, beside, draft.step)
            except BaseException:
                with suppress(OSError):
                    self._discard(beside)
                raise
            self._files.sync_folder(home)
        return manifest

    def steps(self, job: str) -> list[int]:
        """The steps of a job with a checkpoint, in order. Their bytes have not been looked at."""
        return sorted({place.step for place in self._places(job)})

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

    def verify(self, job: str) -> Report:
        """Read every byte of a job's checkpoints."""
        whole: set[int] = set()
        damaged: list[Damage] = []
        for place in self._places(job):
            try:
                self._check(job, place)
                whole.add(place.step)
            except DataCorrupt as error:
                damaged.append(_damage(place, error))
        return Report(tuple(sorted(whole)), tuple(damaged))

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

    def _commit(self, home: Path, beside: Path, step: int) -> None:
        """Give the folder its name: the next try of its step, also if another process has just made one."""
        while True:
            tries = [p.attempt for p in self._listed(home) if p.step == step]
            try:
                self._files.rename(beside, home / Place(step, max(tries, default=0) + 1).name)
                return
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise

    def _discard(self, folder: Path) -> None:
        for name in self._files.names(folder):
            self._files.remove(folder / name)
        self._files.remove_folder(folder)

    # ---- reading

    def _newest(self, job: str, places: list[Place]) -> Latest:
        skipped: list[Damage] = []
        first: DataCorrupt | None = None
        for place in sorted(places, reverse=True):
            try:
                manifest = self._check(job, place)
                return Latest(manifest, self._tensors(job, place, manifest), tuple(skipped))
            except DataCorrupt as error:
                first = first or error
                skipped.append(_damage(place, error))
        assert first is not None
        raise first

    def _check(self, job: str, place: Place) -> Manifest:
        """The manifest, once every byte of the checkpoint has been read and is right."""
        manifest = self._manifest(job, place)
        for _ in self._tensors(job, place, manifest):
            pass
        return manifest

    def _manifest(self, job: str, place: Place) -> Manifest:
        with reading(manifests.NAME):
            data = self._files.read(self._home(job) / place.name / manifests.NAME, manifests.LARGEST)
        manifest = manifests.decode(bytes(data), f"{place.name}/{manifests.NAME}")
        if (manifest.job, manifest.step) != (job, place.step):
            raise DataCorrupt(
                f"{place.name} holds step {manifest.step} of another place; it was moved there",
                file=manifests.NAME,
                expected=f"step {place.step} of this job",
                found=f"step {manifest.step}",
            )
        return manifest

    def _tensors(self, job: str, place: Place, manifest: Manifest) -> Iterator[Named]:
        """The tensors file by file, each file checked once more when it is read."""
        missing = set(manifest.tensors)
        for shard in manifest.shards:
            for name, type, data in read_shard(self._files, self._home(job) / place.name, shard, manifest):
                missing.discard(name)
                yield name, type, data
        if missing:
            raise DataCorrupt(
                f"{place.name} lacks {sorted(missing)}", file=manifests.NAME, expected=sorted(missing), found="nothing"
            )

    # ---- places

    def _home(self, job: str) -> Path:
        return self._folder / hashlib.sha256(job.encode()).hexdigest()[:40]

    def _places(self, job: str) -> list[Place]:
        with storing("checkpoints"):
            return self._listed(self._home(job))

    def _listed(self, home: Path) -> list[Place]:
        """The checkpoints in a job's folder, in order."""
        try:
            names = self._files.names(home)
        except FileNotFoundError:
            return []
        found = (re.fullmatch(r"(\d{12})\.(\d{4,})", name) for name in names)
        return sorted(Place(int(match[1]), int(match[2])) for match in found if match)


def _damage(place: Place, error: DataCorrupt) -> Damage:
    details = {name: str(error.details.get(name, "")) for name in ("file", "expected", "found")}
    return Damage(place.step, place.attempt, **details, message=error.message)
