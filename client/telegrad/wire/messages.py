"""What client and server say to each other on a session's stream, as frozen dataclasses.

In process these objects are handed over as they are; over gRPC `wire/codec.py` turns them into the
messages of `sessions.proto`. *Names* are positive 64-bit integers that the client chooses, one for each
result, never used twice in a session; a variable is a name whose value Runs replace. Commands carry
sequence numbers 1, 2, 3, … and take effect once and in order; events are numbered the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from telegrad.ir.types import Type

INLINE_BYTES = 64 * 1024
"""Tensors up to this size travel inside commands and events; larger ones on their own stream."""

FEATURES = ("explain", "profile")
"""What a session takes beside the first commands, as `Hello` tells: an older server is not sent what it cannot do."""

ROOT_SCOPE = 0
"""The scope that a session is born with."""


# ---- commands, client to server


@dataclass(frozen=True, slots=True)
class Run:
    """Call a function. ``inputs`` holds a name for each graph input, or 0 for the next of ``immediates``.

    ``immediates`` are the bytes (little-endian, C order) of the inputs given as 0, one after the other.
    ``outputs`` holds a name for each graph output, or 0 where nobody wants it. Results belong to ``scope``
    unless ``scopes`` names one for each output. A member of ``group`` runs its share of a data-parallel function,
    for the group's call number ``step``. With ``is_recorded`` the function is a graph that nobody declared one.
    """

    function: bytes
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    immediates: bytes = b""
    scope: int = ROOT_SCOPE
    scopes: tuple[int, ...] = ()
    group: str = ""
    step: int = 0
    is_recorded: bool = False


@dataclass(frozen=True, slots=True)
class Put:
    """Make a tensor from bytes (little-endian, C order).

    A small one brings them. Those of a larger one lie at a ``place`` in memory that both sides share, and ``data`` is
    a view of them once the server has the command.
    """

    name: int
    type: Type
    data: bytes | memoryview
    scope: int = ROOT_SCOPE
    place: int = 0


@dataclass(frozen=True, slots=True)
class Expect:
    """Announce a tensor whose bytes arrive by UploadTensor; Runs that name it wait for it."""

    name: int
    type: Type
    scope: int = ROOT_SCOPE


@dataclass(frozen=True, slots=True)
class Alias:
    """Give the value that ``source`` has now another name, which later updates of ``source`` do not reach."""

    name: int
    source: int
    scope: int = ROOT_SCOPE


@dataclass(frozen=True, slots=True)
class Release:
    """Forget names. Unknown names are ignored, so releasing twice is harmless."""

    names: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask for the value of a name as it is at this point of the sequence; answered by Fetched or Failed."""

    name: int


@dataclass(frozen=True, slots=True)
class OpenScope:
    """Open a scope under ``parent``."""

    scope: int
    parent: int = ROOT_SCOPE


@dataclass(frozen=True, slots=True)
class CloseScope:
    """Free what was made in a scope and its children, except ``keep``, which moves to the parent."""

    scope: int
    keep: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Resume:
    """The client has raised the error of ``sequence``: variables that it held back may be used again."""

    sequence: int


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A worker in a group: its name, the address of its collectives as host:port, its machine, and its GPU."""

    worker: str
    address: str
    machine: str
    device: str = ""


@dataclass(frozen=True, slots=True)
class JoinGroup:
    """Become a member of a group. Sent by the home worker of another session, never by a client."""

    group: str
    generation: int
    key: bytes
    rank: int
    members: tuple[GroupMember, ...]
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Offer:
    """Let another worker take the value of a name, once, under a key "step/number". Sent by a home worker."""

    name: int
    key: str


@dataclass(frozen=True, slots=True)
class Pull:
    """Take a value that ``worker`` offers, or will offer; Runs that name it wait for it. Sent by a home worker."""

    name: int
    type: Type
    worker: str
    address: str
    ticket: bytes
    scope: int = ROOT_SCOPE


@dataclass(frozen=True, slots=True)
class Explain:
    """Ask what running a function would take; answered by Explained or Failed. Nothing is run."""

    function: bytes
    is_recorded: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """Record up to ``spans`` spans of this session from now on; 0 ends that. Answered by Profiled.

    ``received_ns`` is set by the server, by its own clock, when the command comes.
    """

    spans: int
    received_ns: int = 0


Command = (
    Run | Put | Expect | Alias | Release | Fetch | OpenScope | CloseScope | Resume | JoinGroup | Offer | Pull
    | Explain | Profile
)  # fmt: skip


# ---- events, server to client


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An error as data. ``sequence`` is the command that failed first, ``node`` the node of the client's graph."""

    reason: str
    message: str
    sequence: int = 0
    function: bytes = b""
    node: int = -1
    is_backward: bool = False
    details: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Every command up to ``sequence`` has been received and will take effect once."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to the Fetch of ``sequence``: the bytes, or a ticket for DownloadTensor if there are many."""

    sequence: int
    type: Type
    data: bytes | None = None
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """A step of a plan: its ops, and for each the node of the client's graph, -1 where that is not known.

    ``kernel`` is "printed", "library", "array", "loop", "view" or "constant"; ``flops`` and ``moved_bytes`` are those
    of all trips of the loops around it, of which there are ``depth``.
    """

    ops: tuple[str, ...]
    nodes: tuple[int, ...]
    is_backward: bool
    kernel: str
    flops: int
    moved_bytes: int
    live_bytes: int
    depth: int


@dataclass(frozen=True, slots=True)
class Explained:
    """The answer to the Explain of ``sequence``. ``steps`` are the first of ``all_steps``; the one of them at which
    most memory is live is ``peak_step``, -1 if it is not among them."""

    sequence: int
    flops: int
    moved_bytes: int
    arena_bytes: int
    peak_bytes: int
    all_steps: int
    steps: tuple[ExplainedStep, ...]
    peak_step: int


@dataclass(frozen=True, slots=True)
class ProfiledSpan:
    """Something that took time: ``kind`` is "queue", "run", "put", "fetch", "explain" or "step"."""

    kind: str
    name: str
    sequence: int
    begin_ns: int
    nanoseconds: int
    node: int = -1
    is_backward: bool = False


@dataclass(frozen=True, slots=True)
class Profiled:
    """The answer to the Profile of ``sequence``: the server's clock when it came and now, and what was recorded."""

    sequence: int
    received_ns: int
    answered_ns: int
    spans: tuple[ProfiledSpan, ...] = ()
    dropped_spans: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """The command of ``sequence`` failed and had no effect. ``error.sequence`` is where the error began."""

    sequence: int
    error: ErrorRecord


@dataclass(frozen=True, slots=True)
class FunctionNeeded:
    """A Run waits for the bytes of this function; the client supplies them outside the sequence."""

    function: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over (expired, closed by an operator); nothing follows."""

    error: ErrorRecord


Answer = Fetched | Explained | Profiled
"""What answers a command that asks."""

Event = Acknowledged | Fetched | Failed | FunctionNeeded | Ended | Explained | Profiled
