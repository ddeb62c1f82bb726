"""The calls of a job: where each input of a function comes from, and what becomes of each result.

A call refers to nothing in the client: what it needs is a column of the data, a tensor of the checkpoint, or bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal as OneOf

from telegrad.errors import GraphError
from telegrad.ir.types import Type

METRIC = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}\Z", re.ASCII)
"""What a metric or a schedule may be called."""

MOST = 2**53
"""Bounds every count, so that numbers mean the same in every language."""

Reduce = OneOf["mean", "sum", "min", "max", "last"]


def require(condition: bool, message: str) -> None:
    """GraphError (JOB_INVALID) with the message unless the condition holds."""
    if not condition:
        raise GraphError(message, reason="JOB_INVALID")


def require_count(value: object, what: str, *, least: int) -> None:
    """Only an integer from ``least`` to `MOST` passes."""
    if type(value) is not int or not least <= value <= MOST:
        raise GraphError(f"{what} must be an integer from {least} to {MOST}, not {value!r}", reason="JOB_INVALID")


def require_text(value: str, what: str, *, most: int = 512) -> None:
    """Only printable text of 1 to ``most`` characters passes."""
    legal = 0 < len(value) <= most and value.isprintable()
    require(legal, f"{what} must be 1 to {most} printable characters, not {value[:80]!r}")


def require_metric_name(value: str, what: str) -> None:
    """Only what a metric or a schedule may be called passes."""
    require(METRIC.match(value) is not None, f"{what} {value[:80]!r} must be letters, digits and _ . / -, at most 128")


def require_one_of(value: object, what: str, known: tuple[str, ...]) -> None:
    """Only one of the words passes."""
    require(value in known, f"{what} must be one of {', '.join(map(repr, known))}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Column:
    """The batch's rows of a column of the data."""

    name: str

    def __post_init__(self) -> None:
        require_text(self.name, "a column's name")


@dataclass(frozen=True, slots=True)
class State:
    """A variable as it is now."""

    name: str

    def __post_init__(self) -> None:
        require_text(self.name, "a variable's name")


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that never changes."""

    name: str

    def __post_init__(self) -> None:
        require_text(self.name, "a constant's name")


@dataclass(frozen=True, slots=True)
class RandomKey:
    """The key of a call's random numbers, uint32[4]: of the job's seed and the call's number."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The number that a schedule has at this step, float64[]."""

    name: str

    def __post_init__(self) -> None:
        require_metric_name(self.name, "a schedule's name")


@dataclass(frozen=True, slots=True)
class Measured:
    """The value of a metric when it was last reduced, float64[]; NaN before. What a plateau schedule looks at."""

    name: str

    def __post_init__(self) -> None:
        require_metric_name(self.name, "a metric's name")


@dataclass(frozen=True, slots=True)
class Literal:
    """These bytes, little-endian, C order. ``name`` is what the program calls a number, such as "lr"."""

    data: bytes
    name: str = ""

    def __post_init__(self) -> None:
        if self.name:
            require_metric_name(self.name, "a number's name")


Input = Column | State | Constant | RandomKey | Scheduled | Measured | Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """A result that is one number to be recorded. Over an epoch or a validation it is reduced; a mean is weighted by
    rows. ``over`` names another metric of the call: what is recorded is then the quotient of the two sums."""

    name: str
    reduce: Reduce = "mean"
    over: str = ""

    def __post_init__(self) -> None:
        require_metric_name(self.name, "a metric's name")
        require_one_of(self.reduce, "reduce", ("mean", "sum", "min", "max", "last"))
        require(not self.over or self.reduce == "sum", f"the metric {self.name} is a quotient of sums: reduce it so")


@dataclass(frozen=True, slots=True)
class Becomes:
    """A result that is the variable's next value, where the function itself does not say so: a gradient that stays."""

    name: str

    def __post_init__(self) -> None:
        require_text(self.name, "a variable's name")


Output = Metric | Becomes | None
"""None: nobody wants the result, as is so for the next version of a variable that the function updates itself."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function, by id. ``rows`` is the size of the batch that it was traced for; 0: it takes no column."""

    function: bytes
    rows: int
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]

    def __post_init__(self) -> None:
        require(len(self.function) == 32, f"a function's id has 32 bytes, not {len(self.function)}")
        require_count(self.rows, "the rows of a call", least=0)
        columns = [x.name for x in self.inputs if isinstance(x, Column)]
        require(not columns or self.rows > 0, f"a call that takes the column {columns[:1]} needs rows of at least 1")
        require_unique([x.name for x in self.outputs if isinstance(x, Metric)], "a call's metric")
        require_unique([x.name for x in self.outputs if isinstance(x, Becomes)], "a variable that a call makes")
        sums = [metric.name for metric in self.metrics if metric.reduce == "sum" and not metric.over]
        for metric in self.metrics:
            fits = not metric.over or metric.over in sums
            require(fits, f"the metric {metric.name} is over {metric.over}, which is no sum of the same call")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What it records, in order."""
        return tuple([x for x in self.outputs if isinstance(x, Metric)])


def require_unique(names: Sequence[str], what: str) -> None:
    """Only names that differ pass."""
    seen: set[str] = set()
    for name in names:
        require(name not in seen, f"{what} is there twice: {name!r}")
        seen.add(name)


@dataclass(frozen=True, slots=True)
class Line:
    """A file and a line of the user's program."""

    file: str
    number: int


@dataclass(frozen=True, slots=True)
class JobFunction:
    """A function's bytes, and the user's line of each of its nodes, as far as known, so that an error can name it."""

    data: bytes
    lines: tuple[Line | None, ...] = ()

    @property
    def id(self) -> bytes:
        """The SHA-256 of its bytes."""
        return hashlib.sha256(self.data).digest()


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of checkpoint 0: a variable, or a constant."""

    name: str
    type: Type

    def __post_init__(self) -> None:
        require_text(self.name, "a tensor's name")
