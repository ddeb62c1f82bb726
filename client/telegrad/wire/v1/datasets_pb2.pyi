from telegrad.wire.v1 import tensors_pb2 as _tensors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DatasetColumn(_message.Message):
    __slots__ = ("name", "type", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: _tensors_pb2.TensorType
    digest: str
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[_tensors_pb2.TensorType, _Mapping]] = ..., digest: _Optional[str] = ...) -> None: ...

class DatasetDescription(_message.Message):
    __slots__ = ("name", "digest", "columns", "source", "rows", "blocks")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    columns: _containers.RepeatedCompositeFieldContainer[DatasetColumn]
    source: str
    rows: int
    blocks: int
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[DatasetColumn, _Mapping]]] = ..., source: _Optional[str] = ..., rows: _Optional[int] = ..., blocks: _Optional[int] = ...) -> None: ...

class PutDatasetRequest(_message.Message):
    __slots__ = ("name", "columns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    name: str
    columns: _containers.RepeatedCompositeFieldContainer[DatasetColumn]
    def __init__(self, name: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[DatasetColumn, _Mapping]]] = ...) -> None: ...

class PutDatasetResponse(_message.Message):
    __slots__ = ("dataset", "missing")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    dataset: DatasetDescription
    missing: _containers.RepeatedCompositeFieldContainer[MissingColumn]
    def __init__(self, dataset: _Optional[_Union[DatasetDescription, _Mapping]] = ..., missing: _Optional[_Iterable[_Union[MissingColumn, _Mapping]]] = ...) -> None: ...

class MissingColumn(_message.Message):
    __slots__ = ("digest", "received_bytes")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    digest: str
    received_bytes: int
    def __init__(self, digest: _Optional[str] = ..., received_bytes: _Optional[int] = ...) -> None: ...

class UploadColumnRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: ColumnHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[ColumnHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ColumnHeader(_message.Message):
    __slots__ = ("type", "digest", "offset_bytes")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    type: _tensors_pb2.TensorType
    digest: str
    offset_bytes: int
    def __init__(self, type: _Optional[_Union[_tensors_pb2.TensorType, _Mapping]] = ..., digest: _Optional[str] = ..., offset_bytes: _Optional[int] = ...) -> None: ...

class UploadColumnResponse(_message.Message):
    __slots__ = ("received_bytes",)
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    def __init__(self, received_bytes: _Optional[int] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets",)
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetDescription]
    def __init__(self, datasets: _Optional[_Iterable[_Union[DatasetDescription, _Mapping]]] = ...) -> None: ...

class DescribeDatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DescribeDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: DatasetDescription
    def __init__(self, dataset: _Optional[_Union[DatasetDescription, _Mapping]] = ...) -> None: ...

class ReadDatasetRequest(_message.Message):
    __slots__ = ("name", "digest", "rows")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    rows: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., rows: _Optional[_Iterable[int]] = ...) -> None: ...

class ReadDatasetResponse(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    def __init__(self, chunk: _Optional[bytes] = ...) -> None: ...

class VerifyDatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class VerifyDatasetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteDatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteDatasetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
