"""Why a metric is not finite: the loop once more from its last checkpoint, silently, with probes where it failed.

If the variables were not finite before that step, the metric only shows it; then every step is probed, up to the one
that made them so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from telegrad.errors import TelegradError
from telegrad.wire.codec import decode_function
from telegrad.wire.job_calls import Call, Column, Literal, Measured, Scheduled, State
from telegrad.wire.job_spec import JobSpec

from telegrad_server.bug import bug
from telegrad_server.datasets import Dataset
from telegrad_server.loops.batches import Batch, Batches, rows_of_step, validation_rows
from telegrad_server.loops.calls import Calls
from telegrad_server.loops.checkpoints import Checkpoints
from telegrad_server.loops.hands import Broken, Ended, Hands
from telegrad_server.loops.measures import Measures
from telegrad_server.loops.probing import Probe
from telegrad_server.loops.runner import Assignment, NotFinite, Orders, Runner, Stop, line_of
from telegrad_server.worker import Worker


@dataclass(frozen=True, slots=True)
class Finding:
    """What began it, in words, and the user's line of it, where it is known."""

    message: str
    line: str = ""


def diagnose(
    assignment: Assignment,
    found: NotFinite,
    *,
    worker: Worker,
    dataset: Callable[[str], Dataset],
    checkpoints: Checkpoints,
    orders: Orders,
) -> Finding | None:
    """What first gave a value that is not finite; None if that does not come out."""

    def replay(kind: type[_Replay]) -> Finding | None:
        silent = Orders(stop_now=orders.stop_now)
        return kind(
            replace(assignment, step=found.step),
            found,
            worker=worker,
            dataset=dataset,
            checkpoints=checkpoints,
            orders=silent,
        ).finding()

    try:
        finding = replay(_Replay)
        return replay(_Earlier) if finding is _BEFORE else finding
    except (TelegradError, Broken, Ended):
        return None  # the metric's name is what there is to say
    except Exception as error:  # a mistake of ours must not hide what the job has to say
        bug(error)
        return None


_BEFORE = Finding("the variables were not finite before")


class _Found(Exception):
    """The replay is over."""

    def __init__(self, finding: Finding | None) -> None:
        super().__init__()
        self.finding = finding


class _Replay(Runner):
    """The loop up to what failed, without a word and without a checkpoint."""

    def __init__(self, assignment: Assignment, found: NotFinite, **options: Any) -> None:
        super().__init__(assignment, tell=lambda event: None, **options)
        self._found = found
        self._probes: dict[bytes, Probe] = {}

    def finding(self) -> Finding | None:
        """What comes out; None if nothing does."""
        try:
            self._loop()
        except _Found as found:
            return found.finding
        except Stop:
            return None
        raise AssertionError("a loop ends by saying so")

    def _save(self, hands: Hands, calls: Calls, measures: Measures, writing: Any, step: int) -> None:
        self._settle(hands, measures)

    def _record(self, step: int, epoch: int, values: dict[str, float]) -> None:
        pass

    def _check_finite(self, step: int, values: dict[str, float], *, is_validation: bool = False) -> None:
        pass

    def _before(self, hands: Hands, calls: Calls, measures: Measures, batches: Batches, step: int) -> None:
        if step != self._found.step or self._found.is_validation:
            return
        place = self._spec.loop.batch(step, self._spec.data.rows)
        self._settle(hands, measures)
        batch = batches.of(self._spec, step)
        raise _Found(self._probed(hands, calls, measures, calls.steps[place.rows], batch, step, self._found.metric))

    def _validate(self, hands: Hands, calls: Calls, measures: Measures, step: int) -> bool:
        validation = self._spec.validation
        if step != self._found.step or not self._found.is_validation or validation is None:
            return super()._validate(hands, calls, measures, step)
        by_rows = {call.rows: call for call in validation.calls}
        data = self._dataset(validation.data.digest)
        for rows in validation_rows(validation.data, validation.batch_size):
            batch, call = data.batch(rows), by_rows[len(rows)]
            finding = self._probed(hands, calls, measures, call, batch, step, self._found.metric)
            if finding is not None:
                raise _Found(finding)
        raise _Found(None)

    def _probed(
        self, hands: Hands, calls: Calls, measures: Measures, call: Call, batch: Batch, step: int, metric: str | None
    ) -> Finding | None:
        """What made the metric of a call not finite, or with None the variables that it updates."""
        probe = self._probes.get(call.function)
        if probe is None:
            data = next(f.data for f in self._spec.functions if f.id == call.function)
            probe = self._probes[call.function] = Probe(decode_function(data))
        epoch = self._spec.loop.batch(step, self._spec.data.rows).epoch
        answer = calls.probe(probe.data, call, batch, step=step, epoch=epoch, reduced=measures.reduced)
        flags = answer.array().tolist()
        if metric is None:
            number = probe.updated(flags)
        else:
            names = [getattr(output, "name", "") for output in call.outputs]
            number = names.index(metric)
        cause = None if number is None else probe.cause(number, flags)
        if cause is None:
            return None
        if cause.input >= 0:
            source = call.inputs[cause.input]
            return _BEFORE if isinstance(source, State) else Finding(_given(source, self._spec, step))
        line = line_of(self._spec, call.function, cause.node)
        where = f" at {line}" if line else ""
        which = "the gradient of an op, " if cause.is_backward else ""
        return Finding(
            f"the first value that was not finite came from {which}{cause.what}{where}, in step {step}", line
        )


class _Earlier(_Replay):
    """Every step is probed: which is the first that makes a variable not finite?"""

    def _before(self, hands: Hands, calls: Calls, measures: Measures, batches: Batches, step: int) -> None:
        self._settle(hands, measures)
        place = self._spec.loop.batch(step, self._spec.data.rows)
        data = self._dataset(self._spec.data.digest)
        batch = data.batch(rows_of_step(data, self._spec, step))
        finding = self._probed(hands, calls, measures, calls.steps[place.rows], batch, step, None)
        if finding is not None or step > self._found.step:
            raise _Found(None if finding is _BEFORE else finding)


def _given(source: object, spec: JobSpec, step: int) -> str:
    """What of the job's own was not finite, in words."""
    match source:
        case Column():
            return f"the column {source.name} of {spec.data.name} holds a value that is not finite, in step {step}"
        case Scheduled() | Measured():
            return f"{source.name}, which the step is called with, was not finite, in step {step}"
        case Literal():
            return f"{source.name or 'a number'}, which the step is called with, is not finite"
        case _:
            return f"what the step is called with was not finite, in step {step}"


__all__ = ["Finding", "diagnose"]
