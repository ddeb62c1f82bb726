from telegrad.wire.v1 import sessions_pb2 as _sessions_pb2
from telegrad.wire.v1 import tensors_pb2 as _tensors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Unit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNIT_UNSPECIFIED: _ClassVar[Unit]
    UNIT_STEPS: _ClassVar[Unit]
    UNIT_EPOCHS: _ClassVar[Unit]

class Reduction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REDUCTION_UNSPECIFIED: _ClassVar[Reduction]
    REDUCTION_MEAN: _ClassVar[Reduction]
    REDUCTION_SUM: _ClassVar[Reduction]
    REDUCTION_SMALLEST: _ClassVar[Reduction]
    REDUCTION_LARGEST: _ClassVar[Reduction]
    REDUCTION_LAST: _ClassVar[Reduction]

class Better(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BETTER_UNSPECIFIED: _ClassVar[Better]
    BETTER_SMALLER: _ClassVar[Better]
    BETTER_LARGER: _ClassVar[Better]

class OnNonFinite(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_NON_FINITE_UNSPECIFIED: _ClassVar[OnNonFinite]
    ON_NON_FINITE_KEEP: _ClassVar[OnNonFinite]
    ON_NON_FINITE_PAUSE: _ClassVar[OnNonFinite]
    ON_NON_FINITE_FAIL: _ClassVar[OnNonFinite]
UNIT_UNSPECIFIED: Unit
UNIT_STEPS: Unit
UNIT_EPOCHS: Unit
REDUCTION_UNSPECIFIED: Reduction
REDUCTION_MEAN: Reduction
REDUCTION_SUM: Reduction
REDUCTION_SMALLEST: Reduction
REDUCTION_LARGEST: Reduction
REDUCTION_LAST: Reduction
BETTER_UNSPECIFIED: Better
BETTER_SMALLER: Better
BETTER_LARGER: Better
ON_NON_FINITE_UNSPECIFIED: OnNonFinite
ON_NON_FINITE_KEEP: OnNonFinite
ON_NON_FINITE_PAUSE: OnNonFinite
ON_NON_FINITE_FAIL: OnNonFinite

class JobSpec(_message.Message):
    __slots__ = ("version", "name", "functions", "data", "loop", "steps", "state", "constants", "schedules", "validation", "after_epoch", "after_validation", "early_stopping", "keep_best", "checkpoints", "record_every", "on_nonfinite", "seed", "first_call", "replicas", "demand", "strict", "parent")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LOOP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CONSTANTS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    AFTER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    AFTER_VALIDATION_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_FIELD_NUMBER: _ClassVar[int]
    KEEP_BEST_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    RECORD_EVERY_FIELD_NUMBER: _ClassVar[int]
    ON_NONFINITE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    FIRST_CALL_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    version: int
    name: str
    functions: _containers.RepeatedCompositeFieldContainer[JobFunction]
    data: DataSource
    loop: Loop
    steps: _containers.RepeatedCompositeFieldContainer[Call]
    state: _containers.RepeatedCompositeFieldContainer[Slot]
    constants: _containers.RepeatedCompositeFieldContainer[Slot]
    schedules: _containers.RepeatedCompositeFieldContainer[Schedule]
    validation: Validation
    after_epoch: _containers.RepeatedCompositeFieldContainer[Call]
    after_validation: _containers.RepeatedCompositeFieldContainer[Call]
    early_stopping: EarlyStopping
    keep_best: KeepBest
    checkpoints: Checkpoints
    record_every: int
    on_nonfinite: OnNonFinite
    seed: int
    first_call: int
    replicas: int
    demand: _sessions_pb2.Demand
    strict: bool
    parent: ForkParent
    def __init__(self, version: _Optional[int] = ..., name: _Optional[str] = ..., functions: _Optional[_Iterable[_Union[JobFunction, _Mapping]]] = ..., data: _Optional[_Union[DataSource, _Mapping]] = ..., loop: _Optional[_Union[Loop, _Mapping]] = ..., steps: _Optional[_Iterable[_Union[Call, _Mapping]]] = ..., state: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ..., constants: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ..., schedules: _Optional[_Iterable[_Union[Schedule, _Mapping]]] = ..., validation: _Optional[_Union[Validation, _Mapping]] = ..., after_epoch: _Optional[_Iterable[_Union[Call, _Mapping]]] = ..., after_validation: _Optional[_Iterable[_Union[Call, _Mapping]]] = ..., early_stopping: _Optional[_Union[EarlyStopping, _Mapping]] = ..., keep_best: _Optional[_Union[KeepBest, _Mapping]] = ..., checkpoints: _Optional[_Union[Checkpoints, _Mapping]] = ..., record_every: _Optional[int] = ..., on_nonfinite: _Optional[_Union[OnNonFinite, str]] = ..., seed: _Optional[int] = ..., first_call: _Optional[int] = ..., replicas: _Optional[int] = ..., demand: _Optional[_Union[_sessions_pb2.Demand, _Mapping]] = ..., strict: bool = ..., parent: _Optional[_Union[ForkParent, _Mapping]] = ...) -> None: ...

class JobFunction(_message.Message):
    __slots__ = ("data", "files", "node_files", "node_lines")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    NODE_FILES_FIELD_NUMBER: _ClassVar[int]
    NODE_LINES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    files: _containers.RepeatedScalarFieldContainer[str]
    node_files: _containers.RepeatedScalarFieldContainer[int]
    node_lines: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, data: _Optional[bytes] = ..., files: _Optional[_Iterable[str]] = ..., node_files: _Optional[_Iterable[int]] = ..., node_lines: _Optional[_Iterable[int]] = ...) -> None: ...

class Slot(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: _tensors_pb2.TensorType
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[_tensors_pb2.TensorType, _Mapping]] = ...) -> None: ...

