"""What loops say and are told, as protobuf and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from telegrad.errors import GraphError
from telegrad.wire.job_codec import decode_spec, encode_spec
from telegrad.wire.job_spec import JobSpec
from telegrad.wire.v1 import jobs_pb2 as jobs
from telegrad.wire.v1 import loops_pb2 as pb

from telegrad_server.checkpoints.contents import Damage
from telegrad_server.jobs import events as e
from telegrad_server.loops import Assignment, Order, Progress

Said = e.Started | e.Progressed | e.Paused | e.Cancelled | e.Failed | e.Succeeded | e.Lost

MOST_ROWS = 20_000
"""In a message: with the longest names they stay far below what one may hold."""

_READ: dict[str, Callable[[str, int, pb.TellLoopEventRequest], Said]] = {
    "Started": lambda job, number, r: e.Started(job, number, r.step, r.message),
    "Progressed": lambda job, number, r: e.Progressed(job, number, r.step, rows=tuple(map(_row, r.rows))),
    "Paused": lambda job, number, r: e.Paused(job, number, cast("e.Why", r.reason), r.message),
    "Cancelled": lambda job, number, r: e.Cancelled(job, number),
    "Failed": lambda job, number, r: e.Failed(job, number, r.reason, r.message, r.line),
    "Succeeded": lambda job, number, r: e.Succeeded(job, number, r.step, r.is_early),
    "Lost": lambda job, number, r: e.Lost(job, number, cast("e.Loss", r.reason), r.message),
}


def event_to_proto(event: e.Event, who: pb.LoopAssignment) -> list[pb.TellLoopEventRequest]:
    """What a loop says, as a message, and more of them with the rows that it has no room for."""
    assert isinstance(event, Said)
    more: list[pb.TellLoopEventRequest] = []
    said = pb.TellLoopEventRequest(assignment=who, kind=type(event).__name__, message=getattr(event, "message", ""))
    match event:
        case e.Started():
            said.step = event.step
        case e.Progressed():
            said.step = event.step
            said.row_count = len(event.rows)
            said.rows.extend(_rows(event.rows[:MOST_ROWS]))
            for first in range(MOST_ROWS, len(event.rows), MOST_ROWS):
                more.append(pb.TellLoopEventRequest(rows=_rows(event.rows[first : first + MOST_ROWS])))
        case e.Paused() | e.Lost():
            said.reason = event.why
        case e.Failed():
            said.reason, said.line = event.reason, event.line
        case e.Succeeded():
            said.step, said.is_early = event.step, event.is_early
        case e.Cancelled():
            pass
    return [said, *more]


def _rows(rows: Sequence[e.Row]) -> list[jobs.MetricRow]:
    return [jobs.MetricRow(step=r.step, epoch=r.epoch, name=r.name, value=r.value, time_seconds=r.at) for r in rows]


def event_from_proto(message: pb.TellLoopEventRequest) -> Said:
    """What a loop says. GraphError if it is nothing that one may say."""
    read = _READ.get(message.kind)
    if read is None:
        raise GraphError(f"{message.kind!r:.40} is nothing that a loop says", reason="MALFORMED_MESSAGE")
    return read(message.assignment.job, message.assignment.number, message)


def _row(row: jobs.MetricRow) -> e.Row:
    return e.Row(row.step, row.epoch, row.name, row.value, row.time_seconds)


def begin_to_proto(assignment: Assignment) -> pb.WorkShiftResponse:
    """That a job is to be run, as a message."""
    begin = pb.BeginLoop(tenant=assignment.tenant, step=assignment.step, spec=encode_spec(assignment.spec))
    return pb.WorkShiftResponse(job=assignment.job, number=assignment.number, begin=begin)


def order_to_proto(job: str, number: int, order: Order) -> pb.WorkShiftResponse:
    """An order, as a message."""
    message = pb.WorkShiftResponse(job=job, number=number)
    match order:
        case JobSpec():
            message.extend.spec = encode_spec(order)
        case "stop":
            message.stop.SetInParent()
        case "stop_at_checkpoint":
            message.stop_at_checkpoint.SetInParent()
        case "leave":
            message.leave.SetInParent()
    return message


def order_from_proto(message: pb.WorkShiftResponse) -> Assignment | Order | None:
    """What is to be done; None for what a newer gateway says."""
    match message.WhichOneof("order"):
        case "begin":
            begin = message.begin
            return Assignment(message.job, begin.tenant, message.number, begin.step, decode_spec(begin.spec))
        case "extend":
            return decode_spec(message.extend.spec)
        case "stop" | "stop_at_checkpoint" | "leave" as order:
            return cast("Order", order)
        case _:
            return None


def progress_to_proto(assignment: Assignment, progress: Progress) -> pb.LoopProgress:
    """How far a loop has come, as a message."""
    return pb.LoopProgress(
        job=assignment.job,
        number=assignment.number,
        step=progress.step,
        epoch=progress.epoch,
        steps_per_second=progress.steps_per_second,
        values=dict(progress.values),
    )


def progress_from_proto(message: pb.LoopProgress) -> Progress:
    """How far a loop has come."""
    return Progress(message.step, message.epoch, message.steps_per_second, dict(message.values))


def damage_to_proto(damage: Damage) -> pb.PassedOverCheckpoint:
    """A checkpoint that was passed over, as a message."""
    return pb.PassedOverCheckpoint(
        step=damage.step,
        attempt=damage.attempt,
        file=damage.file,
        expected=damage.expected,
        found=damage.found,
        message=damage.message,
    )


def damage_from_proto(message: pb.PassedOverCheckpoint) -> Damage:
    """A checkpoint that was passed over."""
    return Damage(message.step, message.attempt, message.file, message.expected, message.found, message.message)
