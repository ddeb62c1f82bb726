"""Going on from a checkpoint in another way: a fork is a new job, a rewound job goes back to one of its own.

A checkpoint that is gone on from must not be taken away meanwhile by the training that it is of, whose older
checkpoints go as newer ones come: it is pinned before it is looked at. That of a rewound job stays pinned until the
checkpoints after it have been discarded, for then it is the newest.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from telegrad.errors import GraphError, NotFound
from telegrad.ir import types
from telegrad.ir.types import Type
from telegrad.wire.job_calls import Call, Input, Literal
from telegrad.wire.job_spec import JobSpec, Parent
from telegrad.wire.jobs import Fork

from telegrad_server.checkpoints import CheckpointStore, Manifest, Named
from telegrad_server.intake import Intake
from telegrad_server.jobs import events as e
from telegrad_server.jobs.job import Job
from telegrad_server.ledger import Ledger

NUMBER = Type((), types.float64)


class Forking:
    """Makes forks, and lets jobs go back."""

    def __init__(self, ledger: Ledger, store: CheckpointStore, intake: Intake) -> None:
        self._ledger, self._store, self._intake = ledger, store, intake

    def fork(self, parent: Job, spec: JobSpec, fork: Fork, request_id: str) -> str:
        """The id of the new job, or of that which the same request has made before.

        NotFound or DataCorrupt for the checkpoint, GraphError (JOB_INVALID), JobError (JOB_NAME_TAKEN), QuotaExceeded,
        StorageFull.
        """
        asked = _digest("fork", parent.id, fork.name, fork.step, fork.epochs, fork.steps, sorted(fork.numbers.items()))
        known = self._ledger.earlier(parent.tenant, request_id, asked)
        if known is not None:
            return known.id
        step = self._newest(parent) if fork.step is None else fork.step
        with self._store.pinned(parent.id, step):
            manifest, tensors = self._store.read(parent.id, step)
            forked = forked_spec(spec, parent.id, step, fork)
            draft = replace(manifest, metrics=_own_best(manifest))
            tensors = with_rates(tensors, fork.numbers)
            return self._intake.take(parent.tenant, forked, draft, tensors, request_id=request_id, asked=asked)

    def _newest(self, job: Job) -> int:
        known = [step for step in self._store.steps(job.id) if step <= job.step]
        if not known:
            raise NotFound(f"the job {job.name} has no checkpoint to go on from")
        return known[-1]

    def rewind(self, job: Job, step: int, request_id: str) -> None:
        """Let a job go back to a checkpoint of its own. NotFound or DataCorrupt for that, JobError.

        Who carries out the `Discard` that follows says `discarded`.
        """
        asked = _digest("rewind", job.id, step)
        if self._ledger.earlier(job.tenant, request_id, asked) is not None:
            return
        self._store.pin(job.id, step)
        is_told = False
        try:
            self._store.read(job.id, step)
            is_told = bool(self._ledger.tell(e.Rewound(job.id, step, request_id=request_id, request_digest=asked)))
        finally:
            if not is_told:
                self._store.unpin(job.id, step)

    def discard(self, command: e.Discard) -> None:
        """Take away the checkpoints of an earlier timeline; the newest that is left needs no pin any more."""
        self._store.rewind(command.job, command.step)
        self._store.unpin(command.job, command.step)


def _digest(*asked: object) -> str:
    """The same for the same request."""
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def forked_spec(spec: JobSpec, parent: str, step: int, fork: Fork) -> JobSpec:
    """The fork's spec: the parent's with another end and other numbers. GraphError (JOB_INVALID)."""
    loop = spec.loop
    if fork.epochs is not None or fork.steps is not None:
        loop = replace(loop, epochs=fork.epochs, steps=fork.steps)
    _check_numbers(spec, fork.numbers)
    validation, early = spec.validation, spec.early_stopping

    def calls(group: tuple[Call, ...]) -> tuple[Call, ...]:
        return tuple([replace(call, inputs=tuple([_number(x, fork.numbers) for x in call.inputs])) for call in group])

    return replace(
        spec,
        name=fork.name,
        parent=Parent(parent, step),
        loop=loop,
        steps=calls(spec.steps),
        after_epoch=calls(spec.after_epoch),
        after_validation=calls(spec.after_validation),
        validation=None if validation is None else replace(validation, calls=calls(validation.calls)),
        schedules=tuple(
            [replace(s, values=(float(fork.numbers[s.name]),)) if s.name in fork.numbers else s for s in spec.schedules]
        ),
        early_stopping=None if early is None else replace(early, since=max(step, early.since)),
    )


def _number(source: Input, numbers: Mapping[str, float]) -> Input:
    if isinstance(source, Literal) and source.name in numbers:
        return Literal(np.float64(numbers[source.name]).tobytes(), source.name)
    return source


def numbers_of(spec: JobSpec) -> dict[str, float | None]:
    """The numbers that a fork may change, by name; None for what is not one number for the whole job."""
    found: dict[str, float | None] = {}
    for literal in [x for call in spec.calls for x in call.inputs if isinstance(x, Literal) and x.name]:
        value = float(np.frombuffer(literal.data, "<f8")[0]) if len(literal.data) == NUMBER.nbytes else None
        found[literal.name] = value if found.get(literal.name, value) == value else None
    for schedule in spec.schedules:
        found[schedule.name] = schedule.values[0] if len(schedule.values) == 1 else None
    rates = [option for slot in spec.state if slot.type == NUMBER and (option := _option(slot.name))]
    return {**found, **dict.fromkeys(rates)}


def _check_numbers(spec: JobSpec, numbers: Mapping[str, float]) -> None:
    known = numbers_of(spec)
    for name, value in numbers.items():
        if name not in known:
            raise GraphError(
                f"the job {spec.name} has no number {name!r} that a fork could change; it has"
                f" {', '.join(sorted(known)) or 'none'}, and a schedule of the step is part of its graph",
                reason="JOB_INVALID",
            )
        if not math.isfinite(value):
            raise GraphError(f"{name} must be a finite number, not {value}", reason="JOB_INVALID")


def _option(slot: str) -> str:
    """The option that a variable decides as the rate of a plateau schedule; empty for any other variable."""
    found = re.search(r"\.groups\.\d+\.(\w+)\.rate\Z", slot)
    return found[1] if found is not None else ""


def with_rates(tensors: Iterator[Named], numbers: Mapping[str, float]) -> Iterator[Named]:
    """The tensors, with the rates of plateau schedules that were given another number."""
    for name, type, data in tensors:
        if type == NUMBER and _option(name) in numbers:
            yield name, type, memoryview(np.float64(numbers[_option(name)]).tobytes())
        else:
            yield name, type, data


def _own_best(manifest: Manifest) -> dict[str, float]:
    """What the loop knows, but for the best checkpoint, which the fork has only if it begins with it."""
    is_best = manifest.metrics.get("best_step") == manifest.step
    return {**manifest.metrics, **({} if is_best else {"best": math.nan, "best_step": -1.0})}
