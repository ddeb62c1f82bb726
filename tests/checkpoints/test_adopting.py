"""A checkpoint whose files another machine has put in place: it counts once it can be seen from here."""

from __future__ import annotations

import pytest
from telegrad.errors import JobError, NotFound
from telegrad_server.checkpoints import CheckpointStore, Manifest
from telegrad_server.checkpoints import manifest as manifests
from telegrad_server.checkpoints.depot import Depot, Entry
from telegrad_server.checkpoints.manifest import with_shards
from telegrad_server.checkpoints.shards import write_shards

from tests.checkpoints.drafts import arrays_of, draft, named, tensors


def put(depot: Depot, step: int) -> tuple[Entry, Manifest]:
    """What a worker does: it begins, and writes the files."""
    entry = depot.begin(CheckpointStore(depot).home_of("job-1"), step)
    its = draft(tensors(step), step=step)
    return entry, with_shards(its, write_shards(entry.create, its.tensors, named(tensors(step)), shard_bytes=32))


def test_what_a_worker_has_put_is_a_checkpoint_once_it_is_adopted(depot: Depot) -> None:
    store = CheckpointStore(depot)
    entry, manifest = put(depot, 1)
    assert store.steps("job-1") == []

    store.adopt(manifest, entry.name, still=lambda: None)

    latest = CheckpointStore(depot).latest("job-1")
    assert latest.manifest == manifest
    assert arrays_of(latest.tensors) == arrays_of(named(tensors(1)))


@pytest.mark.parametrize("what", ["short", "missing", "more", "nothing", "elsewhere", "a path", "twice"])
def test_what_cannot_be_seen_as_the_worker_says_is_none(depot: Depot, what: str) -> None:
    store = CheckpointStore(depot)
    entry, manifest = put(depot, 1)
    name = {"elsewhere": "writing-0123456789abcdef", "a path": "../../etc"}.get(what, entry.name)
    shards = manifest.shards
    if what == "short":
        shards = (manifests.Shard(shards[0].file, shards[0].bytes + 1, shards[0].sha256), *shards[1:])
    elif what == "missing":
        shards = (*shards, manifests.Shard("shard-00009-of-00009.safetensors", 5, "0" * 64))
    elif what == "more":
        shards = shards[1:]
    elif what == "nothing":
        entry.discard()
    elif what == "twice":
        store.adopt(manifest, entry.name, still=lambda: None)
    said = with_shards(draft(tensors(1)), shards)

    with pytest.raises(NotFound, match="cannot be seen from here"):
        store.adopt(said, name, still=lambda: None)

    assert store.steps("job-1") == ([1] if what == "twice" else [])


def test_a_worker_that_was_replaced_meanwhile_commits_nothing(depot: Depot) -> None:
    store = CheckpointStore(depot)
    entry, manifest = put(depot, 1)

    def over() -> None:
        raise JobError("assignment 1 is over", reason="JOB_FENCED")

    with pytest.raises(JobError):
        store.adopt(manifest, entry.name, still=over)
    assert store.steps("job-1") == []

    entry, manifest = put(depot, 2)
    store.sweep("job-1")  # who has the job now
    with pytest.raises(NotFound):
        store.adopt(manifest, entry.name, still=lambda: None)
    assert store.steps("job-1") == []
