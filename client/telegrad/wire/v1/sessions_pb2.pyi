import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from telegrad.wire.v1 import tensors_pb2 as _tensors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HelloRequest(_message.Message):
    __slots__ = ("client_version", "protocols")
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    client_version: str
    protocols: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, client_version: _Optional[str] = ..., protocols: _Optional[_Iterable[str]] = ...) -> None: ...

class HelloResponse(_message.Message):
    __slots__ = ("server_version", "protocols", "incarnation", "ops", "limits", "warnings", "backend", "fingerprint", "held_bytes", "workers", "waiting_sessions", "time", "features")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    OPS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    WAITING_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    protocols: _containers.RepeatedScalarFieldContainer[str]
    incarnation: str
    ops: _containers.RepeatedScalarFieldContainer[str]
    limits: Limits
    warnings: _containers.RepeatedScalarFieldContainer[str]
    backend: str
    fingerprint: str
    held_bytes: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerInfo]
    waiting_sessions: int
    time: _timestamp_pb2.Timestamp
    features: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, server_version: _Optional[str] = ..., protocols: _Optional[_Iterable[str]] = ..., incarnation: _Optional[str] = ..., ops: _Optional[_Iterable[str]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ..., backend: _Optional[str] = ..., fingerprint: _Optional[str] = ..., held_bytes: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerInfo, _Mapping]]] = ..., waiting_sessions: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., features: _Optional[_Iterable[str]] = ...) -> None: ...

