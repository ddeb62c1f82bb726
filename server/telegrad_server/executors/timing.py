"""When things happened in one session, while its client has asked for it: spans, no more than a limit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from telegrad.ir.value import Origin

from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.plan import Place, Plan, Step
from telegrad_server.executors.program import Call, Program, run_calls

NAMED_OPS = 8
"""So many ops are named of a call that does more."""


class Span(NamedTuple):
    """Something that took time. ``node`` is that of the client's graph, -1 where there is none."""

    kind: str
    name: str
    sequence: int
    begin_ns: int
    nanoseconds: int
    node: int = -1
    is_backward: bool = False


class Spans:
    """What was recorded so far. Filled by one thread at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._arrivals: dict[int, int] = {}
        self.found: list[Span] = []
        self.dropped = 0
        self.is_over = False
        self.sequence = 0  # of the command under way

    def arrive(self, sequence: int, now_ns: int) -> None:
        """A command has come."""
        if not self.is_over and len(self._arrivals) < self._limit:
            self._arrivals.setdefault(sequence, now_ns)

    def begin(self, sequence: int, now_ns: int) -> None:
        """It is its turn."""
        self.sequence = sequence
        arrived = self._arrivals.pop(sequence, None)
        if arrived is not None:
            self.add(Span("queue", "", sequence, arrived, now_ns - arrived))

    def add(self, span: Span) -> None:
        """Remember a span, if there is room."""
        if self.is_over:
            return
        if len(self.found) < self._limit:
            self.found.append(span)
        else:
            self.dropped += 1

    def end(self) -> list[Span]:
        """All that was recorded; nothing is recorded any more."""
        self.is_over = True
        found, self.found = self.found, []
        self._arrivals.clear()
        return found


def run_timed(plan: Plan, program: Program, calls: Iterator[Call], values: list[Any], spans: Spans) -> None:
    """Run the calls as `run_calls` does, with a span for each. Kernels that follow each other are one."""
    for (name, origin), call in zip(_labels(plan, program), calls, strict=True):
        began = time.perf_counter_ns()
        run_calls(iter((call,)), values)
        took = time.perf_counter_ns() - began
        node, is_backward = (-1, False) if origin is None else origin
        spans.add(Span("step", name, spans.sequence, began, took, node, is_backward))


def _labels(plan: Plan, program: Program) -> Iterator[tuple[str, Origin | None]]:
    """For each call the ops that it does, and the first place that one of them comes from."""
    begin = 0
    numbers = program.steps
    for k, number in enumerate(numbers):
        is_last = k + 1 == len(numbers) or numbers[k + 1] != number
        end = number + 1 if is_last else max(number, begin)
        steps = [step for step in plan.steps[begin:end] if _takes_time(plan, step)] or list(plan.steps[number:end])
        begin = end
        yield _name(steps), next((step.origin for step in steps if step.origin is not None), None)


def _takes_time(plan: Plan, step: Step) -> bool:
    return plan.slots[step.outputs[0]].place not in (Place.VIEW, Place.CONSTANT)


def _name(steps: Sequence[Step]) -> str:
    names: list[str] = []
    for step in steps:
        names += [node.op.name for node in step.op.body.body] if isinstance(step.op, Fused) else [step.op.name]
    return " ".join(names[:NAMED_OPS]) + (f" and {len(names) - NAMED_OPS} more" if len(names) > NAMED_OPS else "")
