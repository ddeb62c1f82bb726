"""Every state that a crash may leave on a disk, at every point of a job's checkpoints, and planted bugs found so.

A story of writes and removals runs on a `Disk` in memory; for each call in it, all that a crash after it may leave is
opened by a fresh store. What had been acknowledged must be there; all that is there must be whole; and the job must go
on from it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from telegrad.errors import DataCorrupt, NotFound
from telegrad_server.checkpoints import CheckpointStore, Folders
from telegrad_server.checkpoints.depot import Entry
from telegrad_server.checkpoints.files import Output
from telegrad_server.checkpoints.folders import Beside
from telegrad_server.checkpoints.places import GONE, WRITING, Place

from tests.checkpoints.disk import Disk, Tree
from tests.checkpoints.drafts import arrays_of, draft, named, tensors

pytestmark = pytest.mark.slow  # thousands of states of a disk

FOLDER = Path("/data/checkpoints")


@dataclass
class Story:
    """What is done to the store, and at which place of the disk's log what had been promised."""

    disk: Disk
    store: CheckpointStore
    promises: list[tuple[int, frozenset[int]]] = field(default_factory=lambda: [(0, frozenset[int]())])

    def write(self, step: int) -> None:
        self.store.write(draft(tensors(step), step=step), named(tensors(step)))
        self._promise(self.promises[-1][1] | {step})

    def keep(self, *, last: int, best: Collection[int] = ()) -> None:
        there = sorted(self.promises[-1][1])
        self._promise(frozenset(there[-last:]) | set(best))
        self.store.keep("job-1", last=last, best=best)

    def _promise(self, steps: frozenset[int]) -> None:
        self.promises.append((len(self.disk.log), steps))


def started(make: Callable[[Disk], CheckpointStore], disk: Disk) -> Story:
    disk.make_folder(FOLDER.parent)
    disk.sync_folder(Path("/"))
    return Story(disk, make(disk))


def tell(make: Callable[[Disk], CheckpointStore], disk: Disk | None = None) -> Story:
    """Four steps, the second of them written twice, the older ones removed twice."""
    story = started(make, Disk() if disk is None else disk)
    story.write(1)
    story.write(2)
    story.write(2)
    story.keep(last=1)
    story.write(3)
    story.write(4)
    story.keep(last=1, best=[2])
    return story


def broken_promises(
    story: Story, judge: Callable[[Tree, frozenset[int]], Iterator[str]] | None = None
) -> Iterator[list[str]]:
    """For each state that a crash may leave, what is wrong with it."""
    judge = judge or judge_all
    seen: set[tuple[Tree, frozenset[int]]] = set()
    for end in range(2, len(story.disk.log) + 1):  # the folder above is there
        promised = [steps for place, steps in story.promises if place <= end][-1]
        for tree in story.disk.crashes(end):
            if (tree, promised) not in seen:
                seen.add((tree, promised))
                yield [f"after {end} calls: {what}" for what in judge(tree, promised)]


def judge_newest(tree: Tree, promised: frozenset[int]) -> Iterator[str]:
    """What is wrong for a job that needs only the newest checkpoint, or a newer one still."""
    with suppress(NotFound, DataCorrupt):
        if CheckpointStore(Folders(FOLDER, files=Disk.of(tree))).latest("job-1").manifest.step >= max(
            promised, default=0
        ):
            return
    if promised:
        yield f"step {max(promised)} was acknowledged, and there is neither it nor a newer one"


def judge_all(tree: Tree, promised: frozenset[int]) -> Iterator[str]:
    """What is wrong with a disk that a crash has left."""
    disk = Disk.of(tree)
    store = CheckpointStore(Folders(FOLDER, files=disk))
    for step in promised:
        try:
            _, found = store.read("job-1", step)
            if arrays_of(found) != arrays_of(named(tensors(step))):
                yield f"step {step} has other bits"
        except (NotFound, DataCorrupt) as error:
            yield f"step {step} was acknowledged: {error}"
    for damage in store.verify("job-1").damaged:
        yield f"half of step {damage.step} is there: {damage.message}"
    with suppress(NotFound, DataCorrupt):
        latest = store.latest("job-1")
        if arrays_of(latest.tensors) != arrays_of(named(tensors(latest.manifest.step))):
            yield f"the latest, {latest.manifest.step}, has other bits"
    yield from goes_on(disk, store)


def goes_on(disk: Disk, store: CheckpointStore) -> Iterator[str]:
    """What is wrong once the job has gone on from there."""
    store.sweep("job-1")
    store.write(draft(tensors(9), step=9), named(tensors(9)))
    store.keep("job-1", last=1)
    (home,) = disk.names(FOLDER)
    if disk.names(FOLDER / home) != [Place(9, 1).name]:
        yield f"left over: {disk.names(FOLDER / home)}"


def plain(disk: Disk) -> CheckpointStore:
    return CheckpointStore(Folders(FOLDER, files=disk), shard_bytes=32)


def test_no_crash_breaks_a_promise() -> None:
    verdicts = list(broken_promises(tell(plain)))

    print(f"{len(verdicts)} states")
    assert [wrong for wrong in verdicts if wrong] == []
    assert len(verdicts) > 700


# ---- planted bugs: each is the protocol with one thing left out


