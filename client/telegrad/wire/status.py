"""Reasons, gRPC statuses and exceptions: the one table.

A *reason* is the stable word that travels; each has a gRPC status code and a class. A reason that is
not in the table arrives as ServerBug. Nothing here imports grpc: codes are their names.
"""

from __future__ import annotations

from typing import NamedTuple

from telegrad import errors as e
from telegrad.wire.messages import ErrorRecord


class Row(NamedTuple):
    """What a reason means: its gRPC status code, its class, and whether the same call may be sent again."""

    code: str
    cls: type[e.TelegradError]
    is_retried: bool = False


REASONS: dict[str, Row] = {
    # graphs, attributes, operands
    "GRAPH_INVALID": Row("INVALID_ARGUMENT", e.GraphError),
    "GRAPH_ARITY": Row("INVALID_ARGUMENT", e.GraphError),
    "GRAPH_FORWARD_REF": Row("INVALID_ARGUMENT", e.GraphError),
    "GRAPH_DANGLING": Row("INVALID_ARGUMENT", e.GraphError),
    "GRAPH_SIZE": Row("INVALID_ARGUMENT", e.GraphError),
    "GRAPH_COLUMNS": Row("INVALID_ARGUMENT", e.GraphError),
    "REGION_INVALID": Row("INVALID_ARGUMENT", e.GraphError),
    "REPLICATION_INVALID": Row("INVALID_ARGUMENT", e.GraphError),
    "GRADIENT_MISSING": Row("INVALID_ARGUMENT", e.GraphError),
    "ATTRIBUTE_UNKNOWN": Row("INVALID_ARGUMENT", e.GraphError),
    "ATTRIBUTE_MISSING": Row("INVALID_ARGUMENT", e.GraphError),
    "ATTRIBUTE_INVALID": Row("INVALID_ARGUMENT", e.GraphError),
    "FUNCTION_MISMATCH": Row("INVALID_ARGUMENT", e.GraphError),
    "MALFORMED_MESSAGE": Row("INVALID_ARGUMENT", e.GraphError),
    "NAME_REUSED": Row("INVALID_ARGUMENT", e.GraphError),
    "NAME_INVALID": Row("INVALID_ARGUMENT", e.GraphError),
    "REQUEST_ID_REUSED": Row("ALREADY_EXISTS", e.GraphError),
    "SHAPE_INVALID": Row("INVALID_ARGUMENT", e.ShapeError),
    "SHAPE_NEGATIVE": Row("INVALID_ARGUMENT", e.ShapeError),
    "SHAPE_OVERFLOW": Row("INVALID_ARGUMENT", e.ShapeError),
    "RANK_LIMIT": Row("INVALID_ARGUMENT", e.ShapeError),
    "DTYPE_UNSUPPORTED": Row("INVALID_ARGUMENT", e.DTypeError),
    "AXIS_INVALID": Row("INVALID_ARGUMENT", e.AxisError),
    "OP_UNSUPPORTED": Row("UNIMPLEMENTED", e.UnknownOp),
    "TRACE_INVALID": Row("INVALID_ARGUMENT", e.TraceError),
    "VARIABLE_CHANGED": Row("FAILED_PRECONDITION", e.VariableChanged),
    # access and versions
    "ACCESS_DENIED": Row("PERMISSION_DENIED", e.AccessError),
    "TOKEN_MISSING": Row("UNAUTHENTICATED", e.AccessError),
    "TOKEN_INVALID": Row("UNAUTHENTICATED", e.AccessError),
    "TICKET_INVALID": Row("UNAUTHENTICATED", e.AccessError),
    "VERSION_MISMATCH": Row("FAILED_PRECONDITION", e.VersionMismatch),
    # sessions
    "SESSION_INVALID": Row("FAILED_PRECONDITION", e.SessionError),
    "SEQ_GAP": Row("FAILED_PRECONDITION", e.SessionError),
    "SCOPE_UNKNOWN": Row("FAILED_PRECONDITION", e.SessionError),
    "SESSION_CLOSED": Row("FAILED_PRECONDITION", e.SessionError),
    "LEASE_EXPIRED": Row("FAILED_PRECONDITION", e.LeaseExpired),
    "SCOPE_CLOSED": Row("FAILED_PRECONDITION", e.ScopeClosed),
    "STATE_LOST": Row("FAILED_PRECONDITION", e.StateLost),
    "SESSION_UNKNOWN": Row("NOT_FOUND", e.NotFound),
    "NAME_UNKNOWN": Row("NOT_FOUND", e.NotFound),
    "WORKER_UNKNOWN": Row("NOT_FOUND", e.NotFound),
    "NOT_FOUND": Row("NOT_FOUND", e.NotFound),
    # resources
    "RESOURCE_EXHAUSTED": Row("RESOURCE_EXHAUSTED", e.ResourceError),
    "MESSAGE_TOO_LARGE": Row("RESOURCE_EXHAUSTED", e.ResourceError),
    "DEVICE_OOM": Row("RESOURCE_EXHAUSTED", e.OutOfDeviceMemory),
    "QUOTA_DEVICE_BYTES": Row("RESOURCE_EXHAUSTED", e.QuotaExceeded),
    "QUOTA_SESSIONS": Row("RESOURCE_EXHAUSTED", e.QuotaExceeded),
    "DEMAND_HOPELESS": Row("RESOURCE_EXHAUSTED", e.QuotaExceeded),
    "QUEUE_TIMEOUT": Row("RESOURCE_EXHAUSTED", e.QuotaExceeded),
    "QUOTA_TENSORS": Row("RESOURCE_EXHAUSTED", e.QuotaExceeded),
    "QUOTA_DATASET_BYTES": Row("RESOURCE_EXHAUSTED", e.QuotaExceeded),
    "QUOTA_DATASETS": Row("RESOURCE_EXHAUSTED", e.QuotaExceeded),
    "STORAGE_MISSING": Row("FAILED_PRECONDITION", e.ResourceError),
    "OP_OUTPUT_LIMIT": Row("RESOURCE_EXHAUSTED", e.TooExpensive),
    "OP_COST_LIMIT": Row("RESOURCE_EXHAUSTED", e.TooExpensive),
    "STORAGE_FULL": Row("RESOURCE_EXHAUSTED", e.StorageFull),
    "STORAGE_AWAY": Row("FAILED_PRECONDITION", e.StorageAway),
    "STORAGE_FAILED": Row("FAILED_PRECONDITION", e.ResourceError),
    # jobs
    "JOB_INVALID": Row("INVALID_ARGUMENT", e.GraphError),
    "JOB_UNKNOWN": Row("NOT_FOUND", e.NotFound),
    "JOB_NAME_TAKEN": Row("ALREADY_EXISTS", e.JobError),
    "JOB_STATE": Row("FAILED_PRECONDITION", e.JobError),
    "JOB_FENCED": Row("ABORTED", e.JobError),
    "JOB_FAILED": Row("FAILED_PRECONDITION", e.JobFailed),
    "JOB_NUMERICS": Row("FAILED_PRECONDITION", e.JobError),
    "QUOTA_JOBS": Row("RESOURCE_EXHAUSTED", e.QuotaExceeded),
    "QUOTA_CHECKPOINT_BYTES": Row("RESOURCE_EXHAUSTED", e.QuotaExceeded),
    # running
    "OP_FAILED": Row("INTERNAL", e.ExecutionError),
    "INDEX_RANGE": Row("INVALID_ARGUMENT", e.IndexRange),
    "NONFINITE": Row("FAILED_PRECONDITION", e.NonFinite),
    # data
    "DATA_CORRUPT": Row("DATA_LOSS", e.DataCorrupt),
    "DATA_LENGTH": Row("INVALID_ARGUMENT", e.DataCorrupt),
    "DATA_TRUNCATED": Row("INVALID_ARGUMENT", e.DataCorrupt),
    # connection
    "CONNECTION_FAILED": Row("UNAVAILABLE", e.ConnectionFailed),
    "UNAVAILABLE": Row("UNAVAILABLE", e.ServerUnavailable, True),
    "DRAINING": Row("UNAVAILABLE", e.ServerUnavailable, True),
    "WORKER_LOST": Row("ABORTED", e.WorkerLost),
    "STREAM_TAKEN": Row("ABORTED", e.SessionError),
    "DEADLINE_EXCEEDED": Row("DEADLINE_EXCEEDED", e.TimedOut),
    "CANCELLED": Row("CANCELLED", e.Cancelled),
    "INTERNAL": Row("INTERNAL", e.ServerBug),
}

