"""A `JobSpec` to its canonical bytes and back. Equal specs have equal bytes, whose SHA-256 is the spec's digest."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from telegrad.errors import GraphError
from telegrad.wire import job_calls as c
from telegrad.wire import job_spec as j
from telegrad.wire.stream import type_from_proto, type_to_proto
from telegrad.wire.v1 import job_spec_pb2 as pb
from telegrad.wire.v1 import sessions_pb2

VERSION = 1
MAX_PARTS = 1_000_000  # inputs, results, slots and numbers of schedules together

K = TypeVar("K")

_UNITS: dict[j.Unit, int] = {"steps": pb.UNIT_STEPS, "epochs": pb.UNIT_EPOCHS}
_BETTER: dict[j.Mode, int] = {"min": pb.BETTER_SMALLER, "max": pb.BETTER_LARGER}
_NONFINITE: dict[Any, int] = {
    "keep": pb.ON_NON_FINITE_KEEP,
    "pause": pb.ON_NON_FINITE_PAUSE,
    "fail": pb.ON_NON_FINITE_FAIL,
}
_REDUCTIONS: dict[c.Reduce, int] = {
    "mean": pb.REDUCTION_MEAN,
    "sum": pb.REDUCTION_SUM,
    "min": pb.REDUCTION_SMALLEST,
    "max": pb.REDUCTION_LARGEST,
    "last": pb.REDUCTION_LAST,
}


def spec_digest(data: bytes) -> str:
    """The digest of a spec, from its canonical bytes."""
    return hashlib.sha256(data).hexdigest()


# ---- to bytes


def encode_spec(spec: j.JobSpec) -> bytes:
    """The canonical bytes."""
    message = pb.JobSpec(
        version=VERSION,
        name=spec.name,
        functions=[_function(f) for f in spec.functions],
        data=_source(spec.data),
        loop=pb.Loop(
            batch_size=spec.loop.batch_size,
            epochs=spec.loop.epochs,
            steps=spec.loop.steps,
            shuffle=spec.loop.shuffle,
            shuffle_seed=spec.loop.shuffle_seed,
            drop_last=spec.loop.drop_last,
        ),
        steps=[_call(x) for x in spec.steps],
        state=[pb.Slot(name=s.name, type=type_to_proto(s.type)) for s in spec.state],
        constants=[pb.Slot(name=s.name, type=type_to_proto(s.type)) for s in spec.constants],
        schedules=[_schedule(s) for s in spec.schedules],
        after_epoch=[_call(x) for x in spec.after_epoch],
        after_validation=[_call(x) for x in spec.after_validation],
        checkpoints=pb.Checkpoints(
            every_steps=spec.checkpoints.every_steps,
            every_epochs=spec.checkpoints.every_epochs,
            every_seconds=spec.checkpoints.every_seconds,
            keep_last=spec.checkpoints.keep_last,
        ),
        record_every=spec.record_every,
        on_nonfinite=_NONFINITE[spec.on_nonfinite],  # type: ignore[arg-type]
        seed=spec.seed,
        first_call=spec.first_call,
        replicas=spec.replicas,
        demand=sessions_pb2.Demand(
            backend=spec.demand.backend, worker=spec.demand.worker, memory_bytes=spec.demand.memory_bytes
        ),
        strict=spec.strict,
    )
    if spec.validation is not None:
        v = spec.validation
        message.validation.CopyFrom(
            pb.Validation(
                data=_source(v.data),
                batch_size=v.batch_size,
                every=pb.Every(count=v.every.count, unit=_UNITS[v.every.unit]),  # type: ignore[arg-type]
                calls=[_call(x) for x in v.calls],
            )
        )
    if spec.early_stopping is not None:
        e = spec.early_stopping
        message.early_stopping.CopyFrom(
            pb.EarlyStopping(
                metric=e.metric,
                better=_BETTER[e.mode],  # type: ignore[arg-type]
                patience=e.patience,
                min_delta=e.min_delta,
                since=e.since,
            )
        )
    if spec.keep_best is not None:
        best = pb.KeepBest(metric=spec.keep_best.metric, better=_BETTER[spec.keep_best.mode])  # type: ignore[arg-type]
        message.keep_best.CopyFrom(best)
    if spec.parent is not None:
        message.parent.CopyFrom(pb.ForkParent(job=spec.parent.job, step=spec.parent.step))
    return message.SerializeToString(deterministic=True)


def _function(function: c.JobFunction) -> pb.JobFunction:
    files: dict[str, int] = {}
    for line in function.lines:
        if line is not None:
            files.setdefault(line.file, len(files) + 1)
    return pb.JobFunction(
        data=function.data,
        files=list(files),
        node_files=[files[line.file] if line is not None else 0 for line in function.lines],
        node_lines=[line.number if line is not None else 0 for line in function.lines],
    )


def _source(data: j.DataSource) -> pb.DataSource:
    return pb.DataSource(name=data.name, digest=data.digest, rows=data.rows, first=data.first)


def _schedule(schedule: j.Schedule) -> pb.Schedule:
    values = np.asarray(schedule.values, dtype="<f8").tobytes()
    return pb.Schedule(name=schedule.name, per=_UNITS[schedule.per], values=values)  # type: ignore[arg-type]


def _call(call: c.Call) -> pb.Call:
    return pb.Call(
        function=call.function,
        rows=call.rows,
        inputs=[_input(x) for x in call.inputs],
        outputs=[_output(x) for x in call.outputs],
    )


def _input(source: c.Input) -> pb.CallInput:
    match source:
        case c.Column():
            return pb.CallInput(column=source.name)
        case c.State():
            return pb.CallInput(state=source.name)
        case c.Constant():
            return pb.CallInput(constant=source.name)
        case c.RandomKey():
            return pb.CallInput(key=pb.RandomKey())
        case c.Scheduled():
            return pb.CallInput(schedule=source.name)
        case c.Measured():
            return pb.CallInput(metric=source.name)
        case c.Literal():
            return pb.CallInput(literal=source.data, name=source.name)


def _output(target: c.Output) -> pb.CallOutput:
    match target:
        case c.Metric():
            reduction = _REDUCTIONS[target.reduce]
            metric = pb.MetricOutput(name=target.name, reduction=reduction, over=target.over)  # type: ignore[arg-type]
            return pb.CallOutput(metric=metric)
        case c.Becomes():
            return pb.CallOutput(state=target.name)
        case None:
            return pb.CallOutput()


# ---- from bytes


def decode_spec(data: bytes) -> j.JobSpec:
    """The spec in ``data``. GraphError with one sentence for anything that is not a legal one in canonical bytes."""
    message = pb.JobSpec()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise GraphError("the job's bytes are no JobSpec message", reason="MALFORMED_MESSAGE") from error
    c.require(
        message.version == VERSION, f"job encoding {message.version} is not known here; this side speaks {VERSION}"
    )
    c.require(_parts(message) <= MAX_PARTS, f"the job has more than {MAX_PARTS} inputs, results, tensors and numbers")
    for part in ("data", "loop", "checkpoints", "demand"):
        c.require(message.HasField(part), f"the job says nothing of its {part}")  # type: ignore[arg-type]
    spec = _decoded(message)
    canonical = encode_spec(spec) == data
    c.require(canonical, "the job says what is not known here, or not in canonical bytes; use a client of this version")
    return spec


def _parts(message: pb.JobSpec) -> int:
    calls = [*message.steps, *message.validation.calls, *message.after_epoch, *message.after_validation]
    numbers = sum(len(s.values) // 8 for s in message.schedules)
    return sum(len(x.inputs) + len(x.outputs) for x in calls) + len(message.state) + len(message.constants) + numbers


def _decoded(m: pb.JobSpec) -> j.JobSpec:
    validation = early = best = parent = None
    if m.HasField("validation"):
        v = m.validation
        every = j.Every(v.every.count, _known(_UNITS, v.every.unit, "unit"))
        validation = j.Validation(_source_of(v.data), v.batch_size, every, tuple([_call_of(x) for x in v.calls]))
    if m.HasField("early_stopping"):
        e = m.early_stopping
        early = j.EarlyStopping(e.metric, _known(_BETTER, e.better, "better"), e.patience, e.min_delta, e.since)
    if m.HasField("keep_best"):
        best = j.KeepBest(m.keep_best.metric, _known(_BETTER, m.keep_best.better, "better"))
    if m.HasField("parent"):
        parent = j.Parent(m.parent.job, m.parent.step)
    end = m.loop.WhichOneof("end")
    kept = m.checkpoints
    return j.JobSpec(
        name=m.name,
        functions=tuple([_function_of(f) for f in m.functions]),
        data=_source_of(m.data),
        loop=j.Loop(
            m.loop.batch_size,
            epochs=m.loop.epochs if end == "epochs" else None,
            steps=m.loop.steps if end == "steps" else None,
            shuffle=m.loop.shuffle,
            shuffle_seed=m.loop.shuffle_seed,
            drop_last=m.loop.drop_last,
        ),
        steps=tuple([_call_of(call) for call in m.steps]),
        state=tuple([_slot(s) for s in m.state]),
        constants=tuple([_slot(s) for s in m.constants]),
        schedules=tuple([_schedule_of(s) for s in m.schedules]),
        validation=validation,
        after_epoch=tuple([_call_of(call) for call in m.after_epoch]),
        after_validation=tuple([_call_of(call) for call in m.after_validation]),
        early_stopping=early,
        keep_best=best,
        checkpoints=j.Checkpoints(kept.every_steps, kept.every_epochs, kept.every_seconds, kept.keep_last),
        record_every=m.record_every,
        on_nonfinite=_known(_NONFINITE, m.on_nonfinite, "on_nonfinite"),
        seed=m.seed,
        first_call=m.first_call,
        replicas=m.replicas,
        demand=j.Demand(m.demand.backend, m.demand.worker, m.demand.memory_bytes),
        strict=m.strict,
        parent=parent,
    )


def _known(table: dict[K, int], number: int, what: str) -> K:
    found = next((word for word, n in table.items() if n == number), None)
    if found is None:
        raise GraphError(f"{what} {number} of the job is not known here", reason="JOB_INVALID")
    return found


def _function_of(f: pb.JobFunction) -> c.JobFunction:
    c.require(len(f.node_files) == len(f.node_lines), "a function's lines do not fit its files")
    c.require(max(f.node_files, default=0) <= len(f.files), "a function's lines name a file that is not there")
    pairs = zip(f.node_files, f.node_lines, strict=True)
    return c.JobFunction(f.data, tuple([c.Line(f.files[i - 1], number) if i else None for i, number in pairs]))


def _source_of(d: pb.DataSource) -> j.DataSource:
    return j.DataSource(d.name, d.digest, d.rows, d.first)


def _slot(s: pb.Slot) -> c.Slot:
    return c.Slot(s.name, type_from_proto(s.type))


def _schedule_of(s: pb.Schedule) -> j.Schedule:
    c.require(len(s.values) % 8 == 0, f"the schedule {s.name[:80]!r} is not made of float64 numbers")
    return j.Schedule(s.name, _known(_UNITS, s.per, "unit"), tuple(np.frombuffer(s.values, dtype="<f8").tolist()))


def _call_of(call: pb.Call) -> c.Call:
    inputs, outputs = [_input_of(x) for x in call.inputs], [_output_of(x) for x in call.outputs]
    return c.Call(call.function, call.rows, tuple(inputs), tuple(outputs))


def _input_of(x: pb.CallInput) -> c.Input:
    match x.WhichOneof("source"):
        case "column":
            return c.Column(x.column)
        case "state":
            return c.State(x.state)
        case "constant":
            return c.Constant(x.constant)
        case "key":
            return c.RandomKey()
        case "schedule":
            return c.Scheduled(x.schedule)
        case "metric":
            return c.Measured(x.metric)
        case "literal":
            return c.Literal(x.literal, x.name)
        case _:
            raise GraphError("an input of a call comes from nowhere that is known here", reason="JOB_INVALID")


def _output_of(x: pb.CallOutput) -> c.Output:
    match x.WhichOneof("target"):
        case "metric":
            return c.Metric(x.metric.name, _known(_REDUCTIONS, x.metric.reduction, "reduction"), x.metric.over)
        case "state":
            return c.Becomes(x.state)
        case _:
            return None