class WorkerInfo(_message.Message):
    __slots__ = ("name", "machine", "backend", "state", "sessions", "held_bytes", "busy_seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUSY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    machine: str
    backend: str
    state: str
    sessions: int
    held_bytes: int
    busy_seconds: float
    def __init__(self, name: _Optional[str] = ..., machine: _Optional[str] = ..., backend: _Optional[str] = ..., state: _Optional[str] = ..., sessions: _Optional[int] = ..., held_bytes: _Optional[int] = ..., busy_seconds: _Optional[float] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("message_bytes", "chunk_bytes", "inline_bytes", "graph_nodes", "tensor_bytes", "lease")
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    INLINE_BYTES_FIELD_NUMBER: _ClassVar[int]
    GRAPH_NODES_FIELD_NUMBER: _ClassVar[int]
    TENSOR_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    message_bytes: int
    chunk_bytes: int
    inline_bytes: int
    graph_nodes: int
    tensor_bytes: int
    lease: _duration_pb2.Duration
    def __init__(self, message_bytes: _Optional[int] = ..., chunk_bytes: _Optional[int] = ..., inline_bytes: _Optional[int] = ..., graph_nodes: _Optional[int] = ..., tensor_bytes: _Optional[int] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class OpenSessionRequest(_message.Message):
    __slots__ = ("request_id", "lease", "demand", "is_withdrawn")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    IS_WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    lease: _duration_pb2.Duration
    demand: Demand
    is_withdrawn: bool
    def __init__(self, request_id: _Optional[str] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., demand: _Optional[_Union[Demand, _Mapping]] = ..., is_withdrawn: bool = ...) -> None: ...

class Demand(_message.Message):
    __slots__ = ("backend", "worker", "memory_bytes")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    backend: str
    worker: str
    memory_bytes: int
    def __init__(self, backend: _Optional[str] = ..., worker: _Optional[str] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("session_id", "session_secret", "lease", "incarnation", "ticket", "worker", "direct_address", "queued", "backend", "fingerprint")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_SECRET_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    DIRECT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    session_secret: bytes
    lease: _duration_pb2.Duration
    incarnation: str
    ticket: bytes
    worker: str
    direct_address: str
    queued: Queued
    backend: str
    fingerprint: str
    def __init__(self, session_id: _Optional[str] = ..., session_secret: _Optional[bytes] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., incarnation: _Optional[str] = ..., ticket: _Optional[bytes] = ..., worker: _Optional[str] = ..., direct_address: _Optional[str] = ..., queued: _Optional[_Union[Queued, _Mapping]] = ..., backend: _Optional[str] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class Queued(_message.Message):
    __slots__ = ("position", "reason", "retry_after")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    position: int
    reason: str
    retry_after: _duration_pb2.Duration
    def __init__(self, position: _Optional[int] = ..., reason: _Optional[str] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AttachSessionRequest(_message.Message):
    __slots__ = ("heard_event", "sequence", "attach", "run", "put", "expect", "alias", "release", "fetch", "open_scope", "close_scope", "resume", "supply", "batch", "join_group", "offer", "pull", "explain", "profile")
    HEARD_EVENT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    EXPECT_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    FETCH_FIELD_NUMBER: _ClassVar[int]
    OPEN_SCOPE_FIELD_NUMBER: _ClassVar[int]
    CLOSE_SCOPE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    SUPPLY_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    JOIN_GROUP_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    PULL_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    heard_event: int
    sequence: int
    attach: Attach
    run: Run
    put: Put
    expect: Expect
    alias: Alias
    release: Release
    fetch: Fetch
    open_scope: OpenScope
    close_scope: CloseScope
    resume: Resume
    supply: Supply
    batch: Batch
    join_group: JoinGroup
    offer: Offer
    pull: Pull
    explain: Explain
    profile: Profile
    def __init__(self, heard_event: _Optional[int] = ..., sequence: _Optional[int] = ..., attach: _Optional[_Union[Attach, _Mapping]] = ..., run: _Optional[_Union[Run, _Mapping]] = ..., put: _Optional[_Union[Put, _Mapping]] = ..., expect: _Optional[_Union[Expect, _Mapping]] = ..., alias: _Optional[_Union[Alias, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., fetch: _Optional[_Union[Fetch, _Mapping]] = ..., open_scope: _Optional[_Union[OpenScope, _Mapping]] = ..., close_scope: _Optional[_Union[CloseScope, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., supply: _Optional[_Union[Supply, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., join_group: _Optional[_Union[JoinGroup, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., pull: _Optional[_Union[Pull, _Mapping]] = ..., explain: _Optional[_Union[Explain, _Mapping]] = ..., profile: _Optional[_Union[Profile, _Mapping]] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[AttachSessionRequest]
    def __init__(self, messages: _Optional[_Iterable[_Union[AttachSessionRequest, _Mapping]]] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("session_id", "session_secret", "wants_memory")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_SECRET_FIELD_NUMBER: _ClassVar[int]
    WANTS_MEMORY_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    session_secret: bytes
    wants_memory: bool
    def __init__(self, session_id: _Optional[str] = ..., session_secret: _Optional[bytes] = ..., wants_memory: bool = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("function", "inputs", "outputs", "immediates", "scope", "scopes", "group", "step", "is_recorded")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    IMMEDIATES_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    IS_RECORDED_FIELD_NUMBER: _ClassVar[int]
    function: bytes
    inputs: _containers.RepeatedScalarFieldContainer[int]
    outputs: _containers.RepeatedScalarFieldContainer[int]
    immediates: bytes
    scope: int
    scopes: _containers.RepeatedScalarFieldContainer[int]
    group: str
    step: int
    is_recorded: bool
    def __init__(self, function: _Optional[bytes] = ..., inputs: _Optional[_Iterable[int]] = ..., outputs: _Optional[_Iterable[int]] = ..., immediates: _Optional[bytes] = ..., scope: _Optional[int] = ..., scopes: _Optional[_Iterable[int]] = ..., group: _Optional[str] = ..., step: _Optional[int] = ..., is_recorded: bool = ...) -> None: ...

class JoinGroup(_message.Message):
    __slots__ = ("group", "generation", "key", "rank", "members", "timeout")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    group: str
    generation: int
    key: bytes
    rank: int
    members: _containers.RepeatedCompositeFieldContainer[GroupMember]
    timeout: _duration_pb2.Duration
    def __init__(self, group: _Optional[str] = ..., generation: _Optional[int] = ..., key: _Optional[bytes] = ..., rank: _Optional[int] = ..., members: _Optional[_Iterable[_Union[GroupMember, _Mapping]]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GroupMember(_message.Message):
    __slots__ = ("worker", "address", "machine", "device")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    address: str
    machine: str
    device: str
    def __init__(self, worker: _Optional[str] = ..., address: _Optional[str] = ..., machine: _Optional[str] = ..., device: _Optional[str] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("name", "key")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    name: int
    key: str
    def __init__(self, name: _Optional[int] = ..., key: _Optional[str] = ...) -> None: ...

class Pull(_message.Message):
    __slots__ = ("name", "type", "scope", "worker", "address", "ticket")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    name: int
    type: _tensors_pb2.TensorType
    scope: int
    worker: str
    address: str
    ticket: bytes
    def __init__(self, name: _Optional[int] = ..., type: _Optional[_Union[_tensors_pb2.TensorType, _Mapping]] = ..., scope: _Optional[int] = ..., worker: _Optional[str] = ..., address: _Optional[str] = ..., ticket: _Optional[bytes] = ...) -> None: ...

class Explain(_message.Message):
    __slots__ = ("function", "is_recorded")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    IS_RECORDED_FIELD_NUMBER: _ClassVar[int]
    function: bytes
    is_recorded: bool
    def __init__(self, function: _Optional[bytes] = ..., is_recorded: bool = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("spans",)
    SPANS_FIELD_NUMBER: _ClassVar[int]
    spans: int
    def __init__(self, spans: _Optional[int] = ...) -> None: ...

class Put(_message.Message):
    __slots__ = ("name", "type", "data", "scope", "place")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    name: int
    type: _tensors_pb2.TensorType
    data: bytes
    scope: int
    place: int
    def __init__(self, name: _Optional[int] = ..., type: _Optional[_Union[_tensors_pb2.TensorType, _Mapping]] = ..., data: _Optional[bytes] = ..., scope: _Optional[int] = ..., place: _Optional[int] = ...) -> None: ...

class Expect(_message.Message):
    __slots__ = ("name", "type", "scope")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    name: int
    type: _tensors_pb2.TensorType
    scope: int
    def __init__(self, name: _Optional[int] = ..., type: _Optional[_Union[_tensors_pb2.TensorType, _Mapping]] = ..., scope: _Optional[int] = ...) -> None: ...

class Alias(_message.Message):
    __slots__ = ("name", "source", "scope")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    name: int
    source: int
    scope: int
    def __init__(self, name: _Optional[int] = ..., source: _Optional[int] = ..., scope: _Optional[int] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, names: _Optional[_Iterable[int]] = ...) -> None: ...

class Fetch(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: int
    def __init__(self, name: _Optional[int] = ...) -> None: ...

class OpenScope(_message.Message):
    __slots__ = ("scope", "parent")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    scope: int
    parent: int
    def __init__(self, scope: _Optional[int] = ..., parent: _Optional[int] = ...) -> None: ...

class CloseScope(_message.Message):
    __slots__ = ("scope", "keep")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    scope: int
    keep: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, scope: _Optional[int] = ..., keep: _Optional[_Iterable[int]] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Supply(_message.Message):
    __slots__ = ("id", "function")
    ID_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    function: bytes
    def __init__(self, id: _Optional[bytes] = ..., function: _Optional[bytes] = ...) -> None: ...

class AttachSessionResponse(_message.Message):
    __slots__ = ("event", "attached", "acknowledged", "fetched", "failed", "function_needed", "ended", "explained", "profiled")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    FETCHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_NEEDED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    EXPLAINED_FIELD_NUMBER: _ClassVar[int]
    PROFILED_FIELD_NUMBER: _ClassVar[int]
    event: int
    attached: Attached
    acknowledged: Acknowledged
    fetched: Fetched
    failed: Failed
    function_needed: FunctionNeeded
    ended: Ended
    explained: Explained
    profiled: Profiled
    def __init__(self, event: _Optional[int] = ..., attached: _Optional[_Union[Attached, _Mapping]] = ..., acknowledged: _Optional[_Union[Acknowledged, _Mapping]] = ..., fetched: _Optional[_Union[Fetched, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., function_needed: _Optional[_Union[FunctionNeeded, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ..., explained: _Optional[_Union[Explained, _Mapping]] = ..., profiled: _Optional[_Union[Profiled, _Mapping]] = ...) -> None: ...

class Attached(_message.Message):
    __slots__ = ("incarnation", "received_sequence", "memory")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    received_sequence: int
    memory: SharedMemory
    def __init__(self, incarnation: _Optional[str] = ..., received_sequence: _Optional[int] = ..., memory: _Optional[_Union[SharedMemory, _Mapping]] = ...) -> None: ...

class SharedMemory(_message.Message):
    __slots__ = ("pid", "file", "bytes", "token")
    PID_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    pid: int
    file: int
    bytes: int
    token: bytes
    def __init__(self, pid: _Optional[int] = ..., file: _Optional[int] = ..., bytes: _Optional[int] = ..., token: _Optional[bytes] = ...) -> None: ...

class Acknowledged(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Fetched(_message.Message):
    __slots__ = ("sequence", "type", "data", "ticket")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    type: _tensors_pb2.TensorType
    data: bytes
    ticket: str
    def __init__(self, sequence: _Optional[int] = ..., type: _Optional[_Union[_tensors_pb2.TensorType, _Mapping]] = ..., data: _Optional[bytes] = ..., ticket: _Optional[str] = ...) -> None: ...

class Explained(_message.Message):
    __slots__ = ("sequence", "flops", "moved_bytes", "arena_bytes", "peak_bytes", "all_steps", "steps", "peak_step")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FLOPS_FIELD_NUMBER: _ClassVar[int]
    MOVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ARENA_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    ALL_STEPS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PEAK_STEP_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    flops: int
    moved_bytes: int
    arena_bytes: int
    peak_bytes: int
    all_steps: int
    steps: _containers.RepeatedCompositeFieldContainer[ExplainedStep]
    peak_step: int
    def __init__(self, sequence: _Optional[int] = ..., flops: _Optional[int] = ..., moved_bytes: _Optional[int] = ..., arena_bytes: _Optional[int] = ..., peak_bytes: _Optional[int] = ..., all_steps: _Optional[int] = ..., steps: _Optional[_Iterable[_Union[ExplainedStep, _Mapping]]] = ..., peak_step: _Optional[int] = ...) -> None: ...

class ExplainedStep(_message.Message):
    __slots__ = ("ops", "nodes", "is_backward", "kernel", "flops", "moved_bytes", "live_bytes", "depth")
    OPS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    IS_BACKWARD_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    FLOPS_FIELD_NUMBER: _ClassVar[int]
    MOVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LIVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    ops: _containers.RepeatedScalarFieldContainer[str]
    nodes: _containers.RepeatedScalarFieldContainer[int]
    is_backward: bool
    kernel: str
    flops: int
    moved_bytes: int
    live_bytes: int
    depth: int
    def __init__(self, ops: _Optional[_Iterable[str]] = ..., nodes: _Optional[_Iterable[int]] = ..., is_backward: bool = ..., kernel: _Optional[str] = ..., flops: _Optional[int] = ..., moved_bytes: _Optional[int] = ..., live_bytes: _Optional[int] = ..., depth: _Optional[int] = ...) -> None: ...

class Profiled(_message.Message):
    __slots__ = ("sequence", "received_ns", "answered_ns", "spans", "dropped_spans")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_NS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_NS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_SPANS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    received_ns: int
    answered_ns: int
    spans: _containers.RepeatedCompositeFieldContainer[ProfiledSpan]
    dropped_spans: int
    def __init__(self, sequence: _Optional[int] = ..., received_ns: _Optional[int] = ..., answered_ns: _Optional[int] = ..., spans: _Optional[_Iterable[_Union[ProfiledSpan, _Mapping]]] = ..., dropped_spans: _Optional[int] = ...) -> None: ...

class ProfiledSpan(_message.Message):
    __slots__ = ("kind", "name", "sequence", "begin_ns", "nanoseconds", "node", "is_backward")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BEGIN_NS_FIELD_NUMBER: _ClassVar[int]
    NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    IS_BACKWARD_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    sequence: int
    begin_ns: int
    nanoseconds: int
    node: int
    is_backward: bool
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., sequence: _Optional[int] = ..., begin_ns: _Optional[int] = ..., nanoseconds: _Optional[int] = ..., node: _Optional[int] = ..., is_backward: bool = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("sequence", "error")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    error: ErrorRecord
    def __init__(self, sequence: _Optional[int] = ..., error: _Optional[_Union[ErrorRecord, _Mapping]] = ...) -> None: ...

class FunctionNeeded(_message.Message):
    __slots__ = ("function",)
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    function: bytes
    def __init__(self, function: _Optional[bytes] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: ErrorRecord
    def __init__(self, error: _Optional[_Union[ErrorRecord, _Mapping]] = ...) -> None: ...

class ErrorRecord(_message.Message):
    __slots__ = ("reason", "message", "sequence", "function", "node", "is_backward", "details")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    IS_BACKWARD_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    sequence: int
    function: bytes
    node: int
    is_backward: bool
    details: _containers.ScalarMap[str, str]
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., sequence: _Optional[int] = ..., function: _Optional[bytes] = ..., node: _Optional[int] = ..., is_backward: bool = ..., details: _Optional[_Mapping[str, str]] = ...) -> None: ...

class KeepAliveRequest(_message.Message):
    __slots__ = ("session_id", "session_secret", "heard_event")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_SECRET_FIELD_NUMBER: _ClassVar[int]
    HEARD_EVENT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    session_secret: bytes
    heard_event: int
    def __init__(self, session_id: _Optional[str] = ..., session_secret: _Optional[bytes] = ..., heard_event: _Optional[int] = ...) -> None: ...

class KeepAliveResponse(_message.Message):
    __slots__ = ("expire_time", "incarnation")
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    expire_time: _timestamp_pb2.Timestamp
    incarnation: str
    def __init__(self, expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., incarnation: _Optional[str] = ...) -> None: ...

class CloseSessionRequest(_message.Message):
    __slots__ = ("session_id", "session_secret")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_SECRET_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    session_secret: bytes
    def __init__(self, session_id: _Optional[str] = ..., session_secret: _Optional[bytes] = ...) -> None: ...

class CloseSessionResponse(_message.Message):
    __slots__ = ("freed_tensors",)
    FREED_TENSORS_FIELD_NUMBER: _ClassVar[int]
    freed_tensors: int
    def __init__(self, freed_tensors: _Optional[int] = ...) -> None: ...
