"""Whether a job's spec fits its functions and its data: everything that can be known before it runs.

`telegrad.wire.job_spec` has checked each part and the names; here every operand's type is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from telegrad.ir import types
from telegrad.ir.graph import Function
from telegrad.ir.types import Type
from telegrad.wire.job_calls import (
    Becomes,
    Call,
    Column,
    Constant,
    Input,
    Literal,
    Measured,
    Metric,
    RandomKey,
    Scheduled,
    State,
    require,
)
from telegrad.wire.job_spec import DataSource, JobSpec

NUMBER = Type((), types.float64)
"""What a schedule gives, and a metric when it is an input."""

KEY = Type((4,), types.uint32)
"""The key of random numbers."""


def check_spec(
    spec: JobSpec, *, decode: Callable[[bytes], Function], columns: Callable[[DataSource], Mapping[str, Type]]
) -> None:
    """GraphError (JOB_INVALID) with one sentence if a call fits not its function, its data or the job's state.

    ``decode`` makes a function of its bytes, and raises what is wrong with them. ``columns`` tells the type of one row
    of each column, and raises NotFound for data that is not there.
    """
    functions = {f.id: decode(f.data) for f in spec.functions}
    validation = spec.validation
    trained, validated = columns(spec.data), columns(validation.data) if validation is not None else {}
    state = {slot.name: slot.type for slot in spec.state}
    constants = {slot.name: slot.type for slot in spec.constants}
    for calls, rows_of, what in (
        (spec.steps, trained, "step"),
        (validation.calls if validation is not None else (), validated, "validation"),
        (spec.after_epoch, {}, "call after an epoch"),
        (spec.after_validation, {}, "call after a validation"),
    ):
        for call in calls:
            types_of = _Types(rows_of, state, constants)
            _check_call(spec, call, functions[call.function], types_of, f"the {what} of {call.rows} rows")


class _Types:
    """The types of what an input can come from."""

    def __init__(self, columns: Mapping[str, Type], state: Mapping[str, Type], constants: Mapping[str, Type]) -> None:
        self.columns, self.state, self.constants = columns, state, constants

    def of(self, source: Input, rows: int, what: str) -> Type | None:
        """The type of an input; None for bytes, which have only a length."""
        match source:
            case Column():
                require(source.name in self.columns, f"{what} takes the column {source.name!r}, which the data has not")
                row = self.columns[source.name]
                return Type((rows, *row.shape), row.dtype)
            case State():
                return self.state[source.name]
            case Constant():
                return self.constants[source.name]
            case RandomKey():
                return KEY
            case Scheduled() | Measured():
                return NUMBER
            case Literal():
                return None


def _check_call(spec: JobSpec, call: Call, function: Function, types_of: _Types, what: str) -> None:
    graph = function.graph
    replicated = function.replication is not None
    inputs, results = _whole_types(function)
    require(len(call.inputs) == len(inputs), f"{what} has {len(call.inputs)} inputs; its function takes {len(inputs)}")
    require(
        len(call.outputs) == len(graph.outputs),
        f"{what} has {len(call.outputs)} results; its function gives {len(graph.outputs)}",
    )
    how = function.replication
    if how is not None:
        require(how.replicas == spec.replicas, f"{what} is for {how.replicas} replicas; the job has {spec.replicas}")
        require(how.rows == call.rows, f"{what} has a function of {how.rows} rows")
    for i, (source, wanted) in enumerate(zip(call.inputs, inputs, strict=True)):
        given = types_of.of(source, call.rows, what)
        if given is None:
            assert isinstance(source, Literal)
            fits = len(source.data) == wanted.nbytes
            require(fits, f"input {i} of {what} is {wanted}; the literal has {len(source.data)} bytes")
        else:
            require(given == wanted, f"input {i} of {what} is {wanted}; {_say(source)} is {given}")
    written = [call.inputs[i] for i, _ in function.updates]
    for source in written:
        require(isinstance(source, State), f"{what} updates {_say(source)}, which is no variable")
    names = [source.name for source in written if isinstance(source, State)]
    for result, target in zip(results, call.outputs, strict=True):
        match target:
            case Metric():
                fits = not result.shape and (not replicated or result.dtype.is_float)
                require(fits, f"{what} records {target.name!r}, which is {result} and not one number")
            case Becomes():
                wanted = types_of.state[target.name]
                require(result == wanted, f"{what} makes the variable {target.name!r} {result}; it is {wanted}")
                names.append(target.name)
            case None:
                pass
    require(len(set(names)) == len(names), f"{what} gives a variable two next values")


def _whole_types(function: Function) -> tuple[list[Type], list[Type]]:
    """The types of the function's inputs and results, of all replicas together."""
    inputs = [v.type for v in function.graph.inputs]
    results = [v.type for v in function.graph.outputs]
    how = function.replication
    if how is not None:
        for group, whole in ((how.split_inputs, inputs), (how.row_outputs, results)):
            for i in group:
                whole[i] = Type((how.rows, *whole[i].shape[1:]), whole[i].dtype)
    return inputs, results


def _say(source: Input) -> str:
    match source:
        case RandomKey():
            return "the key of random numbers"
        case Literal():
            return "a literal"
        case Column():
            return f"the column {source.name!r}"
        case Scheduled():
            return f"the schedule {source.name!r}"
        case Measured():
            return f"the metric {source.name!r}"
        case Constant():
            return f"the constant {source.name!r}"
        case State():
            return f"the variable {source.name!r}"
