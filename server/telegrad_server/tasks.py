"""Carries out the tasks that session machines decide on: runs plans, makes values, brings them to the host."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from telegrad.errors import DataCorrupt, GraphError, SessionError, TelegradError
from telegrad.ir.types import Type
from telegrad.wire import messages as m

from telegrad_server.bug import bug
from telegrad_server.compiler.plan import Plan
from telegrad_server.elsewhere import Elsewhere
from telegrad_server.executors import Executor
from telegrad_server.executors.stopping import WORKING
from telegrad_server.executors.timing import Span
from telegrad_server.explaining import explained
from telegrad_server.functions import Functions, Known, Signature
from telegrad_server.sessions import Answer, Clock, Describe, Execute, Fetched, Join, Make, Outcome, Task
from telegrad_server.spread import Spread, gathered, whole
from telegrad_server.store import Account

LIGHT_STEPS = 16
LIGHT_FLOPS = 1 << 14
LIGHT_BYTES = 1 << 14
"""What is done sooner than another thread is woken: a few steps on a few elements, on the host."""


KINDS: dict[type[Task], str] = {Make: "put", Answer: "fetch", Describe: "explain"}
"""What a span of a task is called; "run" else."""


class Companions(Protocol):
    """The other workers of a session: its peers, or its home."""

    def join(self, group: m.JoinGroup) -> None:
        """Become a member of a group. WorkerLost if one of the others does not come."""
        ...

    def share(self, known: Known, run: m.Run) -> tuple[Plan, AbstractContextManager[None]]:
        """The plan of this worker's share of a run of its group, and the company in which to run it."""
        ...

    def run(self, known: Known, run: m.Run, operands: Sequence[Any]) -> list[Any]:
        """The results of a data-parallel function, computed together with peers if there are any."""
        ...

    def place(self, known: Known, run: m.Run, operands: Sequence[Any], *, brought: Sequence[bool]) -> list[Any]:
        """The results of a function in parts on several workers; ``brought`` says which operands came with it."""
        ...

    def fetch(self, value: Elsewhere) -> bytes:
        """The bytes of a value that lives on another worker."""
        ...


