"""What a worker says of itself as it renews its lease, as a message and back."""

from __future__ import annotations

from collections.abc import Iterable

from telegrad.wire.v1 import workers_pb2 as pb

from telegrad_server.executors.memory import Memory
from telegrad_server.sights import ScopeSight, SessionSight, Shown


def load_of(
    *, sessions: int, held_bytes: int, busy_seconds: float, memory: Memory, sights: Iterable[SessionSight]
) -> pb.Load:
    """The message."""
    return pb.Load(
        sessions=sessions,
        held_bytes=held_bytes,
        busy_seconds=busy_seconds,
        memory_bytes=memory.total_bytes,
        used_memory_bytes=memory.used_bytes,
        held=map(_session_to_proto, sights),
    )


def shown(load: pb.Load) -> Shown:
    """What of the message is for people."""
    return Shown(load.memory_bytes, load.used_memory_bytes, tuple(map(_session_from_proto, load.held)))


def _session_to_proto(sight: SessionSight) -> pb.SessionLoad:
    return pb.SessionLoad(
        session_id=sight.id,
        tenant=sight.tenant,
        is_attached=sight.is_attached,
        lease_seconds=sight.lease_seconds,
        heard_seconds=sight.heard_seconds,
        tensors=sight.tensors,
        held_bytes=sight.bytes,
        queued_commands=sight.queued,
        scopes=[
            pb.ScopeLoad(scope=scope.scope, parent=scope.parent, tensors=scope.tensors, held_bytes=scope.bytes)
            for scope in sight.scopes
        ],
        hidden_scopes=sight.hidden_scopes,
    )


def _session_from_proto(load: pb.SessionLoad) -> SessionSight:
    return SessionSight(
        id=load.session_id,
        tenant=load.tenant,
        is_attached=load.is_attached,
        lease_seconds=load.lease_seconds if load.HasField("lease_seconds") else None,
        heard_seconds=load.heard_seconds,
        tensors=load.tensors,
        bytes=load.held_bytes,
        queued=load.queued_commands,
        scopes=tuple(
            [
                ScopeSight(
                    scope.scope, scope.parent, scope.tensors, scope.held_bytes if scope.HasField("held_bytes") else None
                )
                for scope in load.scopes
            ]
        ),
        hidden_scopes=load.hidden_scopes,
    )
