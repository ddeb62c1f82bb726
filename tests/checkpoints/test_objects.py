"""Checkpoints in an object store: cut off after each put and each removal, failing at each call, and planted bugs."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from telegrad.errors import DataCorrupt, NotFound, ResourceError, StorageAway, TelegradError
from telegrad_server.checkpoints import CheckpointStore, Folders, Objects
from telegrad_server.checkpoints import manifest as manifests
from telegrad_server.checkpoints.depot import Entry
from telegrad_server.checkpoints.failing import FailingBucket
from telegrad_server.checkpoints.files import Output
from telegrad_server.checkpoints.objects import GONE, Coming
from telegrad_server.checkpoints.places import Place
from telegrad_server.failpoints import CHECKPOINT_NAMES

from tests.checkpoints.bucket import Memory
from tests.checkpoints.disk import Disk
from tests.checkpoints.drafts import arrays_of, draft, named, tensors

Make = Callable[[Memory], CheckpointStore]


def plain(bucket: Memory) -> CheckpointStore:
    return CheckpointStore(Objects(bucket), shard_bytes=32)


def write(store: CheckpointStore, step: int) -> None:
    store.write(draft(tensors(step), step=step), named(tensors(step)))


def broken_promises(make: Make) -> list[list[str]]:
    """For each state that a crash may leave of the story that `test_crashes` tells a disk, what is wrong with it."""
    bucket = Memory()
    store = make(bucket)
    promises = [(0, frozenset[int]())]
    for step in (1, 2, 2, 0, 3, 4, 0):
        if step:
            write(store, step)
            promises.append((len(bucket.log), promises[-1][1] | {step}))
        else:
            promises.append((len(bucket.log), frozenset({2} | {max(promises[-1][1])})))
            store.keep("job-1", last=1, best=[2])
    return [
        [*judged(bucket.after(end), [steps for place, steps in promises if place <= end][-1])]
        for end in range(len(bucket.log) + 1)
    ]


def judged(left: Memory, promised: frozenset[int]) -> Iterator[str]:
    store = plain(left)
    for step in promised:
        try:
            if arrays_of(store.read("job-1", step)[1]) != arrays_of(named(tensors(step))):
                yield f"step {step} has other bits"
        except (NotFound, DataCorrupt) as error:
            yield f"step {step} was acknowledged: {error}"
    yield from [f"half of step {damage.step} is there" for damage in store.verify("job-1").damaged]
    store.sweep("job-1")
    write(store, 9)
    store.keep("job-1", last=1)
    if {key.split("/")[1][:12] for key in left.objects} != {Place(9, 1).name[:12]}:
        yield f"left over: {sorted(left.objects)}"


def test_no_crash_breaks_a_promise() -> None:
    verdicts = broken_promises(plain)

    assert [wrong for wrong in verdicts if wrong] == []
    assert len(verdicts) > 30


# ---- planted bugs: each is the protocol with one thing left out or in another order


class ManifestFirst(Coming):
    """The manifest is there before the shards are."""

    def create(self, file: str) -> Output:
        key = f"{self._folder}/{manifests.NAME}"
        if not self._files:
            self._bucket.create(key).sync()
        return super().create(file)

    def commit(self, manifest: bytes) -> Place:
        self._bucket.remove(f"{self._folder}/{manifests.NAME}")
        return super().commit(manifest)


class Early(Objects):
    def begin(self, home: str, step: int) -> Entry:
        entry = super().begin(home, step)
        assert isinstance(entry, Coming)
        return ManifestFirst(self, self._bucket, home, entry._place)


class ShardsGoFirst(Objects):
    """What goes loses its shards while its manifest is there."""

    def put_away(self, home: str, places: Sequence[Place]) -> None:
        for place in places:
            for file in sorted(self.files(f"{home}/{place.name}"), reverse=True):
                self._bucket.remove(f"{home}/{place.name}/{file}")


class GoneGoesFirst(Objects):
    """What is on its way out becomes a checkpoint again on the way."""

    def discard(self, folder: str, files: Sequence[str]) -> None:
        for file in sorted(files, key=lambda file: (file != GONE, file == manifests.NAME)):
            self._bucket.remove(f"{folder}/{file}")


class OrphansStay(Objects):
    """Shards that a crash has left are nobody's."""

    def sweep(self, home: str) -> None:
        self.clean(home)


@pytest.mark.parametrize("depot", [Early, ShardsGoFirst, GoneGoesFirst])
def test_a_bug_in_the_order_is_found(depot: type[Objects]) -> None:
    verdicts = broken_promises(lambda bucket: CheckpointStore(depot(bucket), shard_bytes=32))

    assert [wrong for wrong in verdicts if wrong]


def test_shards_that_a_crash_left_would_be_found_if_nobody_collected_them() -> None:
    left = Memory()
    left.objects[f"{plain(left).home_of('job-1')}/{Place(1, 1, '0' * 16).name}/shard-00001-of-00001"] = b"half"
    before = dict(left.objects)

    CheckpointStore(OrphansStay(left)).sweep("job-1")
    assert left.objects == before
    plain(left).sweep("job-1")
    assert left.objects == {}


# ---- errors of the store at each call


