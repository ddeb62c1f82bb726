"""The groups that a worker is a member of, each for a session: at home of its own, or of another worker's.

A group ends with its session, and with its first failure: what broke is built again, never mended.
"""

from __future__ import annotations

import threading

from telegrad.errors import NotFound
from telegrad.wire import messages as m

from telegrad_server.cluster.collectives import Listener, Member
from telegrad_server.executors import Executor
from telegrad_server.executors.communicator import Communicator

JOINING_SECONDS = 20.0
"""So long members wait for each other when a group is built: some may have to finish a turn first."""


_ENCRYPTED = "tls:"
"""How the address of a worker begins that sums over TLS: those that do and those that do not cannot meet."""


def collectives_address(host: str, listener: Listener) -> str:
    """Where other members find this worker's listener, as the gateway hears it."""
    return f"{_ENCRYPTED if listener.tls is not None else ''}{host}:{listener.port}"


def can_meet(mine: str, theirs: str) -> bool:
    """Whether two workers can be members of a group, by these addresses."""
    return bool(theirs) and mine.startswith(_ENCRYPTED) == theirs.startswith(_ENCRYPTED)


class Groups:
    """A worker's ends of groups, by session and name. Any thread."""

    def __init__(self, listener: Listener, executor: Executor) -> None:
        self._listener = listener
        self._executor = executor
        self._lock = threading.Lock()
        self._ends: dict[tuple[str, str], Communicator] = {}

    def join(self, session_id: str, group: m.JoinGroup) -> Communicator:
        """This worker's end of a group for its executor's arrays, once all members are connected.

        WorkerLost if one does not come in time.
        """
        members: list[Member] = []
        for member in group.members:
            host, _, port = member.address.removeprefix(_ENCRYPTED).rpartition(":")
            members.append(Member(member.worker, host.strip("[]"), int(port), member.machine))
        host = self._listener.join(
            members,
            rank=group.rank,
            group=group.group,
            generation=group.generation,
            key=group.key,
            timeout_seconds=group.timeout_seconds,
            joining_seconds=JOINING_SECONDS,
        )
        devices = [member.device for member in group.members]
        try:
            end = self._executor.exchange(host, devices=devices, timeout_seconds=group.timeout_seconds)
        except BaseException:
            host.close()
            raise
        with self._lock:
            former = self._ends.pop((session_id, group.group), None)
            self._ends[session_id, group.group] = end
        if former is not None:
            former.close()
        return end

    def give_up(self, group: str) -> None:
        """One of the members of a group that is being joined will not come: `join` ends at once."""
        self._listener.give_up(group)

    def find(self, session_id: str, group: str) -> Communicator:
        """A session's end of a group. NotFound if it did not join it."""
        end = self._ends.get((session_id, group))
        if end is None:
            raise NotFound(f"this worker is no member of group {group}", reason="NOT_FOUND")
        return end

    def leave(self, session_id: str) -> None:
        """The session is over. May wait for threads of its groups."""
        with self._lock:
            ends = [self._ends.pop(key) for key in [key for key in self._ends if key[0] == session_id]]
        for end in ends:
            end.close()

    def close(self) -> None:
        """Leave all groups."""
        with self._lock:
            ends = list(self._ends.values())
            self._ends.clear()
        for end in ends:
            end.close()
        self._listener.close()
