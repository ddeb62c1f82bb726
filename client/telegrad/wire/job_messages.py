"""What is said of jobs, as protobuf and back."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from telegrad.wire.jobs import (
    CheckpointHeader,
    CheckpointReport,
    DamagedCheckpoint,
    FirstTensor,
    Fork,
    JobEvent,
    JobInfo,
    JobNews,
    MetricRow,
)
from telegrad.wire.stream import type_from_proto, type_to_proto
from telegrad.wire.v1 import jobs_pb2 as pb


def _time(seconds: float) -> Timestamp:
    found = Timestamp()
    found.FromNanoseconds(round(seconds * 1e9))
    return found


def _seconds(time: Timestamp) -> float:
    return time.ToNanoseconds() / 1e9


def info_to_proto(info: JobInfo) -> pb.JobInfo:
    """A job as a message."""
    return pb.JobInfo(
        id=info.id,
        name=info.name,
        state=info.state,
        reason=info.reason,
        message=info.message,
        line=info.line,
        step=info.step,
        last_step=info.last_step,
        steps_per_epoch=info.steps_per_epoch,
        position=info.position,
        restarts=info.restarts,
        worker=info.worker,
        submit_time=_time(info.submitted_at),
        change_time=_time(info.changed_at),
        live_step=info.live_step,
        steps_per_second=info.steps_per_second,
        live_metrics=info.live_metrics,
        best_metric=info.best_metric,
        best_mode=info.best_mode,
        fingerprint=info.fingerprint,
    )


def info_from_proto(message: pb.JobInfo) -> JobInfo:
    """The job in a message."""
    return JobInfo(
        id=message.id,
        name=message.name,
        state=message.state,
        reason=message.reason,
        message=message.message,
        line=message.line,
        step=message.step,
        last_step=message.last_step,
        steps_per_epoch=message.steps_per_epoch,
        position=message.position,
        restarts=message.restarts,
        worker=message.worker,
        submitted_at=_seconds(message.submit_time),
        changed_at=_seconds(message.change_time),
        live_step=message.live_step,
        steps_per_second=message.steps_per_second,
        live_metrics=dict(message.live_metrics),
        best_metric=message.best_metric,
        best_mode=message.best_mode,
        fingerprint=message.fingerprint,
    )


def news_to_proto(news: JobNews) -> pb.WatchJobResponse:
    """What is new of a job, as a message."""
    events = [
        pb.JobEvent(number=event.number, time=_time(event.at), kind=event.kind, details=event.details)
        for event in news.events
    ]
    rows = [pb.MetricRow(step=r.step, epoch=r.epoch, name=r.name, value=r.value, time_seconds=r.at) for r in news.rows]
    return pb.WatchJobResponse(job=info_to_proto(news.job), events=events, rows=rows)


def news_from_proto(message: pb.WatchJobResponse) -> JobNews:
    """What is new of a job."""
    events = [JobEvent(e.number, _seconds(e.time), e.kind, dict(e.details)) for e in message.events]
    rows = [MetricRow(r.step, r.epoch, r.name, r.value, r.time_seconds) for r in message.rows]
    return JobNews(info_from_proto(message.job), tuple(events), tuple(rows))


def tensor_to_proto(tensor: FirstTensor) -> pb.FirstTensor:
    """A tensor of checkpoint 0 as a message."""
    if tensor.data is not None:
        return pb.FirstTensor(name=tensor.name, data=tensor.data)
    return pb.FirstTensor(name=tensor.name, ticket=tensor.ticket)


def tensor_from_proto(message: pb.FirstTensor) -> FirstTensor:
    """The tensor in a message."""
    return FirstTensor(message.name, message.data if message.HasField("data") else None, message.ticket)


def fork_to_proto(job: str, request_id: str, fork: Fork) -> pb.ForkJobRequest:
    """A request for a fork of a job."""
    return pb.ForkJobRequest(
        job=job,
        request_id=request_id,
        name=fork.name,
        step=fork.step,
        epochs=fork.epochs,
        steps=fork.steps,
        numbers=fork.numbers,
    )


def fork_from_proto(message: pb.ForkJobRequest) -> Fork:
    """What the fork shall be."""
    return Fork(
        name=message.name,
        step=message.step if message.HasField("step") else None,
        epochs=message.epochs if message.HasField("epochs") else None,
        steps=message.steps if message.HasField("steps") else None,
        numbers=dict(message.numbers),
    )


def header_to_proto(header: CheckpointHeader) -> pb.CheckpointHeader:
    """What a checkpoint holds, as a message."""
    tensors = [pb.CheckpointTensor(name=name, type=type_to_proto(type)) for name, type in header.tensors]
    return pb.CheckpointHeader(step=header.step, tensors=tensors, digest=header.digest)


def header_from_proto(message: pb.CheckpointHeader) -> CheckpointHeader:
    """What a checkpoint holds."""
    tensors = tuple([(t.name, type_from_proto(t.type)) for t in message.tensors])
    return CheckpointHeader(message.step, tensors, message.digest)


def report_to_proto(report: CheckpointReport) -> pb.VerifyCheckpointsResponse:
    """What verifying has found, as a message."""
    damaged = [
        pb.DamagedCheckpoint(step=d.step, file=d.file, expected=d.expected, found=d.found, message=d.message)
        for d in report.damaged
    ]
    return pb.VerifyCheckpointsResponse(whole=report.whole, damaged=damaged)


def report_from_proto(message: pb.VerifyCheckpointsResponse) -> CheckpointReport:
    """What verifying has found."""
    damaged = [DamagedCheckpoint(d.step, d.file, d.expected, d.found, d.message) for d in message.damaged]
    return CheckpointReport(tuple(message.whole), tuple(damaged))
