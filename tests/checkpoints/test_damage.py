"""Every bit that flips, every byte that is missing and every file that is gone is found, and an older one is used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from telegrad.errors import DataCorrupt
from telegrad_server.checkpoints import CheckpointStore, Folders, contents, shards
from telegrad_server.checkpoints.depot import Read
from telegrad_server.checkpoints.manifest import Manifest, Shard, with_shards
from telegrad_server.checkpoints.places import Place
from telegrad_server.checkpoints.shards import Named

from tests.checkpoints.disk import Disk
from tests.checkpoints.drafts import arrays_of, draft, named, tensors

pytestmark = pytest.mark.slow  # thousands of states of a disk

FOLDER = Path("/checkpoints")


def two() -> Disk:
    """A disk with the checkpoints of two steps."""
    disk = Disk()
    store = CheckpointStore(Folders(FOLDER, files=disk), shard_bytes=32)
    for step in (1, 2):
        store.write(draft(tensors(step), step=step), named(tensors(step)))
    return disk


def files_of(disk: Disk, step: int) -> Iterator[tuple[str, int]]:
    """The files of a step's checkpoint, with their nodes."""
    (home,) = disk.names(FOLDER)
    folder = FOLDER / home / f"{step:012d}.0001"
    for name in disk.names(folder):
        yield name, disk._find(folder / name)


def unfound(change: Callable[[bytes], Iterator[bytes]]) -> list[str]:
    """The changes of the newer checkpoint's files that a reader does not find, or from which it does not recover."""
    wrong: list[str] = []
    disk = two()
    for name, node in files_of(disk, 2):
        whole = disk.nodes[node]
        assert isinstance(whole, bytes)
        for number, other in enumerate(change(whole)):
            disk.nodes[node] = other
            latest = CheckpointStore(Folders(FOLDER, files=disk)).latest("job-1")
            if (
                latest.manifest.step != 1
                or [d.step for d in latest.skipped] != [2]
                or arrays_of(latest.tensors) != arrays_of(named(tensors(1)))
            ):
                wrong.append(f"{name}, change {number}")
        disk.nodes[node] = whole
    return wrong


def flips(whole: bytes) -> Iterator[bytes]:
    """Each bit of each byte, whatever the byte means: length, header, padding, element, field, digest."""
    for place in range(len(whole)):
        for bit in range(8):
            other = bytearray(whole)
            other[place] ^= 1 << bit
            yield bytes(other)


def cuts(whole: bytes) -> Iterator[bytes]:
    """Cut off anywhere, and too long; one block or all of it zeros; and nothing."""
    for place in range(len(whole)):
        yield whole[:place]
        yield whole[:place] + bytes(len(whole) - place)
    yield from (whole + b"\0", whole + b"\n", whole + whole)


@pytest.mark.parametrize("change", [flips, cuts])
def test_every_change_of_every_file_is_found_and_the_one_before_is_used(
    change: Callable[[bytes], Iterator[bytes]],
) -> None:
    assert unfound(change) == []


def test_a_reader_that_checks_no_digest_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug that no crash shows."""

    def trusting(read: Read, shard: Shard, manifest: Manifest) -> list[Named]:
        found = hashlib.sha256(read(shard.file, shard.bytes)).hexdigest()
        return shards.read_shard(read, replace(shard, sha256=found), manifest)

    monkeypatch.setattr(contents, "read_shard", trusting)

    assert any(name.startswith("shard") for name in unfound(flips))


def test_a_file_that_is_gone_is_found() -> None:
    for name, _ in files_of(two(), 2):
        disk = two()
        (home,) = disk.names(FOLDER)
        disk.remove(FOLDER / home / f"{2:012d}.0001" / name)

        latest = CheckpointStore(Folders(FOLDER, files=disk)).latest("job-1")

        assert latest.manifest.step == 1
        assert [d.file for d in latest.skipped] == [name]


def test_what_is_wrong_is_said_by_file_expected_and_found() -> None:
    disk = two()
    _, (name, node), *_ = files_of(disk, 2)
    disk.nodes[node] = bytes(disk.nodes[node])[:-1]

    with pytest.raises(DataCorrupt, match=r"expected \d+ bytes, found \d+ bytes") as caught:
        CheckpointStore(Folders(FOLDER, files=disk)).read("job-1", 2)

    assert set(caught.value.details) == {"file", "expected", "found"}
    assert caught.value.details["file"] == name


def test_it_is_an_error_if_none_is_whole() -> None:
    disk = two()
    for step in (1, 2):
        for _, node in files_of(disk, step):
            disk.nodes[node] = b""
    store = CheckpointStore(Folders(FOLDER, files=disk))

    with pytest.raises(DataCorrupt):
        store.latest("job-1")
    assert [d.step for d in store.verify("job-1").damaged] == [1, 2]


def test_a_checkpoint_of_another_job_or_step_is_not_taken_for_ones_own() -> None:
    ((_, ((home, found),)),) = moved = two().tree()
    assert moved and re.fullmatch(r"[0-9a-f]{40}", home)
    (_, first), (name, _) = found
    disk = Disk.of((("checkpoints", ((home, ((name, first),)),)),))

    with pytest.raises(DataCorrupt, match="was moved there"):
        CheckpointStore(Folders(FOLDER, files=disk)).latest("job-1")


def test_a_file_that_changes_between_the_check_and_the_reading_is_found() -> None:
    disk = two()
    _, found = CheckpointStore(Folders(FOLDER, files=disk)).read("job-1", 2)
    for _, node in files_of(disk, 2):
        disk.nodes[node] = bytes(len(disk.nodes[node]))

    with pytest.raises(DataCorrupt):
        list(found)


@pytest.mark.parametrize(
    "file", ["../../etc/passwd", "/etc/passwd", "manifest.json", "shard-00001-of-00001.safetensors/x"]
)
def test_no_manifest_leads_out_of_its_folder(file: str) -> None:
    manifest = with_shards(draft(tensors(1)), ())

    with pytest.raises(DataCorrupt, match="which no checkpoint has"):
        shards.read_shard(lambda file, most: memoryview(b"x"), Shard(file, 1, ""), manifest)


def test_a_tensor_that_no_file_has_is_found() -> None:
    manifest = with_shards(draft(tensors(1)), ())

    with pytest.raises(DataCorrupt, match="lacks tensors"):
        list(contents.tensors(lambda file, most: memoryview(b""), Place(1, 1), manifest))