class Runner:
    """Tasks on one executor, one at a time. Whatever happens is in the outcome; nothing is raised."""

    def __init__(self, executor: Executor, functions: Functions) -> None:
        self._executor = executor
        self._functions = functions

    def is_light(self, task: Task, known: Known | None) -> bool:
        """Whether the task takes less time than waking another thread to do it."""
        if not self._executor.is_host or _may_wait(task):
            return False
        match task:
            case Execute():
                plan = known.plan if known is not None else None
                return (
                    plan is not None
                    and Elsewhere not in map(type, task.operands)
                    and len(plan.steps) <= LIGHT_STEPS
                    and plan.flops <= LIGHT_FLOPS
                    and plan.peak_bytes <= LIGHT_BYTES
                    and not any(step.plans for step in plan.steps)
                )
            case Make():
                return task.put.type.nbytes <= LIGHT_BYTES
            case Answer():
                return task.stored.nbytes <= LIGHT_BYTES and not isinstance(task.stored.value, Elsewhere)
            case Clock():
                return True
            case Join() | Describe():
                return False

    def is_small(self, value: Any) -> bool:
        """Whether letting go of the value takes no time worth speaking of."""
        return self._executor.nbytes(value) <= LIGHT_BYTES

    def carry_out(self, task: Task, known: Known | None, account: Account, *, company: Companions | None) -> Outcome:
        """What a task brings. ``known`` is the function of an Execute, ``account`` what pays for its results, and
        ``company`` the session's other workers.
        """
        spans = WORKING.spans
        if spans is not None and spans.is_over:
            spans = WORKING.spans = None
        if spans is None or isinstance(task, Clock):
            return self._carry_out(task, known, account, company)
        began = time.perf_counter_ns()
        spans.begin(task.sequence, began)
        outcome = self._carry_out(task, known, account, company)
        WORKING.spans = spans  # an error may have left it unset
        kind = KINDS.get(type(task), "run")
        spans.add(Span(kind, "", task.sequence, began, time.perf_counter_ns() - began))
        return outcome

    def _carry_out(self, task: Task, known: Known | None, account: Account, company: Companions | None) -> Outcome:
        try:
            match task:
                case Execute():
                    return self._execute(task, known, account, company)
                case Make():
                    value = self._executor.from_host(task.put.type, task.put.data)
                    return Outcome([(value, self._executor.nbytes(value))])
                case Answer():
                    return Outcome(fetched=self._fetch(task, company))
                case Join():
                    assert company is not None
                    company.join(task.group)
                    return Outcome()
                case Describe():
                    plan = self._functions.plan_to_explain(_found(known), is_recorded=task.explain.is_recorded)
                    return Outcome(answer=explained(plan, self._executor))
                case Clock():
                    return Outcome(answer=_told(task.profile))
        except TelegradError as error:
            return Outcome(error=error)
        except Exception as error:  # the edge: a mistake of ours must not end the thread that serves everyone
            return Outcome(error=bug(error))

    def _execute(self, task: Execute, known: Known | None, account: Account, company: Companions | None) -> Outcome:
        run = task.run
        known = _found(known)
        if company is not None and run.group:
            plan, others = company.share(known, run)
            return self._outcome(plan, task, account, lambda own: self._executor.run(plan, own, company=others))
        if company is not None and (known.is_marked or Elsewhere in map(type, task.operands)):
            return self._place(known, task, account, company)
        if company is not None and known.is_replicated:
            signature = self._functions.signature_of(known)
            return self._outcome(signature, task, account, lambda given: company.run(known, run, given))
        plan_of = self._functions.plan_of_graph if run.is_recorded else self._functions.plan_of
        plan = plan_of(known)
        if plan is known.plain_plan:  # in the next runs but one it will have kernels, and others like it sooner
            self._executor.expect_kernels()
        return self._outcome(plan, task, account, lambda given: self._executor.run(plan, gathered(plan, given)))

    def _place(self, known: Known, task: Execute, account: Account, company: Companions) -> Outcome:
        """A run whose parts are on several workers; what lives elsewhere is paid for there."""
        run = task.run
        signature = self._functions.signature_of(known)
        _check_results(signature, run)
        _check_targets(signature, run)
        operands = _operands(signature.input_types, task, self._executor)
        values = company.place(known, run, operands, brought=[x is None for x in task.operands])
        account.check(sum([self._executor.nbytes(x) for x, name in zip(values, run.outputs, strict=True) if name]))
        return Outcome([(value, self._executor.nbytes(value)) for value in values], signature.updates)

    def _outcome(
        self, plan: Plan | Signature, task: Execute, account: Account, compute: Callable[[list[Any]], list[Any]]
    ) -> Outcome:
        run = task.run
        _check_results(plan, run)
        operands = _operands(plan.input_types, task, self._executor)
        _check_targets(plan, run)
        account.check(sum([t.nbytes for t, name in zip(plan.output_types, run.outputs, strict=True) if name]))
        values = compute(operands)
        return Outcome([(value, self._executor.nbytes(value)) for value in values], plan.updates)

    def _fetch(self, task: Answer, company: Companions | None) -> Fetched:
        value = task.stored.value
        if isinstance(value, Elsewhere):
            assert company is not None
            data, type = memoryview(company.fetch(value)), value.type
        else:
            value = whole(value)
            data, type = self._executor.to_host(value), self._executor.type_of(value)
        if len(data) <= m.INLINE_BYTES:
            return Fetched(type, bytes(data))
        return Fetched(type, data, ticket=secrets.token_urlsafe(16))


def _told(profile: m.Profile) -> m.Profiled:
    """The time, and what was recorded if that ends."""
    spans = WORKING.spans
    found: list[Span] = []
    dropped = 0
    if spans is not None and not spans.is_over and not profile.spans:
        found, dropped = spans.end(), spans.dropped
    told = tuple([m.ProfiledSpan(*span) for span in found])
    return m.Profiled(0, profile.received_ns, time.perf_counter_ns(), told, dropped)


def _found(known: Known | None) -> Known:
    if known is None:
        raise SessionError("the function was forgotten between its arrival and its run; send it again")
    return known


def _may_wait(task: Task) -> bool:
    """Whether the task reads what other workers hold."""
    match task:
        case Execute():
            return Spread in map(type, task.operands)
        case Answer():
            return isinstance(task.stored.value, Spread)
        case _:
            return False


def _check_results(plan: Plan | Signature, run: m.Run) -> None:
    if len(run.outputs) != len(plan.output_types):
        raise GraphError(
            f"the function has {len(plan.output_types)} results, the Run names {len(run.outputs)}",
            reason="GRAPH_ARITY",
        )


def _check_targets(plan: Plan | Signature, run: m.Run) -> None:
    targets = [run.inputs[i] for i, _ in plan.updates]
    if not all(targets):
        raise GraphError("an input that the function updates must be a name", reason="GRAPH_ARITY")
    if len(set(targets)) != len(targets):
        raise GraphError("a Run updates the same variable twice", reason="NAME_REUSED")


def _type_of(value: Any, executor: Executor) -> Type:
    return value.type if isinstance(value, Elsewhere | Spread) else executor.type_of(value)


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
        elif value.shape != type.shape or not (executor.is_of(value, type) or _type_of(value, executor) == type):
            raise GraphError(
                f"input {i} of the function is {type}, given was {_type_of(value, executor)}", reason="SHAPE_INVALID"
            )
        found.append(value)
    if position != len(data):
        raise DataCorrupt(
            f"the Run brings {len(data)} bytes of immediates, its inputs take {position}", reason="DATA_LENGTH"
        )
    return found
