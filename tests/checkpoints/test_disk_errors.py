"""An error of the disk at each call, for every call: a typed error, nothing lost, and the next try succeeds."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from telegrad.errors import ResourceError, StorageFull, TelegradError, WorkerLost
from telegrad_server.checkpoints import CheckpointStore, Folders
from telegrad_server.checkpoints.files import Output, RealFiles
from telegrad_server.checkpoints.shards import Named

from tests.checkpoints.disk import Disk
from tests.checkpoints.drafts import arrays_of, draft, named, tensors

FOLDER = Path("/checkpoints")


@dataclass
class Failing(Disk):
    """A disk whose calls fail from the ``first`` of them on, ``count`` of them."""

    first: int = -1
    count: int = 1
    number: int = errno.EIO
    calls: int = field(default=0)

    def strike(self) -> None:
        self.calls += 1
        if self.first >= 0 and self.first < self.calls <= self.first + self.count:
            raise OSError(self.number, os.strerror(self.number))

    def make_folder(self, path: Path) -> None:
        self.strike()
        super().make_folder(path)

    def create(self, path: Path) -> Output:
        self.strike()
        return FailingOutput(self, super().create(path))

    def sync_folder(self, path: Path) -> None:
        self.strike()
        super().sync_folder(path)

    def rename(self, old: Path, new: Path) -> None:
        self.strike()
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self.strike()
        super().remove(path)

    def remove_folder(self, path: Path) -> None:
        self.strike()
        super().remove_folder(path)

    def names(self, path: Path) -> list[str]:
        self.strike()
        return super().names(path)

    def read(self, path: Path, most_bytes: int) -> memoryview:
        self.strike()
        return super().read(path, most_bytes)


@dataclass
class FailingOutput:
    disk: Failing
    output: Output

    def write(self, data: bytes | memoryview) -> None:
        self.disk.strike()
        self.output.write(data)

    def sync(self) -> None:
        self.disk.strike()
        self.output.sync()

    def close(self) -> None:
        self.output.close()
        self.disk.strike()


def write(store: CheckpointStore, step: int) -> None:
    store.write(draft(tensors(step), step=step), named(tensors(step)))


def fail_each_call(act: Callable[[CheckpointStore], object], number: int, count: int) -> list[TelegradError]:
    """Do it with the i-th call failing, for all i, after two steps were written; then do it again without."""
    errors: list[TelegradError] = []
    for first in range(1000):
        disk = Failing(number=number, count=count)
        store = CheckpointStore(Folders(FOLDER, files=disk), shard_bytes=32)
        write(store, 1)
        write(store, 2)
        before = disk.calls
        disk.first = before + first
        try:
            act(store)
        except TelegradError as error:
            errors.append(error)
        was_reached = disk.calls > disk.first
        disk.first = -1

        after = CheckpointStore(Folders(FOLDER, files=disk))
        assert after.verify("job-1").damaged == ()
        assert arrays_of(after.read("job-1", 2)[1]) == arrays_of(named(tensors(2)))
        act(store)
        store.sweep("job-1")
        (home,) = disk.names(FOLDER)
        assert [name for name in disk.names(FOLDER / home) if not name[0].isdigit()] == []
        if not was_reached:
            return errors
    raise AssertionError("there are more calls than that")


@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, ResourceError),
        (errno.EROFS, ResourceError),
    ],
)
def test_a_write_that_fails_anywhere_says_so_and_harms_nothing(
    number: int, kind: type[TelegradError], count: int
) -> None:
    errors = fail_each_call(lambda store: write(store, 3), number, count)

    assert len(errors) > 20
    assert {type(error) for error in errors} == {kind}
    assert {error.reason for error in errors} == {"STORAGE_FULL" if kind is StorageFull else "STORAGE_FAILED"}


@pytest.mark.parametrize("count", [1, 1000])
def test_removing_that_fails_anywhere_is_done_by_the_next(count: int) -> None:
    errors = fail_each_call(lambda store: store.keep("job-1", last=1), errno.EIO, count)

    assert errors
    assert {error.reason for error in errors} == {"STORAGE_FAILED"}


@pytest.mark.parametrize("act", ["steps", "latest", "verify"])
def test_a_disk_that_cannot_be_read_says_so_or_an_older_one_is_used(act: str) -> None:
    def read(store: CheckpointStore) -> None:
        if act == "latest":
            latest = store.latest("job-1")
            step = latest.manifest.step
            assert step == 2 or [d.step for d in latest.skipped] == [2]
        else:
            getattr(store, act)("job-1")

    errors = fail_each_call(read, errno.EIO, 1)

    assert {error.reason for error in errors} <= {"STORAGE_FAILED"}


def test_a_checkpoint_that_cannot_be_read_for_the_moment_is_not_removed() -> None:
    disk = Failing()
    store = CheckpointStore(Folders(FOLDER, files=disk))
    write(store, 1)
    write(store, 2)
    again = CheckpointStore(Folders(FOLDER, files=disk))
    disk.first, disk.count = disk.calls + 1, 1

    assert again.keep("job-1", last=1) == []
    assert again.steps("job-1") == [1, 2]


def test_an_error_of_who_brings_the_tensors_stays_what_it_is(tmp_path: Path) -> None:
    def broken() -> Iterator[Named]:
        yield named(tensors(1))[0]
        raise WorkerLost("the worker is gone")

    with pytest.raises(WorkerLost):
        CheckpointStore(Folders(tmp_path)).write(draft(tensors(1)), broken())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_link_in_the_store_is_not_followed(tmp_path: Path) -> None:
    store = CheckpointStore(Folders(tmp_path / "store"))
    write(store, 1)
    write(store, 2)
    (shard,) = tmp_path.rglob(f"{2:012d}.0001/*.safetensors")
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")

    latest = store.latest("job-1")

    assert latest.manifest.step == 1
    assert [d.file for d in latest.skipped] == [shard.name]


def test_the_real_disk_gives_back_what_was_written_in_pieces(tmp_path: Path) -> None:
    output = RealFiles().create(tmp_path / "file")
    data = os.urandom((9 << 20) + 1)
    output.write(data)
    output.close()

    assert bytes(RealFiles().read(tmp_path / "file", 1 << 30)) == data
    assert bytes(RealFiles().read(tmp_path / "file", 5)) == data[:5]