@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize(("number", "kind"), [(errno.EAGAIN, StorageAway), (errno.EIO, ResourceError)])
@pytest.mark.parametrize("act", ["write", "keep"])
def test_a_call_that_fails_anywhere_says_so_and_harms_nothing(
    act: str, number: int, kind: type[TelegradError], count: int
) -> None:
    def do(store: CheckpointStore) -> None:
        write(store, 3) if act == "write" else store.keep("job-1", last=1)

    errors: list[TelegradError] = []
    for first in range(1000):
        bucket = Memory(number=number, count=count)
        store = plain(bucket)
        write(store, 1)
        write(store, 2)
        bucket.first = bucket.calls + first
        try:
            do(store)
        except TelegradError as error:
            errors.append(error)
        was_reached = bucket.calls > bucket.first
        bucket.first = -1
        after = plain(bucket)
        assert after.verify("job-1").damaged == ()
        assert arrays_of(after.read("job-1", 2)[1]) == arrays_of(named(tensors(2)))
        do(after)
        after.sweep("job-1")
        steps = after.steps("job-1")
        assert steps == ([1, 2, 3] if act == "write" else [2])
        assert {int(key.split("/")[1][:12]) for key in bucket.objects} == {*steps}
        if not was_reached:
            break
    assert len(errors) > 5
    assert {type(error) for error in errors} == {kind}


@pytest.mark.parametrize("act", ["latest", "keep"])
def test_a_store_that_does_not_answer_makes_no_checkpoint_damaged(act: str) -> None:
    bucket = Memory(number=errno.EAGAIN, count=1000)
    write(plain(bucket), 1)
    write(plain(bucket), 2)
    bucket.first = bucket.calls + 1

    with pytest.raises(StorageAway, match="goes on by itself"):
        plain(bucket).latest("job-1") if act == "latest" else plain(bucket).keep("job-1", last=1)

    bucket.first = -1
    assert plain(bucket).verify("job-1").whole == (1, 2)


# ---- two writers


def test_who_was_replaced_while_he_wrote_commits_nothing() -> None:
    bucket = Memory()
    slow = Objects(bucket).begin(plain(bucket).home_of("job-1"), 1)
    output = slow.create("shard-00001-of-00001.safetensors")
    output.write(b"half a tensor")
    output.sync()

    plain(bucket).sweep("job-1")
    with pytest.raises(FileNotFoundError, match="replaced"):
        slow.commit(b"{}")
    slow.discard()

    assert bucket.objects == {}


def test_two_writers_of_a_step_take_nothing_from_each_other() -> None:
    bucket = Memory()
    home = plain(bucket).home_of("job-1")
    first, second = Objects(bucket).begin(home, 1), Objects(bucket).begin(home, 1)

    places = {first.commit(b"one"), second.commit(b"two")}

    assert len(places) == 2
    assert {(place.step, place.attempt) for place in places} == {(1, 1)}
    assert Objects(bucket).places(home) == sorted(places)


# ---- failpoints


def test_every_failpoint_is_reached() -> None:
    reached: list[str] = []
    store = CheckpointStore(Objects(FailingBucket(Memory(), reached.append)))
    write(store, 1)
    write(store, 2)
    store.keep("job-1", last=1)
    store.latest("job-1")

    assert tuple(dict.fromkeys(reached)) == CHECKPOINT_NAMES


# ---- damage


def test_every_bit_that_flips_is_found_and_the_one_before_is_used() -> None:
    bucket = Memory()
    write(plain(bucket), 1)
    write(plain(bucket), 2)
    newer = [key for key in bucket.objects if f"{2:012d}." in key]

    for key in newer:
        whole = bucket.objects[key]
        for place in range(len(whole)):
            bucket.objects[key] = whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
            latest = plain(bucket).latest("job-1")
            assert (latest.manifest.step, [d.step for d in latest.skipped]) == (1, [2]), (key, place)
        bucket.objects[key] = whole[:-1]
        assert plain(bucket).latest("job-1").manifest.step == 1
        bucket.objects[key] = whole
    assert plain(bucket).latest("job-1").manifest.step == 2


def test_what_nobody_knows_is_no_checkpoint_and_goes_with_the_home() -> None:
    bucket = Memory()
    store = plain(bucket)
    write(store, 1)
    home = store.home_of("job-1")
    bucket.objects |= {f"{home}/notes/deep/x": b"", f"{home}/{GONE}": b"", f"{home}/{1:012d}.0001/y": b""}

    assert store.steps("job-1") == [1]
    assert store.homes() == [home]
    store.remove_home(home)
    assert bucket.objects == {}


def test_what_was_copied_from_a_disk_is_read_and_goes_like_any_other() -> None:
    disk, bucket = Disk(), Memory()
    on_disk = CheckpointStore(Folders(Path("/checkpoints"), files=disk), shard_bytes=32)
    write(on_disk, 1)
    write(on_disk, 2)
    (home,) = on_disk.homes()
    for folder in disk.names(Path("/checkpoints") / home):
        for file in disk.names(Path("/checkpoints") / home / folder):
            whole = bytes(disk.read(Path("/checkpoints") / home / folder / file, 1 << 20))
            bucket.objects[f"{home}/{folder}/{file}"] = whole
    store = plain(bucket)

    assert arrays_of(store.latest("job-1").tensors) == arrays_of(named(tensors(2)))
    write(store, 3)
    assert store.keep("job-1", last=1) == [1, 2]
    assert {key.split("/")[1][:12] for key in bucket.objects} == {f"{3:012d}"}
