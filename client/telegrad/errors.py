"""Every exception that telegrad raises, in one tree.

::

    TelegradError
      GraphError            the graph or its operands are wrong; raised before any RPC, and again by the server
        ShapeError (also ValueError)   DTypeError (also TypeError)   AxisError (also IndexError)
        UnknownOp   TraceError   VariableChanged
      AccessError           (also PermissionError) token missing, wrong, expired, or without the scope
      VersionMismatch       client and server cannot talk; names both versions and which to upgrade
      SessionError          LeaseExpired   ScopeClosed   StateLost
      ResourceError         OutOfDeviceMemory   QuotaExceeded   TooExpensive   StorageFull   StorageAway
      ExecutionError        an op failed while it ran; carries op, input types, client line
        IndexRange (also IndexError)   NonFinite (also ArithmeticError)
      NotFound              (also KeyError) session, name, job, dataset, checkpoint
      JobError              a job cannot do this in its present state
        JobFailed           carries state, cause, last checkpoint
      DataCorrupt           names what was expected and what was found
      ConnectionFailed      (also builtins.ConnectionError) ServerUnavailable   WorkerLost
      TimedOut (also builtins.TimeoutError)   Cancelled   ServerBug

Each class has one default *reason*, the UPPER_SNAKE word that travels on the wire; `wire/status.py`
maps reasons to gRPC status codes and back. A narrower reason may be given per instance. The message
is for people and is never parsed: what happened, to what, what to do.
"""

from __future__ import annotations

import builtins
from typing import ClassVar


class TelegradError(Exception):
    """The root of the tree. ``reason`` is stable and machine-readable, ``details`` holds the values.

    ``location`` is the client's file and line that built the failing op, where it is known.
    """

    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str = "", *, reason: str | None = None, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.details: dict[str, object] = details
        self.location: str | None = None

    def __str__(self) -> str:
        return f"{self.message}\n  at {self.location}" if self.location else self.message


class GraphError(TelegradError):
    """The graph, an attribute or an operand is not legal; nothing has run."""

    default_reason = "GRAPH_INVALID"


class ShapeError(GraphError, ValueError):
    """Shapes do not fit each other or the op."""

    default_reason = "SHAPE_INVALID"


class DTypeError(GraphError, TypeError):
    """A dtype is unknown, or the op does not take it."""

    default_reason = "DTYPE_UNSUPPORTED"


class AxisError(GraphError, IndexError):
    """An axis is out of range or named twice."""

    default_reason = "AXIS_INVALID"


class UnknownOp(GraphError):
    """The server does not know the op; the message names the op and the server's version."""

    default_reason = "OP_UNSUPPORTED"


class TraceError(GraphError):
    """A traced tensor was read, printed, branched on, or used outside its trace."""

    default_reason = "TRACE_INVALID"


class VariableChanged(GraphError):
    """A gradient needs a version of a variable that an update has replaced; names both lines."""

    default_reason = "VARIABLE_CHANGED"


class AccessError(TelegradError, PermissionError):
    """The token is missing, wrong, expired, or lacks the scope."""

    default_reason = "ACCESS_DENIED"


class VersionMismatch(TelegradError):
    """Client and server share no protocol version; the message says which to upgrade."""

    default_reason = "VERSION_MISMATCH"


class SessionError(TelegradError):
    """The session cannot do this in its present state."""

    default_reason = "SESSION_INVALID"


class LeaseExpired(SessionError):
    """Nothing was heard from the client for longer than its lease; everything was freed."""

    default_reason = "LEASE_EXPIRED"


class ScopeClosed(SessionError):
    """The tensor belonged to a scope that has been closed."""

    default_reason = "SCOPE_CLOSED"


class StateLost(SessionError):
    """The server process that held the session's tensors is gone."""

    default_reason = "STATE_LOST"


class ResourceError(TelegradError):
    """A limit of the machine or of the tenant was reached."""

    default_reason = "RESOURCE_EXHAUSTED"


class OutOfDeviceMemory(ResourceError, MemoryError):
    """The device has no room for the arrays; the message names what was asked for."""

    default_reason = "DEVICE_OOM"


class QuotaExceeded(ResourceError):
    """The tenant's quota does not allow this much."""

    default_reason = "QUOTA_DEVICE_BYTES"


class TooExpensive(ResourceError):
    """The op's output or cost, computed from its types alone, is beyond the limit."""

    default_reason = "OP_COST_LIMIT"


class StorageFull(ResourceError):
    """The disk has no room left; it goes on when there is some."""

    default_reason = "STORAGE_FULL"


class StorageAway(ResourceError):
    """Where checkpoints or data are kept nobody answers; it goes on when that has passed."""

    default_reason = "STORAGE_AWAY"


class ExecutionError(TelegradError):
    """An op failed while it ran. The Run had no effect; its results carry this error."""

    default_reason = "OP_FAILED"


class IndexRange(ExecutionError, IndexError):
    """An index of a gather, scatter or embedding lies outside its axis."""

    default_reason = "INDEX_RANGE"


class NonFinite(ExecutionError, ArithmeticError):
    """A value that was asked to be finite is NaN or infinite."""

    default_reason = "NONFINITE"


class NotFound(TelegradError, KeyError):
    """No such session, name, upload, job, dataset or checkpoint for this tenant."""

    default_reason = "NOT_FOUND"

    __str__ = TelegradError.__str__  # KeyError would print the message's repr


class JobError(TelegradError):
    """The job cannot do this in its present state, or somebody else has taken it over."""

    default_reason = "JOB_STATE"


class JobFailed(JobError):
    """A job ended without success; carries its state, cause and last checkpoint."""

    default_reason = "JOB_FAILED"


class DataCorrupt(TelegradError):
    """Bytes do not match their length or digest."""

    default_reason = "DATA_CORRUPT"


class ConnectionFailed(TelegradError, builtins.ConnectionError):
    """The server cannot be reached, or the connection broke and could not be made again."""

    default_reason = "CONNECTION_FAILED"


class ServerUnavailable(ConnectionFailed):
    """The server does not answer or is draining; the call is safe to retry."""

    default_reason = "UNAVAILABLE"


class WorkerLost(ConnectionFailed):
    """The worker that ran this is gone."""

    default_reason = "WORKER_LOST"


class TimedOut(TelegradError, builtins.TimeoutError):
    """The answer did not come within the time the caller gave."""

    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(TelegradError):
    """The caller or the operator cancelled the work."""

    default_reason = "CANCELLED"


class ServerBug(TelegradError):
    """The server failed in a way it does not explain; the message holds an id to report."""

    default_reason = "INTERNAL"
