from telegrad.wire.v1 import jobs_pb2 as _jobs_pb2
from telegrad.wire.v1 import tensors_pb2 as _tensors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoopAssignment(_message.Message):
    __slots__ = ("worker", "incarnation", "job", "number")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    job: str
    number: int
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., job: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class LoopProgress(_message.Message):
    __slots__ = ("job", "number", "step", "epoch", "steps_per_second", "values")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    JOB_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    job: str
    number: int
    step: int
    epoch: int
    steps_per_second: float
    values: _containers.ScalarMap[str, float]
    def __init__(self, job: _Optional[str] = ..., number: _Optional[int] = ..., step: _Optional[int] = ..., epoch: _Optional[int] = ..., steps_per_second: _Optional[float] = ..., values: _Optional[_Mapping[str, float]] = ...) -> None: ...

class WorkShiftRequest(_message.Message):
    __slots__ = ("worker", "incarnation", "loops")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    LOOPS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    loops: _containers.RepeatedCompositeFieldContainer[LoopProgress]
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., loops: _Optional[_Iterable[_Union[LoopProgress, _Mapping]]] = ...) -> None: ...

class WorkShiftResponse(_message.Message):
    __slots__ = ("job", "number", "begin", "stop", "stop_at_checkpoint", "leave", "extend")
    JOB_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STOP_AT_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    EXTEND_FIELD_NUMBER: _ClassVar[int]
    job: str
    number: int
    begin: BeginLoop
    stop: StopLoop
    stop_at_checkpoint: StopLoopAtCheckpoint
    leave: LeaveLoop
    extend: ExtendLoop
    def __init__(self, job: _Optional[str] = ..., number: _Optional[int] = ..., begin: _Optional[_Union[BeginLoop, _Mapping]] = ..., stop: _Optional[_Union[StopLoop, _Mapping]] = ..., stop_at_checkpoint: _Optional[_Union[StopLoopAtCheckpoint, _Mapping]] = ..., leave: _Optional[_Union[LeaveLoop, _Mapping]] = ..., extend: _Optional[_Union[ExtendLoop, _Mapping]] = ...) -> None: ...

class BeginLoop(_message.Message):
    __slots__ = ("tenant", "step", "spec")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    step: int
    spec: bytes
    def __init__(self, tenant: _Optional[str] = ..., step: _Optional[int] = ..., spec: _Optional[bytes] = ...) -> None: ...

