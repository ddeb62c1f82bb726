"""A training job as data: functions, the calls of them in a loop over data, and when to stop and to write checkpoints.

A `JobSpec` holds no code: functions come with their bytes, data with a digest, and the variables and constants that a
function needs are tensors of the job's checkpoint 0. With checkpoint 0 and the data it decides the state after any
step, whoever computes it and however often (docs/jobs-inside.md).

Steps are numbered from 1, epochs from 0. ``step`` alone means how many steps have been done: checkpoint 0 is the start.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal as OneOf
from typing import NamedTuple

from telegrad.errors import GraphError
from telegrad.wire.job_calls import (
    Becomes,
    Call,
    Constant,
    JobFunction,
    Measured,
    Scheduled,
    Slot,
    State,
    require,
    require_count,
    require_metric_name,
    require_one_of,
    require_text,
    require_unique,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z", re.ASCII)
"""What a job may be called."""

Mode = OneOf["min", "max"]
Unit = OneOf["steps", "epochs"]


def _unsigned(value: object, what: str) -> None:
    if type(value) is not int or not 0 <= value < 2**64:
        raise GraphError(f"{what} must be an integer from 0 to 2**64 - 1, not {value!r}", reason="JOB_INVALID")


def _finite(value: object, what: str) -> None:
    require(isinstance(value, float) and math.isfinite(value), f"{what} must be a finite float, not {value!r}")


@dataclass(frozen=True, slots=True)
class DataSource:
    """Rows ``first`` to ``first + rows`` of a dataset. The digest decides; the name is for people."""

    name: str
    digest: str
    rows: int
    first: int = 0

    def __post_init__(self) -> None:
        require(NAME.match(self.name) is not None, f"{self.name[:80]!r} cannot be a dataset's name")
        legal = re.fullmatch(r"[0-9a-f]{64}", self.digest) is not None
        require(legal, f"a dataset's digest is 64 hexadecimal digits, not {self.digest[:80]!r}")
        require_count(self.rows, "the rows of the data", least=1)
        require_count(self.first, "the first row of the data", least=0)


class Batch(NamedTuple):
    """What a step trains on: places ``first`` to ``first + rows`` of its epoch's order of rows."""

    epoch: int
    first: int
    rows: int


@dataclass(frozen=True, slots=True)
class Loop:
    """How the data is gone through: for so many epochs, or so many steps; one of them is None."""

    batch_size: int
    epochs: int | None = None
    steps: int | None = None
    shuffle: bool = True
    shuffle_seed: int = 0
    drop_last: bool = False

    def __post_init__(self) -> None:
        require_count(self.batch_size, "batch_size", least=1)
        require((self.epochs is None) != (self.steps is None), "a loop has either epochs or steps; give one of them")
        require_count(1 if self.epochs is None else self.epochs, "epochs", least=1)
        require_count(1 if self.steps is None else self.steps, "steps", least=1)
        _unsigned(self.shuffle_seed, "shuffle_seed")

    def steps_per_epoch(self, rows: int) -> int:
        """How many batches an epoch over so many rows has."""
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def last_step(self, rows: int) -> int:
        """After which step the loop ends."""
        return self.steps if self.steps is not None else (self.epochs or 0) * self.steps_per_epoch(rows)

    def batch(self, step: int, rows: int) -> Batch:
        """The batch of a step; the first is step 1."""
        epoch, number = divmod(step - 1, self.steps_per_epoch(rows))
        first = number * self.batch_size
        return Batch(epoch, first, min(self.batch_size, rows - first))

    def ends_epoch(self, step: int, rows: int) -> bool:
        """Whether an epoch is over after the step."""
        return step > 0 and step % self.steps_per_epoch(rows) == 0

    def sizes(self, rows: int) -> tuple[int, ...]:
        """The sizes of the batches that the loop meets, the full one first."""
        last = min(self.last_step(rows), self.steps_per_epoch(rows))
        return tuple(dict.fromkeys([self.batch(step, rows).rows for step in ((1, last) if last else ())]))


