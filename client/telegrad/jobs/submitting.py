"""`Session.submit`: a function, data and a loop become a spec and checkpoint 0, which the server writes down."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy.typing as npt

from telegrad.datasets import Dataset
from telegrad.errors import GraphError, TelegradError
from telegrad.jobs.counts import count, optional
from telegrad.jobs.job import Job
from telegrad.jobs.tracing import Afterwards, Tracing, as_function
from telegrad.lazy import Handle
from telegrad.session import Session
from telegrad.tensor import Tensor
from telegrad.wire.job_codec import encode_spec
from telegrad.wire.job_spec import (
    Checkpoints,
    DataSource,
    Demand,
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
    validate_every_epochs: int,
    checkpoint_every: int,
    checkpoint_seconds: float,
    keep_checkpoints: int,
    early_stopping: EarlyStopping | None,
    keep_best: KeepBest | None,
    record_every: int,
    on_nonfinite: Any,
    strict: bool,
    backend: str,
    worker: str,
    after_epoch: Sequence[Afterwards] = (),
    after_validation: Sequence[Afterwards] = (),
) -> Job:
    """The job; see `Session.submit`. ``after_epoch`` and ``after_validation`` are called in order."""
    function = as_function(step)
    name = check_name(name or f"{_called(step)}-{secrets.token_hex(3)}", what="a job")
    batch_size = count(batch_size, "batch_size", least=1)
    seed, first_call = (session.seed, session.calls + 1) if seed is None else (count(seed, "seed", least=0), 1)
    loop = Loop(
        batch_size,
        epochs=optional(epochs, "epochs", least=1),
        steps=optional(steps, "steps", least=1),
        shuffle=shuffle,
        shuffle_seed=seed,
        drop_last=drop_last,
    )
    if (validate is None) != (validation_data is None):
        raise GraphError("a validation needs both validate= and validation_data=")
    others = [after.function for after in (*after_epoch, *after_validation)]
    tracing = Tracing(session, [step, *([validate] if validate is not None else []), *others])
    with (
        _kept(session, data, name) as dataset,
        nullcontext() if validation_data is None else _kept(session, validation_data, name) as held_out,
    ):
        calls = tracing.calls(function, dataset.columns, loop.sizes(dataset.rows))
        validation = None
        if validate is not None and held_out is not None:
            sizes = Loop(batch_size, epochs=1).sizes(held_out.rows)
            validating = tracing.calls(as_function(validate), held_out.columns, sizes, prefix=VALIDATION)
            often = count(validate_every_steps, "validate_every_steps", least=0)
            every = (
                Every(often, "steps")
                if often
                else Every(count(validate_every_epochs, "validate_every_epochs", least=1), "epochs")
            )
            validation = Validation(_source(held_out), batch_size, every, validating)
        after, then = tracing.after(after_epoch), tracing.after(after_validation)
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
            after_epoch=after,
            after_validation=then,
            early_stopping=early_stopping,
            keep_best=keep_best,
            checkpoints=Checkpoints(
                every_steps=count(checkpoint_every, "checkpoint_every", least=0),
                every_epochs=0 if is_told else 1,
                every_seconds=float(checkpoint_seconds),
                keep_last=count(keep_checkpoints, "keep_checkpoints", least=1),
            ),
            record_every=count(record_every, "record_every", least=1),
            on_nonfinite=on_nonfinite,
            seed=seed,
            first_call=first_call,
            replicas=getattr(function, "replicas", 1),
            demand=Demand(backend, worker),
            strict=strict,
        )
        return _sent(session, spec, {**tracing.state, **tracing.constants})


@contextmanager
def _kept(session: Session, data: Data, job: str) -> Generator[Dataset]:
    """The dataset; arrays are put as one, under a name that goes once the job is there and holds the rows itself."""
    if isinstance(data, Dataset):
        yield data
        return
    if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise GraphError(
            "the data of a job is a dataset, such as session.datasets['digits'], or arrays by the names of the step's"
            f" arguments, such as {{'x': x, 'y': y}}; not {type(data).__name__}",
            reason="JOB_INVALID",
        )
    name = f"{job[:96]}.{secrets.token_hex(8)}"
    dataset = session.datasets.put(name, data)
    try:
        yield dataset
    finally:
        with suppress(TelegradError):  # a name that stays does no harm
            session.datasets.delete(name)


def _called(step: Step) -> str:
    """What a job is called after its function, whose own name may have other letters than a job's."""
    found = getattr(step, "__name__", "").strip("_<>")
    return found if found.isascii() and found[:1].isalnum() else "job"


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
