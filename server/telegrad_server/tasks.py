"""Carries out the tasks that session machines decide on: runs plans, makes values, brings them to the host."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from telegrad.errors import DataCorrupt, GraphError, SessionError, TelegradError
from telegrad.ir.types import Type
from telegrad.wire import messages as m

from telegrad_server.bug import bug
from telegrad_server.compiler.plan import Plan
from telegrad_server.executors import Executor
from telegrad_server.functions import Functions, Known
from telegrad_server.sessions import Answer, Execute, Fetched, Make, Outcome, Task
from telegrad_server.store import Account

LIGHT_STEPS = 16
LIGHT_FLOPS = 1 << 14
LIGHT_BYTES = 1 << 14
"""What is done sooner than another thread is woken: a few steps on a few elements, on the host."""


class Runner:
    """Tasks on one executor, one at a time. Whatever happens is in the outcome; nothing is raised."""

    def __init__(self, executor: Executor, functions: Functions) -> None:
        self._executor = executor
        self._functions = functions

    def is_light(self, task: Task, known: Known | None) -> bool:
        """Whether the task takes less time than waking another thread to do it."""
        if not self._executor.is_host:
            return False
        match task:
            case Execute():
                plan = known.plan if known is not None else None
                return (
                    plan is not None
                    and len(plan.steps) <= LIGHT_STEPS
                    and plan.flops <= LIGHT_FLOPS
                    and plan.peak_bytes <= LIGHT_BYTES
                    and not any(step.plans for step in plan.steps)
                )
            case Make():
                return task.put.type.nbytes <= LIGHT_BYTES
            case Answer():
                return task.stored.nbytes <= LIGHT_BYTES

    def is_small(self, value: Any) -> bool:
        """Whether letting go of the value takes no time worth speaking of."""
        return self._executor.nbytes(value) <= LIGHT_BYTES

    def carry_out(self, task: Task, known: Known | None, account: Account) -> Outcome:
        """What a task brings. ``known`` is the function of an Execute, ``account`` what pays for its results."""
        try:
            match task:
                case Execute():
                    return self._execute(task, known, account)
                case Make():
                    value = self._executor.from_host(task.put.type, task.put.data)
                    return Outcome([(value, self._executor.nbytes(value))])
                case Answer():
                    return Outcome(fetched=self._fetch(task))
        except TelegradError as error:
            return Outcome(error=error)
        except Exception as error:  # the edge: a mistake of ours must not end the thread that serves everyone
            return Outcome(error=bug(error))

    def _execute(self, task: Execute, known: Known | None, account: Account) -> Outcome:
        run = task.run
        if known is None:
            raise SessionError("the function was forgotten between its arrival and its run; send it again")
        plan = self._functions.plan_of(known)
        if len(run.outputs) != len(plan.outputs):
            raise GraphError(
                f"the function has {len(plan.outputs)} results, the Run names {len(run.outputs)}", reason="GRAPH_ARITY"
            )
        operands = _operands(plan.input_types, task, self._executor)
        _check_targets(plan, run)
        account.check(sum([t.nbytes for t, name in zip(plan.output_types, run.outputs, strict=True) if name]))
        values = self._executor.run(plan, operands)
        return Outcome([(value, self._executor.nbytes(value)) for value in values], plan.updates)

    def _fetch(self, task: Answer) -> Fetched:
        value = task.stored.value
        data = self._executor.to_host(value)
        type = self._executor.type_of(value)
        if len(data) <= m.INLINE_BYTES:
            return Fetched(type, bytes(data))
        return Fetched(type, data, ticket=secrets.token_urlsafe(16))


def _check_targets(plan: Plan, run: m.Run) -> None:
    targets = [run.inputs[i] for i, _ in plan.updates]
    if not all(targets):
        raise GraphError("an input that the function updates must be a name", reason="GRAPH_ARITY")
    if len(set(targets)) != len(targets):
        raise GraphError("a Run updates the same variable twice", reason="NAME_REUSED")


def _operands(types: Sequence[Type], task: Execute, executor: Executor) -> list[Any]:
    """The values of a Run's inputs, each of the type that the function takes."""
    if len(task.operands) != len(types):
        raise GraphError(
            f"the function takes {len(types)} operands, the Run gives {len(task.operands)}", reason="GRAPH_ARITY"
        )
    data, position, found = memoryview(task.run.immediates), 0, []
    for i, (value, type) in enumerate(zip(task.operands, types, strict=True)):
        if value is None:
            end = position + type.nbytes
            if end > len(data):
                raise DataCorrupt(f"the Run's immediates end before input {i} ({type})", reason="DATA_LENGTH")
            value = executor.from_host(type, data[position:end])
            position = end
        elif value.shape != type.shape or executor.type_of(value) != type:
            raise GraphError(
                f"input {i} of the function is {type}, given was {executor.type_of(value)}", reason="SHAPE_INVALID"
            )
        found.append(value)
    if position != len(data):
        raise DataCorrupt(
            f"the Run brings {len(data)} bytes of immediates, its inputs take {position}", reason="DATA_LENGTH"
        )
    return found