class StopLoop(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopLoopAtCheckpoint(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaveLoop(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExtendLoop(_message.Message):
    __slots__ = ("spec",)
    SPEC_FIELD_NUMBER: _ClassVar[int]
    spec: bytes
    def __init__(self, spec: _Optional[bytes] = ...) -> None: ...

class TellLoopEventRequest(_message.Message):
    __slots__ = ("assignment", "kind", "step", "reason", "message", "line", "is_early", "rows", "row_count")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    IS_EARLY_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    assignment: LoopAssignment
    kind: str
    step: int
    reason: str
    message: str
    line: str
    is_early: bool
    rows: _containers.RepeatedCompositeFieldContainer[_jobs_pb2.MetricRow]
    row_count: int
    def __init__(self, assignment: _Optional[_Union[LoopAssignment, _Mapping]] = ..., kind: _Optional[str] = ..., step: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., line: _Optional[str] = ..., is_early: bool = ..., rows: _Optional[_Iterable[_Union[_jobs_pb2.MetricRow, _Mapping]]] = ..., row_count: _Optional[int] = ...) -> None: ...

class TellLoopEventResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RestoreCheckpointRequest(_message.Message):
    __slots__ = ("assignment", "tensors", "is_near")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    IS_NEAR_FIELD_NUMBER: _ClassVar[int]
    assignment: LoopAssignment
    tensors: int
    is_near: bool
    def __init__(self, assignment: _Optional[_Union[LoopAssignment, _Mapping]] = ..., tensors: _Optional[int] = ..., is_near: bool = ...) -> None: ...

class PassedOverCheckpoint(_message.Message):
    __slots__ = ("step", "attempt", "file", "expected", "found", "message")
    STEP_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    step: int
    attempt: int
    file: str
    expected: str
    found: str
    message: str
    def __init__(self, step: _Optional[int] = ..., attempt: _Optional[int] = ..., file: _Optional[str] = ..., expected: _Optional[str] = ..., found: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class CheckpointManifest(_message.Message):
    __slots__ = ("manifest", "skipped")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    skipped: _containers.RepeatedCompositeFieldContainer[PassedOverCheckpoint]
    def __init__(self, manifest: _Optional[bytes] = ..., skipped: _Optional[_Iterable[_Union[PassedOverCheckpoint, _Mapping]]] = ...) -> None: ...

class RestoreCheckpointResponse(_message.Message):
    __slots__ = ("chunk", "header", "digest")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    header: CheckpointManifest
    digest: bytes
    def __init__(self, chunk: _Optional[bytes] = ..., header: _Optional[_Union[CheckpointManifest, _Mapping]] = ..., digest: _Optional[bytes] = ...) -> None: ...

class CheckpointDraft(_message.Message):
    __slots__ = ("assignment", "manifest", "entry")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    assignment: LoopAssignment
    manifest: bytes
    entry: str
    def __init__(self, assignment: _Optional[_Union[LoopAssignment, _Mapping]] = ..., manifest: _Optional[bytes] = ..., entry: _Optional[str] = ...) -> None: ...

class StoreCheckpointRequest(_message.Message):
    __slots__ = ("chunk", "header", "digest")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    header: CheckpointDraft
    digest: bytes
    def __init__(self, chunk: _Optional[bytes] = ..., header: _Optional[_Union[CheckpointDraft, _Mapping]] = ..., digest: _Optional[bytes] = ...) -> None: ...

class StoreCheckpointResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class KeepCheckpointsRequest(_message.Message):
    __slots__ = ("assignment", "last", "best")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    assignment: LoopAssignment
    last: int
    best: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, assignment: _Optional[_Union[LoopAssignment, _Mapping]] = ..., last: _Optional[int] = ..., best: _Optional[_Iterable[int]] = ...) -> None: ...

class KeepCheckpointsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FetchDatasetRequest(_message.Message):
    __slots__ = ("assignment", "digest", "block")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    assignment: LoopAssignment
    digest: str
    block: int
    def __init__(self, assignment: _Optional[_Union[LoopAssignment, _Mapping]] = ..., digest: _Optional[str] = ..., block: _Optional[int] = ...) -> None: ...

class LoopDataset(_message.Message):
    __slots__ = ("rows", "columns", "block_rows", "window_rows")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_ROWS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: _containers.RepeatedCompositeFieldContainer[LoopColumn]
    block_rows: _containers.RepeatedScalarFieldContainer[int]
    window_rows: int
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[LoopColumn, _Mapping]]] = ..., block_rows: _Optional[_Iterable[int]] = ..., window_rows: _Optional[int] = ...) -> None: ...

class LoopColumn(_message.Message):
    __slots__ = ("name", "row")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    name: str
    row: _tensors_pb2.TensorType
    def __init__(self, name: _Optional[str] = ..., row: _Optional[_Union[_tensors_pb2.TensorType, _Mapping]] = ...) -> None: ...

class ColumnChunk(_message.Message):
    __slots__ = ("column", "data")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    column: int
    data: bytes
    def __init__(self, column: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class DatasetDigests(_message.Message):
    __slots__ = ("columns",)
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, columns: _Optional[_Iterable[str]] = ...) -> None: ...

class FetchDatasetResponse(_message.Message):
    __slots__ = ("chunk", "header", "digests")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    chunk: ColumnChunk
    header: LoopDataset
    digests: DatasetDigests
    def __init__(self, chunk: _Optional[_Union[ColumnChunk, _Mapping]] = ..., header: _Optional[_Union[LoopDataset, _Mapping]] = ..., digests: _Optional[_Union[DatasetDigests, _Mapping]] = ...) -> None: ...
