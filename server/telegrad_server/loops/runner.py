"""A runner: one assignment of a job on a thread of its own, from a checkpoint to the end of the loop, or to an order.

What it says goes through ``tell``, whose refusal (the assignment is over) ends it in silence. A checkpoint is written
beside the training: its tensors are asked for in the session's order, and later steps leave their bytes alone.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from telegrad.errors import JobError, ResourceError, StorageAway, StorageFull, TelegradError
from telegrad.ir.types import Type
from telegrad.wire.job_calls import Call
from telegrad.wire.job_codec import encode_spec, spec_digest
from telegrad.wire.job_spec import JobSpec
from telegrad.wire.messages import ErrorRecord
from telegrad.wire.reduction import Reduction, quotients
from telegrad.wire.status import to_record

from telegrad_server.bug import bug
from telegrad_server.checkpoints import Draft, write_order
from telegrad_server.datasets import Dataset
from telegrad_server.failpoints import Reached, nothing
from telegrad_server.jobs import events as e
from telegrad_server.loops.batches import Batches, reading, validation_rows
from telegrad_server.loops.calls import Calls, Pending
from telegrad_server.loops.checkpoints import Checkpoints
from telegrad_server.loops.hands import Answer, Broken, Ended, Hands
from telegrad_server.loops.measures import EPOCH, Measures
from telegrad_server.loops.rehearsal import Rehearsal
from telegrad_server.worker import Worker

IN_FLIGHT = 8
"""So many steps may wait to be computed: enough that the device never waits for this thread."""

Tell = Callable[[e.Event], object]
"""Makes what a runner says a fact. JobError if the assignment is over."""


@dataclass(slots=True)
class Orders:
    """What the runner is told while it runs, by any thread."""

    stop_now: threading.Event = field(default_factory=threading.Event)
    stop_at_checkpoint: threading.Event = field(default_factory=threading.Event)
    leave: threading.Event = field(default_factory=threading.Event)
    spec: JobSpec | None = None
    """The same loop with a later end."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job, the number under which this runner has it, and the last checkpoint that the journal knows of."""

    job: str
    tenant: str
    number: int
    step: int
    spec: JobSpec


@dataclass(slots=True)
class Progress:
    """How far a runner has come, for people: the steps since the last checkpoint may be done again."""

    step: int = 0
    epoch: int = 0
    steps_per_second: float = 0.0
    values: dict[str, float] = field(default_factory=dict[str, float])


class Stop(Exception):
    """The loop ends here, and this is what there is to say; None: nothing."""

    def __init__(self, event: e.Event | None) -> None:
        super().__init__()
        self.event = event


class NotFinite(Exception):
    """The loop ends here, for a metric of a step, or of the validation after it, is not finite."""

    def __init__(self, metric: str, value: float, step: int, *, is_validation: bool) -> None:
        super().__init__()
        self.metric, self.value, self.step, self.is_validation = metric, value, step, is_validation


