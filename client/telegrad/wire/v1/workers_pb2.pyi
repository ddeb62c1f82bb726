import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JoinClusterRequest(_message.Message):
    __slots__ = ("worker", "incarnation", "address", "direct_address", "collectives_address", "machine", "backend", "fingerprint", "version", "max_sessions", "max_bytes", "device")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DIRECT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    COLLECTIVES_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    address: str
    direct_address: str
    collectives_address: str
    machine: str
    backend: str
    fingerprint: str
    version: str
    max_sessions: int
    max_bytes: int
    device: str
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., address: _Optional[str] = ..., direct_address: _Optional[str] = ..., collectives_address: _Optional[str] = ..., machine: _Optional[str] = ..., backend: _Optional[str] = ..., fingerprint: _Optional[str] = ..., version: _Optional[str] = ..., max_sessions: _Optional[int] = ..., max_bytes: _Optional[int] = ..., device: _Optional[str] = ...) -> None: ...

class JoinClusterResponse(_message.Message):
    __slots__ = ("generation", "lease")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    generation: int
    lease: _duration_pb2.Duration
    def __init__(self, generation: _Optional[int] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("sessions", "held_bytes", "busy_seconds", "memory_bytes", "used_memory_bytes", "held")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUSY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    sessions: int
    held_bytes: int
    busy_seconds: float
    memory_bytes: int
    used_memory_bytes: int
    held: _containers.RepeatedCompositeFieldContainer[SessionLoad]
    def __init__(self, sessions: _Optional[int] = ..., held_bytes: _Optional[int] = ..., busy_seconds: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., used_memory_bytes: _Optional[int] = ..., held: _Optional[_Iterable[_Union[SessionLoad, _Mapping]]] = ...) -> None: ...

class SessionLoad(_message.Message):
    __slots__ = ("session_id", "tenant", "is_attached", "lease_seconds", "heard_seconds", "tensors", "held_bytes", "queued_commands", "scopes", "hidden_scopes")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IS_ATTACHED_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HEARD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUEUED_COMMANDS_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SCOPES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    tenant: str
    is_attached: bool
    lease_seconds: float
    heard_seconds: float
    tensors: int
    held_bytes: int
    queued_commands: int
    scopes: _containers.RepeatedCompositeFieldContainer[ScopeLoad]
    hidden_scopes: int
    def __init__(self, session_id: _Optional[str] = ..., tenant: _Optional[str] = ..., is_attached: bool = ..., lease_seconds: _Optional[float] = ..., heard_seconds: _Optional[float] = ..., tensors: _Optional[int] = ..., held_bytes: _Optional[int] = ..., queued_commands: _Optional[int] = ..., scopes: _Optional[_Iterable[_Union[ScopeLoad, _Mapping]]] = ..., hidden_scopes: _Optional[int] = ...) -> None: ...

class ScopeLoad(_message.Message):
    __slots__ = ("scope", "parent", "tensors", "held_bytes")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    scope: int
    parent: int
    tensors: int
    held_bytes: int
    def __init__(self, scope: _Optional[int] = ..., parent: _Optional[int] = ..., tensors: _Optional[int] = ..., held_bytes: _Optional[int] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("worker", "incarnation", "load", "is_leaving")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    IS_LEAVING_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    load: Load
    is_leaving: bool
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., is_leaving: bool = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("lease", "is_draining")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    lease: _duration_pb2.Duration
    is_draining: bool
    def __init__(self, lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., is_draining: bool = ...) -> None: ...

class LeaveClusterRequest(_message.Message):
    __slots__ = ("worker", "incarnation")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class LeaveClusterResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FindPeersRequest(_message.Message):
    __slots__ = ("worker", "incarnation", "count", "strategy", "without", "wanted")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    count: int
    strategy: str
    without: _containers.RepeatedScalarFieldContainer[str]
    wanted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., count: _Optional[int] = ..., strategy: _Optional[str] = ..., without: _Optional[_Iterable[str]] = ..., wanted: _Optional[_Iterable[str]] = ...) -> None: ...

class FindPeersResponse(_message.Message):
    __slots__ = ("peers",)
    PEERS_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    def __init__(self, peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("worker", "incarnation", "address", "collectives_address", "machine", "fingerprint", "device")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    COLLECTIVES_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    address: str
    collectives_address: str
    machine: str
    fingerprint: str
    device: str
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., address: _Optional[str] = ..., collectives_address: _Optional[str] = ..., machine: _Optional[str] = ..., fingerprint: _Optional[str] = ..., device: _Optional[str] = ...) -> None: ...
