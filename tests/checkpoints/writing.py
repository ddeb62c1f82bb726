"""A job that writes checkpoints and says which last, for the tests to kill: ``FOLDER COUNT FAILPOINTS``."""

from __future__ import annotations

import sys
from pathlib import Path

from telegrad.errors import NotFound
from telegrad_server.checkpoints import CheckpointStore, Folders
from telegrad_server.checkpoints.failing import FailingFiles
from telegrad_server.checkpoints.files import RealFiles
from telegrad_server.failpoints import Failpoints

from tests.checkpoints.drafts import draft, named, tensors


def main(folder: str, count: str, failpoints: str) -> None:
    """Go on from the latest checkpoint and write that many more."""
    store = CheckpointStore(
        Folders(Path(folder), files=FailingFiles(RealFiles(), Failpoints(failpoints))), shard_bytes=32
    )
    store.sweep("job-1")
    try:
        begin = store.latest("job-1").manifest.step
    except NotFound:
        begin = 0
    for step in range(begin + 1, begin + 1 + int(count)):
        store.write(draft(tensors(step), step=step), named(tensors(step)))
        print(step, flush=True)
        store.keep("job-1", last=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
