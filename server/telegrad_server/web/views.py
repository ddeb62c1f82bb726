"""What is known, as JSON for the page: pure. Numbers that JSON has no word for are words: "NaN", "Infinity"."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from telegrad.wire.datasets import Description
from telegrad.wire.jobs import JobEvent, JobInfo, MetricRow

from telegrad_server.sights import SessionSight
from telegrad_server.web.sources import Device

Json = Any
"""What `json.dumps` takes."""


def encoded(value: Json) -> bytes:
    """JSON, compact."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def number(value: float) -> float | str:
    """A number, or the word for one that is not finite."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def job(info: JobInfo) -> dict[str, Json]:
    """How a job stands."""
    return {
        "id": info.id,
        "name": info.name,
        "state": info.state,
        "reason": info.reason,
        "message": info.message,
        "line": info.line,
        "step": info.step,
        "last_step": info.last_step,
        "steps_per_epoch": info.steps_per_epoch,
        "position": info.position,
        "restarts": info.restarts,
        "worker": info.worker,
        "submitted_at": info.submitted_at,
        "changed_at": info.changed_at,
        "live_step": info.live_step,
        "steps_per_second": number(info.steps_per_second),
        "live_metrics": {name: number(value) for name, value in info.live_metrics.items()},
    }


def event(found: JobEvent) -> dict[str, Json]:
    """Something that happened to a job."""
    return {"number": found.number, "at": found.at, "kind": found.kind, "details": dict(found.details)}


def series(rows: Iterable[MetricRow]) -> dict[str, dict[str, list[Json]]]:
    """Metrics by name, in columns."""
    found: dict[str, dict[str, list[Json]]] = {}
    for row in rows:
        columns = found.setdefault(row.name, {"step": [], "epoch": [], "value": []})
        columns["step"].append(row.step)
        columns["epoch"].append(row.epoch)
        columns["value"].append(number(row.value))
    return found


def numbers(found: Mapping[str, float | None]) -> dict[str, Json]:
    """What a fork may change, by name."""
    return {"numbers": {name: None if value is None else number(value) for name, value in found.items()}}


def device(found: Device) -> dict[str, Json]:
    """A device and what is on it."""
    return {
        "worker": found.worker,
        "state": found.state,
        "backend": found.backend,
        "machine": found.machine,
        "memory_bytes": found.memory_bytes,
        "used_bytes": found.used_bytes,
        "tensor_bytes": found.tensor_bytes,
        "own_bytes": found.own_bytes,
        "sessions": found.sessions,
        "busy_seconds": round(found.busy_seconds, 3),
        "fingerprint": found.fingerprint,
    }


def session(worker: str, found: SessionSight) -> dict[str, Json]:
    """A session, where it is at home, and its scopes."""
    return {
        "id": found.id,
        "worker": worker,
        "is_job": found.is_job,
        "is_attached": found.is_attached,
        "lease_seconds": found.lease_seconds,
        "heard_seconds": round(found.heard_seconds, 1),
        "tensors": found.tensors,
        "bytes": found.bytes,
        "queued": found.queued,
        "scopes": [
            {"scope": s.scope, "parent": s.parent, "tensors": s.tensors, "bytes": s.bytes} for s in found.scopes
        ],
        "hidden_scopes": found.hidden_scopes,
    }


def dataset(found: Description) -> dict[str, Json]:
    """A dataset and its columns."""
    return {
        "name": found.name,
        "digest": found.digest,
        "rows": found.rows,
        "bytes": found.bytes,
        "source": "registered" if found.source else "put",
        "columns": [{"name": column.name, "type": str(column.row)} for column in found.columns],
    }


def job_page(info: JobInfo, checkpoints: Sequence[int], events: Sequence[JobEvent]) -> dict[str, Json]:
    """A job, its checkpoints, and what is new of its events."""
    return {"job": job(info), "checkpoints": list(checkpoints), "events": [event(found) for found in events]}


def job_list(jobs: Sequence[JobInfo], curves: Mapping[str, Sequence[float]], *, total: int) -> dict[str, Json]:
    """Jobs with their small curves."""
    return {
        "jobs": [{**job(info), "spark": [float(f"{v:.4g}") for v in curves.get(info.id, ())]} for info in jobs],
        "total": total,
    }
