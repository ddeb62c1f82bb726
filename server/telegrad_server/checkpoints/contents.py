"""What is in a checkpoint, and whether it is what was written: nothing is handed out before that is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from telegrad.errors import DataCorrupt

from telegrad_server.checkpoints import manifest as manifests
from telegrad_server.checkpoints.depot import Read
from telegrad_server.checkpoints.files import reading
from telegrad_server.checkpoints.manifest import Manifest
from telegrad_server.checkpoints.places import Place
from telegrad_server.checkpoints.shards import Named, read_shard


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


def check(read: Read, place: Place, *, job: str) -> Manifest:
    """The manifest, once every byte of the checkpoint has been read. DataCorrupt for the first that is wrong."""
    manifest = manifest_of(read, place, job=job)
    for _ in tensors(read, place, manifest):
        pass
    return manifest


def manifest_of(read: Read, place: Place, *, job: str) -> Manifest:
    """The manifest. DataCorrupt if it is not as it was written; of its files nothing has been looked at."""
    with reading(manifests.NAME):
        data = read(manifests.NAME, manifests.LARGEST)
    manifest = manifests.decode(bytes(data), f"{place.name}/{manifests.NAME}")
    if (manifest.job, manifest.step) != (job, place.step):
        expected, found = f"step {place.step} of this job", f"step {manifest.step} of {manifest.job!r}"
        message = f"{place.name} was moved there: expected {expected}, found {found}"
        raise DataCorrupt(message, file=manifests.NAME, expected=expected, found=found)
    return manifest


def size(read: Read) -> int:
    """The bytes of a checkpoint, its manifest's too; 0 if it has none that can be read."""
    try:
        with reading(manifests.NAME):
            data = read(manifests.NAME, manifests.LARGEST)
        manifest = manifests.decode(bytes(data), manifests.NAME)
    except DataCorrupt:
        return 0
    return len(data) + sum(shard.bytes for shard in manifest.shards)


def tensors(read: Read, place: Place, manifest: Manifest) -> Iterator[Named]:
    """The tensors file by file, in `write_order`, each file checked when it is read."""
    missing = set(manifest.tensors)
    for shard in manifest.shards:
        for name, type, data in read_shard(read, shard, manifest):
            missing.discard(name)
            yield name, type, data
    if missing:
        names = ", ".join(sorted(missing))
        message = f"{place.name} lacks tensors of its manifest: {names}"
        raise DataCorrupt(message, file=manifests.NAME, expected=names, found="nothing")


def damage(place: Place, error: DataCorrupt) -> Damage:
    """What a reader ran into, as data."""
    details = {name: str(error.details.get(name, "")) for name in ("file", "expected", "found")}
    return Damage(place.step, place.attempt, **details, message=error.message)