class Runner:
    """Runs an assignment; `run` does all of it, and ``orders`` may end it."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        worker: Worker,
        dataset: Callable[[str], Dataset],
        checkpoints: Checkpoints,
        tell: Tell,
        orders: Orders,
        reached: Reached = nothing,
    ) -> None:
        self._is_of = assignment
        self._spec = assignment.spec
        self._worker, self._dataset, self._checkpoints, self._tell = worker, dataset, checkpoints, tell
        self._orders, self._reached = orders, reached
        self._rows: list[e.Row] = []
        self._pending: deque[Pending] = deque()
        self.progress = Progress()

    def run(self) -> None:
        """From the newest whole checkpoint to the end; says how it ended. Raises nothing."""
        said = self._outcome()
        if said is not None:
            try:
                self._tell(said)
            except TelegradError as error:
                if error.reason != "JOB_FENCED":
                    bug(error)  # the journal refuses; the process that starts next finds the job lost

    def _outcome(self) -> e.Event | None:
        job, number = self._is_of.job, self._is_of.number
        try:
            self._loop()
        except Stop as stop:
            return stop.event
        except NotFinite as found:
            return self._diagnosed(found)
        except Ended as ended:
            return e.Lost(job, number, "DRAINED" if ended.record.reason == "DRAINING" else "WORKER_LOST", str(ended))
        except Broken as broken:
            return self._failed(broken.record)
        except StorageFull as error:
            return e.Paused(job, number, "STORAGE_FULL", error.message)
        except StorageAway as error:
            return e.Paused(job, number, "STORAGE_AWAY", error.message)
        except JobError as error:
            return None if error.reason == "JOB_FENCED" else self._failed(to_record(error))  # somebody else has the job
        except TelegradError as error:
            return self._failed(to_record(error))
        except Exception as error:  # the edge: a mistake of ours ends the job, not the server
            return self._failed(to_record(bug(error)))
        raise AssertionError("a loop ends by saying so")

    def _failed(self, record: ErrorRecord) -> e.Event:
        job, number = self._is_of.job, self._is_of.number
        if record.reason == "DEVICE_OOM":
            return e.Lost(job, number, "WORKER_OOM", record.message)
        return e.Failed(job, number, record.reason, record.message, line_of(self._spec, record.function, record.node))

    def _diagnosed(self, found: NotFinite) -> e.Event:
        """What there is to say of a metric that is not finite: which, and where that began."""
        from telegrad_server.loops.diagnosis import diagnose  # it runs the loop again, with a runner

        finding = diagnose(
            self._is_of,
            found,
            worker=self._worker,
            dataset=self._dataset,
            checkpoints=self._checkpoints,
            orders=self._orders,
        )
        why = f" ({finding.message})" if finding is not None else ""
        message = (
            f"the metric {found.metric} was {found.value} at step {found.step}{why}; the last checkpoint is from"
            " before: look at the data, or submit again with a smaller learning rate"
        )
        job, number = self._is_of.job, self._is_of.number
        if self._spec.on_nonfinite == "pause":
            return e.Paused(job, number, "NONFINITE", message)
        return e.Failed(job, number, "NONFINITE", message, finding.line if finding is not None else "")

    # ---- the loop

    def _loop(self) -> None:
        spec = self._spec
        found = self._checkpoints.restore(self._is_of.job, self._is_of.step)
        manifest = found.manifest
        hands = Hands(self._worker, self._is_of.tenant, {f.id: f.data for f in spec.functions})
        try:
            hands.open()
        except ResourceError as error:  # of the worker's other sessions, which will end
            raise Stop(e.Lost(self._is_of.job, self._is_of.number, "WORKER_FULL", error.message)) from None
        try:
            calls = Calls(hands, spec, calls=manifest.calls)
            calls.restore(found.tensors)
            measures = Measures(spec, manifest.metrics, step=manifest.step)
            skipped = "; ".join([damage.message for damage in found.skipped])
            self._tell(e.Started(self._is_of.job, self._is_of.number, manifest.step, skipped))
            data = self._dataset(spec.data.digest)
            with reading(data) as batches, _Writing(self._checkpoints, self._tell, self._reached) as writing:
                self._steps(hands, calls, measures, batches, writing, manifest.step)
        finally:
            hands.close()

    def _steps(
        self, hands: Hands, calls: Calls, measures: Measures, batches: Batches, writing: _Writing, step: int
    ) -> None:
        began_at, began = step, time.monotonic()
        rehearsal = Rehearsal(calls, in_flight=IN_FLIGHT)
        saved_at = time.monotonic()
        saved = step
        while True:
            spec = self._spec = self._orders.spec or self._spec
            if self._orders.stop_now.is_set():
                raise Stop(e.Cancelled(self._is_of.job, self._is_of.number))
            is_early = measures.is_enough
            must_leave = self._orders.leave.is_set()
            must_stop = must_leave or self._orders.stop_at_checkpoint.is_set()
            if step >= spec.last_step or is_early or must_stop:
                rehearsal.end()
                if saved < step:
                    self._save(hands, calls, measures, writing, step)
                writing.wait()
                job, number = self._is_of.job, self._is_of.number
                if must_stop and step < spec.last_step and not is_early:
                    left = e.Lost(job, number, "DRAINED", "its worker is to go")
                    raise Stop(left if must_leave else e.Paused(job, number, "ASKED"))
                raise Stop(e.Succeeded(job, number, step, is_early))
            step += 1
            self._before(hands, calls, measures, batches, step)
            place = spec.loop.batch(step, spec.data.rows)
            call = calls.steps[place.rows]
            batch = batches.of(spec, step)
            self._reached("job.step")
            self._pending.append(calls.call(call, batch, step=step, epoch=place.epoch, reduced=measures.reduced))
            rehearsal.stepped()
            self._settle(hands, measures, most=IN_FLIGHT)
            is_best = self._close_epoch(hands, calls, measures, step)
            is_best = self._validate(hands, calls, measures, step) or is_best
            self.progress.step, self.progress.epoch = step, place.epoch
            self.progress.steps_per_second = (step - began_at) / max(1e-9, time.monotonic() - began)
            if is_best or self._is_due(step, saved_at):
                self._settle(hands, measures)
                rehearsal.end()
                self._save(hands, calls, measures, writing, step)
                saved, saved_at = step, time.monotonic()

    def _before(self, hands: Hands, calls: Calls, measures: Measures, batches: Batches, step: int) -> None:
        """What is to be done before a step: nothing."""

    def _is_due(self, step: int, saved_at: float) -> bool:
        rule, per_epoch = self._spec.checkpoints, self._spec.loop.steps_per_epoch(self._spec.data.rows)
        return (
            (rule.every_steps > 0 and step % rule.every_steps == 0)
            or (rule.every_epochs > 0 and step % (rule.every_epochs * per_epoch) == 0)
            or (rule.every_seconds > 0 and time.monotonic() - saved_at >= rule.every_seconds)
        )

    def _settle(self, hands: Hands, measures: Measures, *, most: int = 0) -> None:
        """Wait until so many steps at most are under way; take the metrics of the others."""
        while len(self._pending) > most:
            pending = self._pending.popleft()
            values = pending.values()
            if hands.failure is not None:
                raise Broken(hands.failure)
            measures.epoch.add(values, pending.metrics, pending.rows)
            values = quotients(values, pending.metrics)
            if pending.step % self._spec.record_every == 0:
                self._record(pending.step, pending.epoch, values)
            self._check_finite(pending.step, values)

    def _record(self, step: int, epoch: int, values: dict[str, float]) -> None:
        now = time.time()
        self._rows += [e.Row(step, epoch, name, value, now) for name, value in values.items()]
        self.progress.values.update(values)

    def _check_finite(self, step: int, values: dict[str, float], *, is_validation: bool = False) -> None:
        for name, value in values.items():
            if not math.isfinite(value) and self._spec.on_nonfinite != "keep":
                raise NotFinite(name, value, step, is_validation=is_validation)

    # ---- the ends of epochs, and validation

    def _close_epoch(self, hands: Hands, calls: Calls, measures: Measures, step: int) -> bool:
        """After the last step of an epoch: reduce its metrics. Whether it is the best so far."""
        spec = self._spec
        if not spec.loop.ends_epoch(step, spec.data.rows):
            return False
        self._settle(hands, measures)
        epoch = spec.loop.batch(step, spec.data.rows).epoch
        values = measures.end_epoch(spec.steps[0].metrics)
        self._record(step, epoch, {f"{EPOCH}{name}": value for name, value in values.items()})
        is_best = measures.reduce(values, step)
        self._call_all(calls, measures, spec.after_epoch, step, epoch)
        return is_best

    def _validate(self, hands: Hands, calls: Calls, measures: Measures, step: int) -> bool:
        """If it is time, go through the other data. Whether it is the best so far."""
        spec, validation = self._spec, self._spec.validation
        if validation is None:
            return False
        is_due = validation.every.is_due(step, spec.loop.steps_per_epoch(spec.data.rows))
        if not is_due and step != spec.last_step:
            return False
        self._settle(hands, measures)
        data = self._dataset(validation.data.digest)
        by_rows = {call.rows: call for call in validation.calls}
        epoch = spec.loop.batch(step, spec.data.rows).epoch
        reduction, waiting = Reduction(), deque[Pending]()
        for rows in validation_rows(validation.data, validation.batch_size):
            call = by_rows[len(rows)]
            waiting.append(calls.call(call, data.batch(rows), step=step, epoch=epoch, reduced=measures.reduced))
            while len(waiting) > IN_FLIGHT:
                done = waiting.popleft()
                reduction.add(done.values(), done.metrics, done.rows)
        for done in waiting:
            reduction.add(done.values(), done.metrics, done.rows)
        values = reduction.result(validation.calls[0].metrics)
        self._record(step, epoch, values)
        self._check_finite(step, values, is_validation=True)
        is_best = measures.reduce(values, step)
        self._call_all(calls, measures, spec.after_validation, step, epoch)
        return is_best

    def _call_all(self, calls: Calls, measures: Measures, group: tuple[Call, ...], step: int, epoch: int) -> None:
        for call in group:
            pending = calls.call(call, {}, step=step, epoch=epoch, reduced=measures.reduced)
            values = quotients(pending.values(), pending.metrics)
            self._record(step, epoch, values)
            measures.reduce(values, step)

    # ---- checkpoints

    def _save(self, hands: Hands, calls: Calls, measures: Measures, writing: _Writing, step: int) -> None:
        self._settle(hands, measures)
        spec = self._spec
        done = spec.loop.batch(step, spec.data.rows)
        is_over = spec.loop.ends_epoch(step, spec.data.rows)
        draft = Draft(
            job=self._is_of.job,
            step=step,
            epoch=done.epoch + is_over,
            cursor=0 if is_over else done.first + done.rows,
            calls=calls.calls,
            seed=spec.seed,
            spec_digest=spec_digest(encode_spec(spec)),
            fingerprint=self._worker.hello().fingerprint,
            metrics=measures.saved(),
            tensors={slot.name: slot.type for slot in (*spec.state, *spec.constants)},
        )
        rows, self._rows = tuple(self._rows), []
        progressed = e.Progressed(self._is_of.job, self._is_of.number, step, rows=rows)
        best = [spec.first_step, *([measures.best_step] if measures.best_step >= 0 else [])]
        writing.begin(draft, calls.capture(), progressed, last=spec.checkpoints.keep_last, best=best)


class _Writing:
    """Checkpoints on their way to the disk, one at a time, beside the training. For ``with``."""

    def __init__(self, checkpoints: Checkpoints, tell: Tell, reached: Reached) -> None:
        self._checkpoints, self._tell, self._reached = checkpoints, tell, reached
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="telegrad-checkpoints")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin(
        self, draft: Draft, answers: dict[str, Answer], progressed: e.Event, *, last: int, best: list[int]
    ) -> None:
        """Write a checkpoint, once the one before is written, and then say so."""
        self.wait()
        self._under_way = self._pool.submit(self._write, draft, answers, progressed, last, best)

    def wait(self) -> None:
        """Wait for what is under way. Raises what went wrong with it."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _write(self, draft: Draft, answers: dict[str, Answer], progressed: e.Event, last: int, best: list[int]) -> None:
        def tensors() -> Iterator[tuple[str, Type, memoryview]]:
            for name in write_order(draft.tensors):
                yield name, draft.tensors[name], answers[name].view()

        try:
            self._checkpoints.write(draft, tensors())
        finally:
            for answer in answers.values():
                answer.done()
        self._reached("job.covered")
        self._tell(progressed)
        self._checkpoints.keep(draft.job, last=last, best=best)


def line_of(spec: JobSpec, function_id: bytes, node: int) -> str:
    """The user's line of a function's node, as far as it is known."""
    for function in spec.functions:
        if function.id == function_id and 0 <= node < len(function.lines):
            line = function.lines[node]
            return f"{line.file}:{line.number}" if line is not None else ""
    return ""


__all__ = ["Assignment", "NotFinite", "Orders", "Progress", "Runner", "Stop", "line_of"]
