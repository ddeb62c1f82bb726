"""A traced function as calls of a job: its sources become columns, variables, constants, keys and bytes.

What the client would be asked for at every call is data here: a number of an optimizer's is what it is at submission,
the key of random numbers is made from the job's own count of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from telegrad.errors import GraphError
from telegrad.function import Compiled, Function
from telegrad.ir import types
from telegrad.ir.types import Type
from telegrad.jobs.naming import Names
from telegrad.lazy import Argument, Captured, Immediate, Live, LiveKey, PresentGrad, Source, Version
from telegrad.session import Session
from telegrad.tensor import Tensor
from telegrad.wire.arrays import numpy_dtype
from telegrad.wire.job_calls import (
    Call,
    Column,
    Constant,
    Input,
    JobFunction,
    Line,
    Literal,
    Measured,
    Metric,
    Output,
    RandomKey,
    Slot,
    State,
)


def as_function(step: Any) -> Function[..., Any]:
    """The function, traced: one that is plain becomes so."""
    if isinstance(step, Function):
        return step  # pyright: ignore[reportUnknownVariableType]
    if not callable(step):
        raise GraphError(f"a job runs a function of batches, not {type(step).__name__}")
    return Function(step)


@dataclass(frozen=True)
class Afterwards:
    """A function that the loop calls after each epoch or validation.

    ``metrics`` says for each of its arguments which metric that is, as it was last reduced; NaN before.
    """

    function: Callable[..., Any]
    metrics: Mapping[str, str] = field(default_factory=dict[str, str])


class Tracing:
    """Collects what the calls of a job need: functions by id, and the tensors of checkpoint 0."""

    def __init__(self, session: Session, functions: list[Callable[..., Any]]) -> None:
        self._session = session
        self._names = Names(functions)
        self.functions: dict[bytes, JobFunction] = {}
        self.state: dict[str, Tensor] = {}
        self.constants: dict[str, Tensor] = {}

    def calls(
        self, function: Function[..., Any], columns: Mapping[str, Type], sizes: tuple[int, ...], *, prefix: str = ""
    ) -> tuple[Call, ...]:
        """A call for each size of batch; the names of its metrics begin with ``prefix``."""
        return tuple([self._call(function, columns, rows, prefix) for rows in sizes])

    def _call(self, function: Function[..., Any], columns: Mapping[str, Type], rows: int, prefix: str) -> Call:
        name = getattr(function, "__qualname__", "the function")
        taken = [column for column in columns if column in function.parameters]
        if not taken:
            raise GraphError(
                f"{name} takes {', '.join(function.parameters) or 'nothing'}, and the data has the columns"
                f" {', '.join(columns)}: call its arguments as the columns are called"
            )
        examples = {column: _example(columns[column], rows) for column in taken}
        return self._traced(function, examples, [Column(column) for column in taken], rows, prefix)

    def after(self, groups: Sequence[Afterwards]) -> tuple[Call, ...]:
        """A call for each function that is called after an epoch, or after a validation."""
        return tuple([self._after(one) for one in groups])

    def _after(self, after: Afterwards) -> Call:
        examples = {argument: _example(Type((), types.float64)) for argument in after.metrics}
        return self._traced(as_function(after.function), examples, list(map(Measured, after.metrics.values())))

    def _traced(
        self,
        function: Function[..., Any],
        examples: Mapping[str, Any],
        arguments: Sequence[Input],
        rows: int = 0,
        prefix: str = "",
    ) -> Call:
        name = getattr(function, "__qualname__", "the function")
        compiled = function.compiled(self._session, examples)
        outputs = _outputs(name, compiled, prefix, needs_metric=rows > 0)
        inputs = [self._input(name, source, arguments) for source in compiled.prepared.sources]
        lines = [Line(*line) if line is not None else None for line in compiled.prepared.lines]
        self.functions[compiled.prepared.id] = JobFunction(compiled.prepared.data, tuple(lines))
        return Call(compiled.prepared.id, rows, tuple(inputs), outputs)

    def _input(self, function: str, source: Source, arguments: Sequence[Input]) -> Input:
        match source:
            case Argument():
                return arguments[source.position]
            case Version():
                name = self._names.of(source.variable)
                self.state[name] = source.variable
                return State(name)
            case Captured():
                name = self._names.of(source.tensor)
                self.constants[name] = source.tensor
                return Constant(name)
            case LiveKey():
                return RandomKey()
            case Live():
                return Literal(source.getter(), source.name)
            case Immediate():
                return Literal(source.data)
            case PresentGrad():
                raise GraphError(
                    f"{function} adds to gradients that are there already; call optimizer.zero_grad() before submitting"
                )
            case _:
                raise AssertionError(f"{source} is no source of a traced function")

    @property
    def slots(self) -> tuple[tuple[Slot, ...], tuple[Slot, ...]]:
        """State and constants as the spec has them."""
        state, constants = (
            tuple([Slot(name, tensor.type) for name, tensor in sorted(group.items())])
            for group in (self.state, self.constants)
        )
        return state, constants


def _example(row: Type, *rows: int) -> Any:
    """An array of this type that takes no memory."""
    return np.broadcast_to(np.zeros((), numpy_dtype(row.dtype)), (*rows, *row.shape))


def _outputs(name: str, compiled: Compiled, prefix: str, *, needs_metric: bool) -> tuple[Output, ...]:
    if any(number is not None for _, number in compiled.grads):
        raise GraphError(f"{name} leaves gradients behind; end it with optimizer.minimize(loss), or zero_grad()")
    metrics = returned_metrics(name, compiled.structure, prefix) if needs_metric or compiled.structure else ()
    numbers = [i for i, constant in enumerate(compiled.constants) if constant is None]
    if len(numbers) != len(compiled.constants):
        raise GraphError(f"{name} must return tensors of one number each; leave Python numbers out")
    for metric, type in zip(metrics, compiled.types, strict=False):
        if type.shape:
            key = metric.name.removeprefix(prefix)
            raise GraphError(f"{name} returns {key!r}, a {type}; a metric is one number: return its mean")
    return (*metrics, *([None] * len(compiled.variables)))


def returned_metrics(name: str, structure: Any, prefix: str = "") -> tuple[Metric, ...]:
    """What the function's results are recorded as: one number, or a dict of numbers and of pairs (sum, count)."""
    if structure == ("leaf",):
        return (Metric(f"{prefix}loss"),)
    wrong = f"{name} must return one number, which is called loss, or a dict of numbers, or pairs (sum, count), by name"
    if structure is None or structure[0] is not dict:
        raise GraphError(wrong)
    found: list[Metric] = []
    for key, part in zip(structure[1], structure[2:], strict=True):
        if part == ("leaf",):
            found.append(Metric(f"{prefix}{key}"))
        elif part == (tuple, ("leaf",), ("leaf",)):
            count = f"{prefix}{key}.count"
            found += [Metric(f"{prefix}{key}", "sum", over=count), Metric(count, "sum")]
        else:
            raise GraphError(f"{wrong}; {key!r} is neither")
    return tuple(found)
