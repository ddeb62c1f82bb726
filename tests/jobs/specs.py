"""Specs for the tests: a line fitted to data by one small function, whole and with parts left out or added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from telegrad.ir import Function, Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ops import elementwise as e
from telegrad.ops import reduce
from telegrad.wire.codec import encode_function
from telegrad.wire.job_calls import (
    Becomes,
    Call,
    Column,
    Constant,
    JobFunction,
    Line,
    Literal,
    Measured,
    Metric,
    RandomKey,
    Scheduled,
    Slot,
    State,
)
from telegrad.wire.job_spec import (
    Checkpoints,
    DataSource,
    Demand,
    EarlyStopping,
    Every,
    JobSpec,
    KeepBest,
    Loop,
    Parent,
    Schedule,
    Validation,
)  # fmt: skip

ROWS = 100
COLUMNS = {"x": Type((), t.float32), "y": Type((), t.float32)}
SCALAR, NUMBER, KEY = Type((), t.float32), Type((), t.float64), Type((4,), t.uint32)


def step_function(rows: int) -> Function:
    """w, x[rows], y[rows], rate -> loss, next w."""
    w, rate = new_input(SCALAR), new_input(NUMBER)
    x, y = new_input(Type((rows,), t.float32)), new_input(Type((rows,), t.float32))
    difference = w * x - y
    loss = mean(difference * difference)
    changed = w - mean(difference * x) * e.astype(rate, t.float32)
    return Function(Graph.of([w, x, y, rate], [loss, changed]), ((0, 1),))


def validation_function(rows: int) -> Function:
    """w, x[rows], y[rows], scale -> loss."""
    w, scale = new_input(SCALAR), new_input(SCALAR)
    x, y = new_input(Type((rows,), t.float32)), new_input(Type((rows,), t.float32))
    difference = (w * x - y) * scale
    return Function(Graph.of([w, x, y, scale], [mean(difference * difference)]))


def closing_function() -> Function:
    """average, w, a metric, a half -> next average, and the metric as a number."""
    average, w, metric, half = new_input(SCALAR), new_input(SCALAR), new_input(NUMBER), new_input(SCALAR)
    return Function(Graph.of([average, w, metric, half], [(average + w) * half, metric * 1.0]))


def mean(x: Value) -> Value:
    return reduce.mean(x)


def call(function: Function, rows: int, inputs: list[Any], outputs: list[Any]) -> tuple[Call, JobFunction]:
    data = JobFunction(encode_function(function), (Line("train.py", 3), None, Line("model.py", 7)))
    return Call(data.id, rows, tuple(inputs), tuple(outputs)), data


def small_spec(name: str = "line", *, epochs: int = 2, batch_size: int = 32, **changes: Any) -> JobSpec:
    """The fewest parts: 100 rows in batches of 32, so 4 steps an epoch, the last of 4 rows."""
    loop = Loop(batch_size, epochs=epochs)
    made = [
        call(step_function(n), n, [State("w"), Column("x"), Column("y"), Scheduled("rate")], [Metric("loss"), None])
        for n in loop.sizes(ROWS)
    ]
    spec = JobSpec(
        name=name,
        functions=tuple([data for _, data in made]),
        data=DataSource("points", "ab" * 32, ROWS),
        loop=loop,
        steps=tuple([c for c, _ in made]),
        state=(Slot("w", SCALAR),),
        schedules=(Schedule("rate", "steps", (0.1, 0.05)),),
    )
    return replace(spec, **changes)


def full_spec(name: str = "full") -> JobSpec:
    """Every part that there is."""
    spec = small_spec(name)
    validations = [
        call(validation_function(n), n, [State("w"), Column("x"), Column("y"), Constant("scale")], [Metric("val/loss")])
        for n in (30, 10)
    ]
    half = b"\x00\x00\x00\x3f"
    closing, data = call(
        closing_function(),
        0,
        [State("average"), State("w"), Measured("val/loss"), Literal(half)],
        [Becomes("average"), Metric("seen", "last")],
    )
    return replace(
        spec,
        functions=(*spec.functions, *[d for _, d in validations], data),
        state=(*spec.state, Slot("average", SCALAR)),
        constants=(Slot("scale", SCALAR),),
        validation=Validation(
            DataSource("held-out", "cd" * 32, 70, first=5), 30, Every(1, "epochs"), tuple([c for c, _ in validations])
        ),
        after_validation=(closing,),
        early_stopping=EarlyStopping("val/loss", "min", 3, 0.25),
        keep_best=KeepBest("val/loss", "min"),
        checkpoints=Checkpoints(every_steps=3, every_epochs=1, every_seconds=0.5, keep_last=4),
        record_every=2,
        on_nonfinite="pause",
        seed=2**64 - 1,
        first_call=17,
        demand=Demand("numpy", "worker-1", 1 << 20),
        strict=True,
        parent=Parent("0" * 32, 3),
    )


__all__ = ["COLUMNS", "KEY", "ROWS", "RandomKey", "full_spec", "small_spec"]