class NoFileSync(Disk):
    """Files are not synced."""

    def create(self, path: Path) -> Output:
        return Unsynced(super().create(path))


@dataclass
class Unsynced:
    output: Output

    def write(self, data: bytes | memoryview) -> None:
        self.output.write(data)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        self.output.close()


class NoShardSync(Disk):
    """Shards are not synced; the manifest is."""

    def create(self, path: Path) -> Output:
        output = super().create(path)
        return output if path.suffix == ".json" else Unsynced(output)


class NoManifestSync(Disk):
    """The manifest is not synced; shards are."""

    def create(self, path: Path) -> Output:
        output = super().create(path)
        return Unsynced(output) if path.suffix == ".json" else output


class NoSyncOfTheNewFolder(Disk):
    """The names of the files in a checkpoint are not synced."""

    def sync_folder(self, path: Path) -> None:
        if not path.name.startswith(WRITING):
            super().sync_folder(path)


class NoSyncOfTheJobsFolder(Disk):
    """The names of the checkpoints, renames among them, are not synced."""

    def sync_folder(self, path: Path) -> None:
        if path.parent != FOLDER:
            super().sync_folder(path)


class NoSyncOfTheRoot(Disk):
    """The name of the job's own folder is not synced."""

    def sync_folder(self, path: Path) -> None:
        if path != FOLDER:
            super().sync_folder(path)


class AcknowledgedFirst(Disk):
    """The rename comes after the acknowledgement."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[tuple[Path, Path]] = []

    def rename(self, old: Path, new: Path) -> None:
        self.late.append((old, new))

    def names(self, path: Path) -> list[str]:
        while self.late:
            super().rename(*self.late.pop())
        return super().names(path)


class InPlace(Folders):
    """Files are written where they will stay, and one of the same step is overwritten."""

    def begin(self, home: str, step: int) -> Entry:
        place = self._folder / home / Place(step, 1).name
        self._make_home(place.parent)
        self.discard(place)
        self._files.make_folder(place)
        return AtItsPlace(self, self._files, place, step)


class AtItsPlace(Beside):
    def _renamed(self) -> Place:
        return Place(self._step, 1)


class RemovedBeforeTheCommit(Folders):
    """What is older goes before the new one has its name."""

    def begin(self, home: str, step: int) -> Entry:
        super().begin(home, step).discard()
        beside = self._folder / home / f"{WRITING}0"
        self._files.make_folder(beside)
        return Hasty(self, self._files, beside, step)


class Hasty(Beside):
    def _renamed(self) -> Place:
        home = self._folder.parent.name
        self._depot.put_away(home, self._depot.places(home))
        return super()._renamed()


class RemovedBeforeTheSync(Folders):
    """What is older goes when the new one has its name, and nobody has synced it."""

    def begin(self, home: str, step: int) -> Entry:
        super().begin(home, step).discard()
        beside = self._folder / home / f"{WRITING}0"
        self._files.make_folder(beside)
        return Unsure(self, self._files, beside, step)


class Unsure(Beside):
    def _renamed(self) -> Place:
        home = self._folder.parent
        older = self._depot.places(home.name)
        place = super()._renamed()
        for old in older:
            self._depot.discard(home / old.name)
        return place


class RemovedAtItsPlace(Folders):
    """What goes loses its files before its name."""

    def put_away(self, home: str, places: Sequence[Place]) -> None:
        for place in places:
            self.discard(self._folder / home / place.name)


class RemovedWithoutASync(Folders):
    """What goes loses its name and its files without a sync between."""

    def put_away(self, home: str, places: Sequence[Place]) -> None:
        folder = self._folder / home
        for place in places:
            self._files.rename(folder / place.name, folder / f"{GONE}{secrets.token_hex(8)}")


@pytest.mark.parametrize(
    "disk",
    [NoFileSync, NoShardSync, NoManifestSync, NoSyncOfTheNewFolder, NoSyncOfTheJobsFolder, NoSyncOfTheRoot,
     AcknowledgedFirst],
)  # fmt: skip
def test_a_bug_in_what_is_synced_is_found(disk: type[Disk]) -> None:
    found = next((wrong for wrong in broken_promises(tell(plain, disk())) if wrong), None)

    print(f"{disk.__name__}: {found}")
    assert found


@pytest.mark.parametrize("depot", [InPlace, RemovedAtItsPlace, RemovedWithoutASync])
def test_a_bug_in_the_order_is_found(depot: type[Folders]) -> None:
    story = tell(lambda disk: CheckpointStore(depot(FOLDER, files=disk), shard_bytes=32))
    found = next((wrong for wrong in broken_promises(story) if wrong), None)

    print(f"{depot.__name__}: {found}")
    assert found


@pytest.mark.parametrize("depot", [RemovedBeforeTheCommit, RemovedBeforeTheSync])
def test_removing_too_early_is_found_also_by_who_needs_only_the_newest(depot: type[Folders]) -> None:
    story = started(lambda disk: CheckpointStore(depot(FOLDER, files=disk), shard_bytes=32), Disk())
    story.write(1)
    story.write(2)
    found = next((wrong for wrong in broken_promises(story, judge_newest) if wrong), None)

    print(f"{depot.__name__}: {found}")
    assert found