class DataSource(_message.Message):
    __slots__ = ("name", "digest", "rows", "first")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    rows: int
    first: int
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., rows: _Optional[int] = ..., first: _Optional[int] = ...) -> None: ...

class Loop(_message.Message):
    __slots__ = ("batch_size", "epochs", "steps", "shuffle", "shuffle_seed", "drop_last")
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_SEED_FIELD_NUMBER: _ClassVar[int]
    DROP_LAST_FIELD_NUMBER: _ClassVar[int]
    batch_size: int
    epochs: int
    steps: int
    shuffle: bool
    shuffle_seed: int
    drop_last: bool
    def __init__(self, batch_size: _Optional[int] = ..., epochs: _Optional[int] = ..., steps: _Optional[int] = ..., shuffle: bool = ..., shuffle_seed: _Optional[int] = ..., drop_last: bool = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("function", "rows", "inputs", "outputs")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    function: bytes
    rows: int
    inputs: _containers.RepeatedCompositeFieldContainer[CallInput]
    outputs: _containers.RepeatedCompositeFieldContainer[CallOutput]
    def __init__(self, function: _Optional[bytes] = ..., rows: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[CallInput, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[CallOutput, _Mapping]]] = ...) -> None: ...

class CallInput(_message.Message):
    __slots__ = ("column", "state", "constant", "key", "schedule", "metric", "literal", "name")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CONSTANT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    LITERAL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    column: str
    state: str
    constant: str
    key: RandomKey
    schedule: str
    metric: str
    literal: bytes
    name: str
    def __init__(self, column: _Optional[str] = ..., state: _Optional[str] = ..., constant: _Optional[str] = ..., key: _Optional[_Union[RandomKey, _Mapping]] = ..., schedule: _Optional[str] = ..., metric: _Optional[str] = ..., literal: _Optional[bytes] = ..., name: _Optional[str] = ...) -> None: ...

class RandomKey(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CallOutput(_message.Message):
    __slots__ = ("metric", "state")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    metric: MetricOutput
    state: str
    def __init__(self, metric: _Optional[_Union[MetricOutput, _Mapping]] = ..., state: _Optional[str] = ...) -> None: ...

class MetricOutput(_message.Message):
    __slots__ = ("name", "reduction", "over")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    OVER_FIELD_NUMBER: _ClassVar[int]
    name: str
    reduction: Reduction
    over: str
    def __init__(self, name: _Optional[str] = ..., reduction: _Optional[_Union[Reduction, str]] = ..., over: _Optional[str] = ...) -> None: ...

class Schedule(_message.Message):
    __slots__ = ("name", "per", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PER_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    per: Unit
    values: bytes
    def __init__(self, name: _Optional[str] = ..., per: _Optional[_Union[Unit, str]] = ..., values: _Optional[bytes] = ...) -> None: ...

class Every(_message.Message):
    __slots__ = ("count", "unit")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    count: int
    unit: Unit
    def __init__(self, count: _Optional[int] = ..., unit: _Optional[_Union[Unit, str]] = ...) -> None: ...

class Validation(_message.Message):
    __slots__ = ("data", "batch_size", "every", "calls")
    DATA_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    data: DataSource
    batch_size: int
    every: Every
    calls: _containers.RepeatedCompositeFieldContainer[Call]
    def __init__(self, data: _Optional[_Union[DataSource, _Mapping]] = ..., batch_size: _Optional[int] = ..., every: _Optional[_Union[Every, _Mapping]] = ..., calls: _Optional[_Iterable[_Union[Call, _Mapping]]] = ...) -> None: ...

class EarlyStopping(_message.Message):
    __slots__ = ("metric", "better", "patience", "min_delta", "since")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    BETTER_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_DELTA_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    metric: str
    better: Better
    patience: int
    min_delta: float
    since: int
    def __init__(self, metric: _Optional[str] = ..., better: _Optional[_Union[Better, str]] = ..., patience: _Optional[int] = ..., min_delta: _Optional[float] = ..., since: _Optional[int] = ...) -> None: ...

class KeepBest(_message.Message):
    __slots__ = ("metric", "better")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    BETTER_FIELD_NUMBER: _ClassVar[int]
    metric: str
    better: Better
    def __init__(self, metric: _Optional[str] = ..., better: _Optional[_Union[Better, str]] = ...) -> None: ...

class Checkpoints(_message.Message):
    __slots__ = ("every_steps", "every_epochs", "every_seconds", "keep_last")
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    EVERY_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    EVERY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KEEP_LAST_FIELD_NUMBER: _ClassVar[int]
    every_steps: int
    every_epochs: int
    every_seconds: float
    keep_last: int
    def __init__(self, every_steps: _Optional[int] = ..., every_epochs: _Optional[int] = ..., every_seconds: _Optional[float] = ..., keep_last: _Optional[int] = ...) -> None: ...

class ForkParent(_message.Message):
    __slots__ = ("job", "step")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    job: str
    step: int
    def __init__(self, job: _Optional[str] = ..., step: _Optional[int] = ...) -> None: ...
