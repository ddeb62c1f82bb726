"""Where the time went: `profile` writes one trace of client, wire, queue and device, by one clock, for Perfetto.

The server is asked for its time a few times, and the quickest answer aligns its clock with ours as NTP does: it came
and went in the middle of the round trip, so the error is at most half of that. The server records spans of this session
alone, while it is asked to, up to a number; they come back in one message when the record ends.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from telegrad import context
from telegrad.lazy import Line, caller, show
from telegrad.session import Session
from telegrad.wire import messages as m

SPANS = 20_000
"""The most that a server records."""

PINGS = 5
_CLIENT, _SERVER = 1, 2
_PROGRAM, _DEVICE = 1, 2


@dataclass(frozen=True, slots=True)
class Span:
    """Something that the client did: ``kind`` is "dispatch", "upload" or "wait"."""

    kind: str
    name: str
    begin_ns: int
    end_ns: int
    line: Line | None = None
    nbytes: int = 0


@dataclass(slots=True)
class Recorder:
    """What the client did while a profile was taken, no more than ``limit`` of each."""

    limit: int
    spans: list[Span] = field(default_factory=list[Span])
    sent: dict[int, tuple[str, int, int]] = field(default_factory=dict[int, tuple[str, int, int]])
    heard: dict[int, int] = field(default_factory=dict[int, int])

    def add(self, kind: str, name: str, begin_ns: int, *, nbytes: int = 0) -> None:
        """Remember what began then and has just ended."""
        if len(self.spans) < self.limit:
            self.spans.append(Span(kind, name, begin_ns, time.perf_counter_ns(), caller(), nbytes))

    def send(self, sequence: int, command: m.Command) -> None:
        """Remember that a command is about to be sent, and what it takes on the wire."""
        from telegrad.wire.stream import command_to_proto

        if len(self.sent) < self.limit:
            nbytes = command_to_proto(sequence, command).ByteSize()
            self.sent[sequence] = (type(command).__name__, nbytes, time.perf_counter_ns())

    def hear(self, sequence: int) -> None:
        """Remember that an answer has come."""
        if len(self.heard) < self.limit:
            self.heard[sequence] = time.perf_counter_ns()


@dataclass(slots=True)
class Timeline:
    """A profile that is taken, and when it has ended what is known of it."""

    path: Path
    offset_ns: int = 0
    """The server's clock less ours."""

    round_trip_ns: int = 0
    """Of the quickest answer; the clocks may be off by half of it."""

    dropped_spans: int = 0
    """How many the server had no room for."""


@contextmanager
def profile(
    path: str | os.PathLike[str] = "telegrad-trace.json", *, spans: int = SPANS
) -> Generator[Timeline, None, None]:
    """What happens in the current session inside the ``with``, written to a file that ui.perfetto.dev opens.

    The client's calls, uploads and waits; what each command spent on the wire and in the session's queue; and on the
    device each run with its steps, named by their ops and by the line of the program. At most ``spans`` of the
    server's are kept, and no server keeps more than 20,000: a few steps are enough. A step's time on a GPU is that of
    its launch.

    Leaving the block waits for all that was sent. Raises VersionMismatch if the server is too old.

    ::

        with tg.profile("trace.json"):
            for x, y in batches[:5]:
                train_step(x, y)
    """
    session = context.current_session()
    session.flush()  # that is not part of it
    found = Timeline(Path(path))
    offset, trip = _aligned(session, spans)
    session.commands.recorder = recorder = Recorder(max(spans, 1))
    try:
        yield found
        session.flush()
    finally:
        session.commands.recorder = None
        if session.is_live:
            told = session.commands.profile(0)
            found.offset_ns, found.round_trip_ns, found.dropped_spans = offset, trip, told.dropped_spans
            about = {"clock_error_us": trip / 2e3, "dropped_spans": told.dropped_spans}
            events = list(_events(session, recorder, told, offset))
            found.path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}))


def _aligned(session: Session, spans: int) -> tuple[int, int]:
    """The server's clock less ours, and the round trip of the answer that says so. The record begins."""
    found: list[tuple[int, int]] = []
    for _ in range(PINGS):
        began = time.perf_counter_ns()
        told = session.commands.profile(max(spans, 1))
        ended = time.perf_counter_ns()
        trip = (ended - began) - (told.answered_ns - told.received_ns)
        found.append((trip, (told.received_ns - began + told.answered_ns - ended) // 2))
    trip, offset = min(found)
    return offset, trip


# ---- Chrome's trace format: X is a span of a thread and nests, b and e begin and end one that may overlap others


def _events(session: Session, recorder: Recorder, told: m.Profiled, offset: int) -> Iterator[dict[str, Any]]:
    start = min([*[s.begin_ns for s in recorder.spans], *[at for _, _, at in recorder.sent.values()]], default=0)

    def at(ns: int) -> float:
        return (ns - start) / 1e3

    for process, name in ((_CLIENT, "client"), (_SERVER, f"server ({session.backend})")):
        yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}
    for process, thread, name in ((_CLIENT, _PROGRAM, "program"), (_SERVER, _DEVICE, "device")):
        yield {"ph": "M", "name": "thread_name", "pid": process, "tid": thread, "args": {"name": name}}
    for s in recorder.spans:
        args: dict[str, Any] = {"line": show(s.line)} | ({"bytes": s.nbytes} if s.nbytes else {})
        yield _span(f"{s.kind} {s.name}".strip(), (_CLIENT, _PROGRAM), at(s.begin_ns), s.end_ns - s.begin_ns, args)
    for s in told.spans:
        begin, end = at(s.begin_ns - offset), at(s.begin_ns + s.nanoseconds - offset)
        args = {"command": s.sequence}
        if s.kind == "queue":
            yield from _overlapping("in the queue", "queue", s.sequence, begin, end, args)
            if s.sequence in recorder.sent:
                name, nbytes, when = recorder.sent[s.sequence]
                wire = args | {"bytes": nbytes}
                yield from _overlapping(f"{name} up", "wire", s.sequence, at(when), max(begin, at(when)), wire)
            continue
        if s.kind == "step":
            line = session.commands.line_of(s.sequence, s.node)
            args["line"] = f"{line} (in the gradient of the op built there)" if s.is_backward else line
        heard = recorder.heard.get(s.sequence)
        if s.kind == "fetch" and heard is not None:
            yield from _overlapping("answer down", "wire", s.sequence, min(end, at(heard)), at(heard), args)
        yield _span(s.name or s.kind, (_SERVER, _DEVICE), begin, s.nanoseconds, args)


def _span(name: str, where: tuple[int, int], at: float, nanoseconds: int, args: dict[str, Any]) -> dict[str, Any]:
    process, thread = where
    return {
        "ph": "X",
        "name": name,
        "pid": process,
        "tid": thread,
        "ts": at,
        "dur": nanoseconds / 1e3,
        "args": args,
    }


def _overlapping(
    name: str, kind: str, sequence: int, begin: float, end: float, args: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    process = _SERVER if kind == "queue" else _CLIENT
    same: dict[str, Any] = {"cat": kind, "name": name, "pid": process, "tid": 0, "id": f"{kind} {sequence} {name}"}
    yield {"ph": "b", "ts": begin, "args": args, **same}
    yield {"ph": "e", "ts": end, **same}