_BY_CODE: dict[str, type[e.TelegradError]] = {
    "INVALID_ARGUMENT": e.GraphError,
    "UNIMPLEMENTED": e.UnknownOp,
    "NOT_FOUND": e.NotFound,
    "FAILED_PRECONDITION": e.SessionError,
    "RESOURCE_EXHAUSTED": e.ResourceError,
    "ABORTED": e.WorkerLost,
    "UNAVAILABLE": e.ServerUnavailable,
    "DEADLINE_EXCEEDED": e.TimedOut,
    "CANCELLED": e.Cancelled,
    "UNAUTHENTICATED": e.AccessError,
    "PERMISSION_DENIED": e.AccessError,
    "DATA_LOSS": e.DataCorrupt,
}


def to_record(error: e.TelegradError, *, sequence: int = 0, function: bytes = b"") -> ErrorRecord:
    """The error as data. ``node`` and ``is_backward`` come from its details, the rest of which become strings."""
    details = dict(error.details)
    node = details.pop("node", -1)
    is_backward = details.pop("is_backward", False)
    return ErrorRecord(
        reason=error.reason,
        message=error.message,
        sequence=sequence,
        function=function,
        node=node if isinstance(node, int) else -1,
        is_backward=bool(is_backward),
        details={key: str(value) for key, value in details.items()},
    )


def to_exception(record: ErrorRecord) -> e.TelegradError:
    """The exception that the record stands for; ServerBug for a reason that is not known here."""
    row = REASONS.get(record.reason)
    cls = row.cls if row else e.ServerBug
    return cls(record.message, reason=record.reason, **record.details)


def from_code(code: str, message: str) -> e.TelegradError:
    """The exception for a gRPC status that came without a record, as from a proxy or a broken connection."""
    return _BY_CODE.get(code, e.ServerBug)(message)