@dataclass(frozen=True, slots=True)
class Every:
    """Every so many steps or epochs."""

    count: int
    unit: Unit

    def __post_init__(self) -> None:
        require_count(self.count, "every", least=1)
        require_one_of(self.unit, "the unit of every", ("steps", "epochs"))

    def is_due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether it is time after the step."""
        period = self.count * (steps_per_epoch if self.unit == "epochs" else 1)
        return step > 0 and step % period == 0


@dataclass(frozen=True, slots=True)
class Validation:
    """All rows of other data, in order, at times and after the last step: a call for each size of batch."""

    data: DataSource
    batch_size: int
    every: Every
    calls: tuple[Call, ...]

    def __post_init__(self) -> None:
        require_count(self.batch_size, "the batch size of validation", least=1)
        _check_sizes(self.calls, Loop(self.batch_size, epochs=1).sizes(self.data.rows), "validation")


def _check_sizes(calls: tuple[Call, ...], sizes: tuple[int, ...], what: str) -> None:
    found = [call.rows for call in calls]
    require(len(set(found)) == len(found), f"{what} has two calls for batches of one size: {found[:8]}")
    missing = [size for size in sizes if size not in found]
    if missing:
        message = f"{what} meets batches of {missing[0]} rows, and has calls for {found[:8]} only"
        raise GraphError(message, reason="JOB_INVALID")
    metrics = {call.metrics for call in calls}
    require(len(metrics) == 1, f"the calls of {what} must record the same metrics, whatever the size of the batch")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A number for each step, or each epoch, computed beforehand. After the last entry the last one holds."""

    name: str
    per: Unit
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        require_metric_name(self.name, "a schedule's name")
        require_one_of(self.per, "the unit of a schedule", ("steps", "epochs"))
        require(len(self.values) > 0, f"the schedule {self.name} has no values")
        require(all(map(math.isfinite, self.values)), f"the schedule {self.name} has a value that is not finite")

    def at(self, step: int, epoch: int) -> float:
        """The number at a step, counted from 1, of an epoch, counted from 0."""
        return self.values[min(step - 1 if self.per == "steps" else epoch, len(self.values) - 1)]


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """End when a metric has not become better by ``min_delta`` for more than ``patience`` reductions of it.

    Reductions at steps up to ``since`` are not held against it: a loop that ended there was told to go on.
    """

    metric: str
    mode: Mode
    patience: int
    min_delta: float = 0.0
    since: int = 0

    def __post_init__(self) -> None:
        require_metric_name(self.metric, "the metric of early stopping")
        require_one_of(self.mode, "the mode of early stopping", ("min", "max"))
        require_count(self.patience, "patience", least=0)
        _finite(self.min_delta, "min_delta")
        require(self.min_delta >= 0, f"min_delta must be at least 0, not {self.min_delta}")
        require_count(self.since, "the step that early stopping counts from", least=0)


@dataclass(frozen=True, slots=True)
class KeepBest:
    """Keep the checkpoint at which a metric was best, besides the last ones; one is written when it becomes better."""

    metric: str
    mode: Mode

    def __post_init__(self) -> None:
        require_metric_name(self.metric, "the metric of the best checkpoint")
        require_one_of(self.mode, "the mode of the best checkpoint", ("min", "max"))


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """When checkpoints are written besides after the last step, and how many are kept. 0: not by this count."""

    every_steps: int = 0
    every_epochs: int = 0
    every_seconds: float = 0.0
    keep_last: int = 2

    def __post_init__(self) -> None:
        require_count(self.every_steps, "every_steps", least=0)
        require_count(self.every_epochs, "every_epochs", least=0)
        _finite(self.every_seconds, "every_seconds")
        require(self.every_seconds >= 0, f"every_seconds must be at least 0, not {self.every_seconds}")
        require_count(self.keep_last, "keep_last", least=1)


@dataclass(frozen=True, slots=True)
class Demand:
    """Where the job should run: "numpy" or "cupy" or either, a worker's name or any, with so much memory free."""

    backend: str = ""
    worker: str = ""
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        require_one_of(self.backend, "the backend", ("", "numpy", "cupy"))
        require(len(self.worker) <= 128, "a worker's name has at most 128 characters")
        require_count(self.memory_bytes, "memory_bytes", least=0)


