"""`Session.submit`: a function, data and a loop become a spec and checkpoint 0, which the server writes down."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from telegrad.datasets import Dataset
from telegrad.errors import GraphError
from telegrad.jobs.job import Job
from telegrad.jobs.tracing import Tracing, as_function
from telegrad.lazy import Handle
from telegrad.session import Session
from telegrad.tensor import Tensor
from telegrad.wire.job_codec import encode_spec
from telegrad.wire.job_spec import (
    Checkpoints,
    DataSource,
    EarlyStopping,
    Every,
    JobSpec,
    KeepBest,
    Loop,
    Validation,
)
from telegrad.wire.jobs import FirstTensor
from telegrad.wire.naming import check_name

Data = Dataset | Mapping[str, npt.ArrayLike | Tensor]
Step = Callable[..., Any]
VALIDATION = "val/"
"""What the names of a validation's metrics begin with."""


def submit(
    session: Session,
    step: Step,
    *,
    data: Data,
    batch_size: int,
    epochs: int | None,
    steps: int | None,
    name: str | None,
    shuffle: bool,
    seed: int | None,
    drop_last: bool,
    validate: Step | None,
    validation_data: Data | None,
    validate_every_steps: int,
    checkpoint_every: int,
    checkpoint_seconds: float,
    keep_checkpoints: int,
    early_stopping: EarlyStopping | None,
    keep_best: KeepBest | None,
    record_every: int,
    on_nonfinite: Any,
    strict: bool,
) -> Job:
    """The job; see `Session.submit`."""
    function = as_function(step)
    name = check_name(name or f"{getattr(step, '__name__', 'job').strip('_<>')}-{secrets.token_hex(3)}", what="a job")
    dataset = _dataset(session, data, f"{name}.data")
    loop = Loop(
        batch_size,
        epochs=epochs if steps is None else None,
        steps=steps,
        shuffle=shuffle,
        shuffle_seed=session.seed if seed is None else seed,
        drop_last=drop_last,
    )
    tracing = Tracing(session, [step, *([validate] if validate is not None else [])])
    calls = tracing.calls(function, dataset.columns, loop.sizes(dataset.rows))
    validation = None
    if validate is not None or validation_data is not None:
        if validate is None or validation_data is None:
            raise GraphError("a validation needs both validate= and validation_data=")
        held_out = _dataset(session, validation_data, f"{name}.validation")
        sizes = Loop(batch_size, epochs=1).sizes(held_out.rows)
        validating = tracing.calls(as_function(validate), held_out.columns, sizes, prefix=VALIDATION)
        every = Every(validate_every_steps, "steps") if validate_every_steps else Every(1, "epochs")
        validation = Validation(_source(held_out), batch_size, every, validating)
    state, constants = tracing.slots
    is_told = checkpoint_every or checkpoint_seconds
    spec = JobSpec(
        name=name,
        functions=tuple(tracing.functions.values()),
        data=_source(dataset),
        loop=loop,
        steps=calls,
        state=state,
        constants=constants,
        validation=validation,
        early_stopping=early_stopping,
        keep_best=keep_best,
        checkpoints=Checkpoints(
            every_steps=checkpoint_every,
            every_epochs=0 if is_told else 1,
            every_seconds=float(checkpoint_seconds),
            keep_last=keep_checkpoints,
        ),
        record_every=record_every,
        on_nonfinite=on_nonfinite,
        seed=session.seed if seed is None else seed,
        first_call=session.calls + 1 if seed is None else 1,
        replicas=getattr(function, "replicas", 1),
        strict=strict,
    )
    return _sent(session, spec, {**tracing.state, **tracing.constants})


def _dataset(session: Session, data: Data, name: str) -> Dataset:
    return data if isinstance(data, Dataset) else session.datasets.put(name, data)


def _source(dataset: Dataset) -> DataSource:
    return DataSource(dataset.name, dataset.digest, dataset.rows)


def _sent(session: Session, spec: JobSpec, tensors: Mapping[str, Tensor]) -> Job:
    """Submit with what the tensors are at this point of the program."""
    commands, calls = session.commands, session.commands.connection.jobs

    def handles() -> list[Handle]:
        session.flush()
        return [session.handle_of(tensor) for tensor in tensors.values()]

    answers = commands.ask_all(handles)
    try:
        first = [
            FirstTensor(name, None if answer.data is None else bytes(answer.data), answer.ticket)
            for name, answer in zip(tensors, answers, strict=True)
        ]
        return Job(calls, calls.submit(secrets.token_hex(16), encode_spec(spec), first))
    finally:
        commands.dismiss(answers)
