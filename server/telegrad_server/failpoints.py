"""Named places at which a test lets the process die, so that every gap between two effects is crossed by a crash.

A part that has such places is given a `Reached`, which does nothing unless a test says otherwise:
``journal.before_commit=kill:3,job.assign=kill`` kills the process by SIGKILL at a place, or the third time it is there.
``checkpoint.shard=full:2`` lets the disk have no room there the first two times.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from collections.abc import Callable

from telegrad.errors import AccessError, TelegradError

NAMES = ("job.accept", "journal.before_commit", "journal.after_commit", "job.applied", "job.assign")
"""Those of a job's journal, in the order an event passes them."""

CHECKPOINT_NAMES = (
    "checkpoint.begin",  # before anything is there
    "checkpoint.shard",  # half of a piece of a shard is written
    "checkpoint.shard_sync",  # a shard is written and not synced
    "checkpoint.manifest",  # half of the manifest is written
    "checkpoint.manifest_sync",
    "checkpoint.folder_sync",  # the files are synced, their names are not
    "checkpoint.rename",  # before the commit
    "checkpoint.latest",  # after the commit, which is not synced
    "checkpoint.gc",  # a checkpoint has lost its name
    "checkpoint.gc_remove",  # before one of its files goes
    "checkpoint.restore",  # before a shard is read
)
"""Those of a checkpoint, in the order of its life."""

LOOP_NAMES = (
    "job.step",  # before a step is commanded
    "job.covered",  # a checkpoint lasts, and the journal does not know it
)
"""Those of a job's loop, in the order a step and its checkpoint pass them."""

ALL_NAMES = (*NAMES, *CHECKPOINT_NAMES, *LOOP_NAMES)
"""Those that a server by itself passes."""

AWAY_NAMES = (
    "away.restore",  # a tensor of the checkpoint to begin from has come
    "away.tell",  # before the gateway is told what happened
    "away.store",  # before a tensor of a checkpoint is sent
)
"""Those of a worker whose gateway keeps the jobs, besides its loop's."""

Reached = Callable[[str], None]
"""Called with its name where a place is reached."""


def nothing(name: str) -> None:
    """Does nothing: what is given where nobody tests."""


class Failpoints:
    """The places at which this process dies, from the text of the setting. TelegradError if it cannot be read."""

    def __init__(self, text: str) -> None:
        self._kills: dict[str, int] = {}
        self._full: dict[str, int] = {}
        self._reached: Counter[str] = Counter()
        for item in filter(None, text.split(",")):
            name, _, action = item.partition("=")
            word, _, count = action.partition(":")
            if name not in (*ALL_NAMES, *AWAY_NAMES) or word not in ("kill", "full") or not (count or "1").isdigit():
                raise TelegradError(
                    f"failpoint {item!r} is not NAME=kill, NAME=kill:N or NAME=full:N, with one of"
                    f" {', '.join((*ALL_NAMES, *AWAY_NAMES))}"
                )
            (self._kills if word == "kill" else self._full)[name] = int(count or 1)

    def __call__(self, name: str) -> None:
        self._reached[name] += 1
        if self._kills.get(name) == self._reached[name]:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._reached[name] <= self._full.get(name, 0):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def chosen(text: str, *, testing: str) -> Reached:
    """What a server's settings ask for. AccessError if they ask for failpoints where nobody tests."""
    if not text:
        return nothing
    if testing != "on":
        raise AccessError("--failpoints end the server's process: they are for tests, which say --testing on as well")
    return Failpoints(text)
