"""A traced function as calls of a job: its sources become columns, variables, constants, keys and bytes.

What the client would be asked for at every call is data here: a number of an optimizer's is what it is at submission,
the key of random numbers is made from the job's own count of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from telegrad.errors import GraphError
from telegrad.function import Compiled, Function
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
        arguments = {column: _example(columns[column], rows) for column in taken}
        compiled = function.compiled(self._session, arguments)
        outputs = _outputs(name, compiled, prefix)
        inputs = [self._input(name, source, taken) for source in compiled.prepared.sources]
        lines = [Line(*line) if line is not None else None for line in compiled.prepared.lines]
        self.functions[compiled.prepared.id] = JobFunction(compiled.prepared.data, tuple(lines))
        return Call(compiled.prepared.id, rows, tuple(inputs), outputs)

    def _input(self, function: str, source: Source, columns: list[str]) -> Input:
        match source:
            case Argument():
                return Column(columns[source.position])
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
                return Literal(source.getter())
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


def _example(row: Type, rows: int) -> Any:
    """An array of this type that takes no memory."""
    return np.broadcast_to(np.zeros((), numpy_dtype(row.dtype)), (rows, *row.shape))


def _outputs(name: str, compiled: Compiled, prefix: str) -> tuple[Output, ...]:
    if any(number is not None for _, number in compiled.grads):
        raise GraphError(f"{name} leaves gradients behind; end it with optimizer.minimize(loss), or zero_grad()")
    structure: Any = compiled.structure
    if structure is not None and structure[0] == "leaf":
        keys: tuple[Any, ...] = ("loss",)
    elif structure is not None and structure[0] is dict:
        keys = structure[1]
    else:
        raise GraphError(f"{name} must return one number, which is called loss, or a dict of numbers by name")
    numbers = [i for i, constant in enumerate(compiled.constants) if constant is None]
    if len(compiled.constants) != len(keys) or len(numbers) != len(keys):
        raise GraphError(f"{name} must return tensors of one number each; leave Python numbers and nests out")
    for key, type in zip(keys, compiled.types, strict=True):
        if type.shape:
            raise GraphError(f"{name} returns {key!r}, a {type}; a metric is one number: return its mean")
    metrics: list[Output] = [Metric(f"{prefix}{key}") for key in keys]
    return (*metrics, *([None] * len(compiled.variables)))
