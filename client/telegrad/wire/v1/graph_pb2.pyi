from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Graph(_message.Message):
    __slots__ = ("version", "op_names", "kinds", "attribute_offsets", "attributes", "nodes", "operand_offsets", "operands", "operand_outputs", "region_offsets", "result_offsets", "results", "result_outputs", "region_owners")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OP_NAMES_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    OPERAND_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    OPERANDS_FIELD_NUMBER: _ClassVar[int]
    OPERAND_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    REGION_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    RESULT_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    RESULT_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    REGION_OWNERS_FIELD_NUMBER: _ClassVar[int]
    version: int
    op_names: _containers.RepeatedScalarFieldContainer[str]
    kinds: bytes
    attribute_offsets: bytes
    attributes: bytes
    nodes: bytes
    operand_offsets: bytes
    operands: bytes
    operand_outputs: bytes
    region_offsets: bytes
    result_offsets: bytes
    results: bytes
    result_outputs: bytes
    region_owners: bytes
    def __init__(self, version: _Optional[int] = ..., op_names: _Optional[_Iterable[str]] = ..., kinds: _Optional[bytes] = ..., attribute_offsets: _Optional[bytes] = ..., attributes: _Optional[bytes] = ..., nodes: _Optional[bytes] = ..., operand_offsets: _Optional[bytes] = ..., operands: _Optional[bytes] = ..., operand_outputs: _Optional[bytes] = ..., region_offsets: _Optional[bytes] = ..., result_offsets: _Optional[bytes] = ..., results: _Optional[bytes] = ..., result_outputs: _Optional[bytes] = ..., region_owners: _Optional[bytes] = ...) -> None: ...

class Function(_message.Message):
    __slots__ = ("graph", "updates", "replication")
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FIELD_NUMBER: _ClassVar[int]
    graph: Graph
    updates: bytes
    replication: Replication
    def __init__(self, graph: _Optional[_Union[Graph, _Mapping]] = ..., updates: _Optional[bytes] = ..., replication: _Optional[_Union[Replication, _Mapping]] = ...) -> None: ...

class Replication(_message.Message):
    __slots__ = ("replicas", "rows", "split_inputs", "row_outputs", "rest", "shards")
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_INPUTS_FIELD_NUMBER: _ClassVar[int]
    ROW_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    REST_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    replicas: int
    rows: int
    split_inputs: bytes
    row_outputs: bytes
    rest: Graph
    shards: bool
    def __init__(self, replicas: _Optional[int] = ..., rows: _Optional[int] = ..., split_inputs: _Optional[bytes] = ..., row_outputs: _Optional[bytes] = ..., rest: _Optional[_Union[Graph, _Mapping]] = ..., shards: bool = ...) -> None: ...