@dataclass(frozen=True, slots=True)
class Parent:
    """The job and the step that a fork begins with; its first checkpoint has that step's number."""

    job: str
    step: int

    def __post_init__(self) -> None:
        require_text(self.job, "the id of the parent job", most=128)
        require_count(self.step, "the step of the parent", least=0)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A training job. Raises GraphError (JOB_INVALID) with one sentence for what does not fit together.

    ``steps`` has a call for each size of batch. What it records at a step is recorded every ``record_every`` steps.
    ``after_epoch`` and ``after_validation`` are called in order: averaged weights, a plateau schedule. The random
    numbers of call c, counted from 0 over the calls that draw some, are those of (``seed``, ``first_call`` + c).
    ``on_nonfinite`` says what a metric of NaN or infinity does.
    ``strict``: rather wait than go on where the bits would be others.
    """

    name: str
    functions: tuple[JobFunction, ...]
    data: DataSource
    loop: Loop
    steps: tuple[Call, ...]
    state: tuple[Slot, ...]
    constants: tuple[Slot, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    validation: Validation | None = None
    after_epoch: tuple[Call, ...] = ()
    after_validation: tuple[Call, ...] = ()
    early_stopping: EarlyStopping | None = None
    keep_best: KeepBest | None = None
    checkpoints: Checkpoints = Checkpoints(every_epochs=1)
    record_every: int = 1
    on_nonfinite: OneOf["keep", "pause", "fail"] = "fail"
    seed: int = 0
    first_call: int = 0
    replicas: int = 1
    demand: Demand = Demand()
    strict: bool = False
    parent: Parent | None = None

    def __post_init__(self) -> None:
        legal = NAME.match(self.name) is not None
        require(legal, f"{self.name[:80]!r} cannot be a job's name; use letters, digits and . _ -, at most 128")
        batches = self.loop.steps_per_epoch(self.data.rows)
        require(batches > 0, f"{self.data.rows} rows make no batch of {self.loop.batch_size}; use drop_last=False")
        require(len(self.functions) > 0, "a job has at least one function")
        _check_sizes(self.steps, self.loop.sizes(self.data.rows), "the loop")
        require_unique([slot.name for slot in (*self.state, *self.constants)], "a tensor of checkpoint 0")
        require_unique([schedule.name for schedule in self.schedules], "a schedule")
        require(not self.after_validation or self.validation is not None, "after_validation needs a validation")
        require_count(self.record_every, "record_every", least=1)
        require_one_of(self.on_nonfinite, "on_nonfinite", ("keep", "pause", "fail"))
        _unsigned(self.seed, "seed")
        require_count(self.first_call, "first_call", least=0)
        require_count(self.replicas, "replicas", least=1)
        require(self.parent is None or self.parent.step < self.last_step, "a fork must have a step left to do")
        self._check_functions()
        self._check_names()

    def _check_functions(self) -> None:
        """Their order says nothing, so they stand by rising id."""
        found = {f.id: f for f in self.functions}
        require(len(found) == len(self.functions), "a function is there twice")
        called = {call.function for call in self.calls}
        missing, idle = called - found.keys(), found.keys() - called
        require(not missing, f"the bytes of the function {next(iter(missing), b'').hex()[:16]} are missing")
        require(not idle, f"the function {next(iter(idle), b'').hex()[:16]} is never called")
        object.__setattr__(self, "functions", tuple([found[id] for id in sorted(found)]))

    def _check_names(self) -> None:
        state, constants = {slot.name for slot in self.state}, {slot.name for slot in self.constants}
        schedules, metrics = {schedule.name for schedule in self.schedules}, set(self.metric_names)
        own = [call.metrics for calls in self._groups() for call in calls[:1]]
        require_unique([metric.name for group in own for metric in group], "a metric")
        for call in self.calls:
            for x in (*call.inputs, *call.outputs):
                match x:
                    case State() | Becomes():
                        require(x.name in state, f"the variable {x.name!r} is not among the job's state")
                    case Constant():
                        require(x.name in constants, f"the constant {x.name!r} is not among the job's constants")
                    case Scheduled():
                        require(x.name in schedules, f"the schedule {x.name!r} is not among the job's schedules")
                    case Measured():
                        require(x.name in metrics, f"nothing records the metric {x.name!r}")
                    case _:
                        pass
        for call in (*self.after_epoch, *self.after_validation):
            require(call.rows == 0, "a call after an epoch or a validation takes no rows of the data")
        for user in (self.early_stopping, self.keep_best):
            if user is not None:
                recorded = ", ".join(sorted(metrics))
                require(user.metric in metrics, f"nothing records the metric {user.metric!r}; there are {recorded}")

    def _groups(self) -> list[tuple[Call, ...]]:
        """Calls of one kind: of the second and later of a kind only the size of the batch differs."""
        validation = self.validation.calls if self.validation is not None else ()
        return [self.steps, validation, *[(call,) for call in (*self.after_epoch, *self.after_validation)]]

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call."""
        return tuple([call for group in self._groups() for call in group])

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What is recorded."""
        return tuple(dict.fromkeys([metric.name for call in self.calls for metric in call.metrics]))

    @property
    def last_step(self) -> int:
        """After which step the loop ends, if nothing ends it earlier."""
        return self.loop.last_step(self.data.rows)

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """The data that it needs."""
        return (self.data, *([self.validation.data] if self.validation is not None else []))

    @property
    def first_step(self) -> int:
        """The number of its first checkpoint: 0, or that of the step which it was forked at."""
        return self.parent.step if self.parent is not None else 0
