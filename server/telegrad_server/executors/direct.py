"""Whether a group's arrays go from device to device, or by way of host memory: its members agree.

Each says what it has when it joins the cluster, and all members of a group are told of all, so all come to the same
opinion of whether they may try. What goes wrong then is seen by some and not by others: the library does not load, a
firewall, no memory. So after each step they ask each other, over the host's group, which is there already; one that
cannot is enough, and all go by way of host memory. The bits are the same either way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from telegrad.errors import WorkerLost

from telegrad_server.executors.communicator import Communicator
from telegrad_server.executors.staged import Staged, Staging

KEY_BYTES = 128
"""What members need to meet."""

_TAG = 0
"""Of the messages here; they come before all others of the group."""


class Direct(Communicator, Protocol):
    """A group over devices, beside the host's."""

    def give_up(self) -> None:
        """End it, and leave the host's group as it is."""
        ...


class Door(Protocol):
    """What opens a group over devices at this member."""

    def key(self, rank: int, /) -> bytes:
        """What all need to meet; that of rank 0 counts. Raises whatever is wrong with the library here."""
        ...

    def open(self, host: Communicator, key: bytes, /) -> Direct:
        """This member's end, once all have come. Uses ``host`` alone, and closes it.

        WorkerLost as soon as the host's group breaks. What else it raises means that it will not work here.
        """
        ...


def device_of(version: int, gpu: str) -> str:
    """What a worker says of itself: the version of what moves its arrays, and which GPU it has, unlike any other."""
    return f"{version} {gpu}"


def may_meet(devices: Sequence[str]) -> bool:
    """Whether these workers may try: each has a GPU to itself, and all have the same version."""
    versions = {device.partition(" ")[0] for device in devices}
    return all(devices) and len(versions) == 1 and len({*devices}) == len(devices) > 1


def agreed(host: Communicator, devices: Sequence[str], door: Door, staging: Staging) -> Communicator:
    """This member's end of a group for arrays on devices: all members have a direct one, or all one by way of the host.

    ``devices``: what each member says of itself, in the order of ranks. WorkerLost if the host's group breaks.
    """
    if not may_meet(devices):
        return Staged(host, staging)
    key, opened, why = bytes(KEY_BYTES), None, ""
    try:
        key = door.key(host.rank)
    except Exception as error:  # a library that is installed badly fails in many ways
        why = _described(error)
    if _all(host, not why):
        shared = np.frombuffer(key, np.uint8).copy()
        host.broadcast(shared, root=0, tag=_TAG)
        try:
            opened = door.open(host, shared.tobytes())
        except WorkerLost:
            raise
        except Exception as error:
            why = _described(error)
        try:
            is_open = _all(host, opened is not None)
        except WorkerLost:
            if opened is not None:
                opened.give_up()
            raise
        if opened is not None and is_open:
            logging.info("a group of %d exchanges from GPU to GPU", host.size)
            return opened
        if opened is not None:
            opened.give_up()
    logging.warning("a group of %d exchanges by way of host memory: %s", host.size, why or "another member cannot")
    return Staged(host, staging)


def _all(host: Communicator, is_so: bool) -> bool:
    """Whether it is so at every member."""
    answers = np.zeros(host.size, np.uint8)
    host.all_gather(np.array([is_so], np.uint8), answers, tag=_TAG)
    return bool(answers.all())


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
