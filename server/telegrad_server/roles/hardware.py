"""What is where, for the web page: in one server, and behind a gateway."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad_server.cluster.members import Members
from telegrad_server.cluster.placement import Queue
from telegrad_server.executors import Executor
from telegrad_server.sights import SessionSight
from telegrad_server.web.sources import Device
from telegrad_server.worker import Worker


class OneWorker:
    """The hardware of a server that has one worker, in the same process."""

    def __init__(self, worker: Worker, executor: Executor) -> None:
        self._worker, self._executor = worker, executor

    def devices(self, tenant: str) -> Sequence[Device]:
        """The one device."""
        worker, hello = self._worker, self._worker.hello()
        held, memory = worker.statistics(), self._executor.memory()
        return [
            Device(
                worker="here",
                state="draining" if worker.is_stopping else "live",
                backend=hello.backend,
                machine="",
                memory_bytes=memory.total_bytes,
                used_bytes=memory.used_bytes,
                tensor_bytes=held["bytes"],
                own_bytes=worker.held_bytes(tenant),
                sessions=held["sessions"],
                busy_seconds=worker.busy_seconds,
                fingerprint=hello.fingerprint,
            )
        ]

    def sessions(self, tenant: str) -> Sequence[tuple[str, SessionSight]]:
        """The tenant's sessions there."""
        return [("here", sight) for sight in self._worker.census(tenant)]

    def waiting(self) -> int:
        """None wait: who finds no room is refused."""
        return 0


class ManyWorkers:
    """The hardware of a gateway: what its workers report of themselves."""

    def __init__(self, members: Members, queue: Queue) -> None:
        self._members, self._queue = members, queue

    def devices(self, tenant: str) -> Sequence[Device]:
        """The members' devices."""
        return [
            Device(
                worker=member.facts.name,
                state=member.state.value,
                backend=member.facts.backend,
                machine=member.facts.machine,
                memory_bytes=member.shown.memory_bytes,
                used_bytes=member.shown.used_memory_bytes,
                tensor_bytes=member.held_bytes,
                own_bytes=sum(sight.bytes for sight in member.shown.sights if sight.tenant == tenant),
                sessions=member.sessions,
                busy_seconds=member.busy_seconds,
                fingerprint=member.facts.fingerprint,
            )
            for member in self._members.all()
        ]

    def sessions(self, tenant: str) -> Sequence[tuple[str, SessionSight]]:
        """The tenant's sessions, as their workers said last."""
        return [
            (member.facts.name, sight)
            for member in self._members.all()
            for sight in member.shown.sights
            if sight.tenant == tenant
        ]

    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._queue)
