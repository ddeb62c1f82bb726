"""The calls of a job as Runs of its session: operands from batch, state, schedules and keys; results to be recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from telegrad.ir.types import Type
from telegrad.wire.arrays import array_bytes, array_from
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
)
from telegrad.wire.job_spec import JobSpec
from telegrad.wire.messages import INLINE_BYTES

from telegrad_server.loops.batches import Batch
from telegrad_server.loops.hands import Answer, Hands, Operand

Named = tuple[str, Type, memoryview]


def key_bytes(seed: int, call: int) -> bytes:
    """The key of a call's random numbers: uint32[4] of the seed's and the call's halves, as a client makes it."""
    return np.array([seed & 0xFFFFFFFF, seed >> 32, call & 0xFFFFFFFF, call >> 32], dtype="<u4").tobytes()


@dataclass(frozen=True, slots=True)
class Pending:
    """The metrics of a call that may not be over: their values are asked for, and come when they come."""

    step: int
    epoch: int
    rows: int
    metrics: tuple[Metric, ...]
    answers: tuple[Answer, ...]

    def values(self) -> dict[str, float]:
        """The numbers. Waits; raises the error of the call."""
        return {m.name: float(a.array()) for m, a in zip(self.metrics, self.answers, strict=True)}


class Calls:
    """A job's functions and tensors in its session. ``calls`` counts the calls that drew random numbers."""

    def __init__(self, hands: Hands, spec: JobSpec, *, calls: int) -> None:
        self._hands = hands
        self._spec = spec
        self._names: dict[str, int] = {}
        self._schedules = {schedule.name: schedule for schedule in spec.schedules}
        self.steps = {call.rows: call for call in spec.steps}
        self.calls = calls

    def restore(self, tensors: Iterator[Named]) -> None:
        """Take over the tensors of a checkpoint."""
        for name, type, data in tensors:
            self._names[name] = self._hands.put(array_from(type, data))

    def capture(self) -> dict[str, Answer]:
        """Ask for every tensor of a checkpoint, as it is after the steps so far; the loop may go on meanwhile."""
        return {name: self._hands.fetch(server_name) for name, server_name in self._names.items()}

    def call(self, call: Call, batch: Batch, *, step: int, epoch: int, reduced: Mapping[str, float]) -> Pending:
        """Call a function; returns at once."""
        operands, passing = self._operands(call, batch, step=step, epoch=epoch, reduced=reduced)
        results = [0 if target is None else self._hands.new_name() for target in call.outputs]
        self._hands.run(call.function, operands, results)
        if any(isinstance(source, RandomKey) for source in call.inputs):
            self.calls += 1
        answers: list[Answer] = []
        for target, name in zip(call.outputs, results, strict=True):
            if isinstance(target, Metric):
                answers.append(self._hands.fetch(name))
                passing.append(name)
            elif isinstance(target, Becomes):
                passing.append(self._names[target.name])
                self._names[target.name] = name
        self._hands.release(passing)
        return Pending(step, epoch, call.rows, call.metrics, tuple(answers))

    def probe(
        self, function: bytes, call: Call, batch: Batch, *, step: int, epoch: int, reduced: Mapping[str, float]
    ) -> Answer:
        """The one result of a function with a call's inputs, as they would be for the call now; changes nothing."""
        operands, passing = self._operands(call, batch, step=step, epoch=epoch, reduced=reduced)
        result = self._hands.new_name()
        self._hands.run(self._hands.knows(function), operands, [result])
        answer = self._hands.fetch(result)
        self._hands.release([*passing, result])
        return answer

    def _operands(
        self, call: Call, batch: Batch, *, step: int, epoch: int, reduced: Mapping[str, float]
    ) -> tuple[list[Operand], list[int]]:
        """The operands of a call, and those of their names that are wanted no longer than for it."""
        passing: list[int] = []

        def passed(array: npt.NDArray[Any]) -> Operand:
            if array.nbytes <= INLINE_BYTES:
                return bytes(array_bytes(array))
            passing.append(self._hands.put(array))
            return passing[-1]

        def operand(source: Input) -> Operand:
            match source:
                case State() | Constant():  # most of them
                    return self._names[source.name]
                case Column():
                    return passed(batch[source.name])
                case RandomKey():
                    return key_bytes(self._spec.seed, self._spec.first_call + self.calls)
                case Scheduled():
                    return np.float64(self._schedules[source.name].at(step, epoch)).tobytes()
                case Measured():
                    return np.float64(reduced.get(source.name, float("nan"))).tobytes()
                case Literal():
                    return source.data

        return [operand(source) for source in call.inputs], passing
